"""Scores become verdicts as a device would give them."""

import numpy as np

from inspection.contracts import Decision
from inspection.data.snapshot_record import Example, Split
from inspection.release.evaluate import judged
from inspection.release.scorecard import Rate, score
from tests.release.making import recipe


def example(number: int, label: str, station: str | None) -> Example:
    """One golden picture."""
    part = f"p{number}"
    return Example(picture=f"{number:064x}", label=label, part=part, group=part, split=Split.GOLDEN, station=station)


def test_a_picture_counts_at_the_station_that_took_it() -> None:
    """One whose station nobody knows counts in the whole alone."""
    examples = [example(1, "dent", "press-1"), example(2, "dent", None), example(3, "good", "press-2")]
    pairs = judged(np.array([[0.2, 0.8], [0.9, 0.1], [0.9, 0.1]], np.float32), ["good", "dent"], examples, recipe())
    assert [v.decision for v, _ in pairs] == [Decision.NG, Decision.OK, Decision.OK]
    card = score(pairs, good_class="good")
    assert card.escape == Rate.of(1, 2)
    assert {name: (row.escape, row.overkill) for name, row in card.per_station.items()} == {
        "press-1": (Rate.of(0, 1), Rate.of(0, 0)),
        "press-2": (Rate.of(0, 0), Rate.of(0, 1)),
    }
