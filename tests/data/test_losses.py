"""A class that shrinks or vanishes is named, with what became of its pictures."""

from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from inspection.data.losses import losses
from inspection.data.snapshot_record import Example, Refused, Snapshot, Split

Place = tuple[str, Split]


def snapshot(places: Mapping[int, Place], refused: Sequence[Refused] = ()) -> Snapshot:
    """Pictures by number, each with its label and side."""
    examples = [
        Example(picture=f"{n:064x}", label=label, part=f"p{n}", group=f"p{n}", split=side)
        for n, (label, side) in sorted(places.items())
    ]
    return Snapshot(
        product="lid", good_class="ok", classes=["ok", "dent", "crack"], examples=examples, refused=list(refused)
    )


BEFORE = {n: ("ok" if n < 20 else "dent" if n < 30 else "crack", Split.TRAIN) for n in range(40)} | dict.fromkeys(
    range(40, 44), ("crack", Split.GOLDEN)
)


def test_a_class_that_lost_more_than_half_is_named_with_its_pictures_fates() -> None:
    """Six of ten cracks: some relabelled, one refused, one withdrawn; half would have been borne."""
    now = dict(BEFORE) | dict.fromkeys((30, 31, 32, 33), ("ok", Split.TRAIN))
    del now[34], now[35]
    refused = [Refused(picture=f"{35:064x}", reason="contradictory_labels", detail="ann: ok; bob: crack")]
    (found,) = losses(snapshot(BEFORE), snapshot(now, refused), {})
    assert str(found) == (
        "class 'crack' had 10 train pictures and has 4 (4 now labelled 'ok', 1 left out as contradictory_labels, "
        "1 no longer labelled)"
    )
    half = dict(BEFORE) | dict.fromkeys(range(30, 35), ("ok", Split.TRAIN))
    assert losses(snapshot(BEFORE), snapshot(half), {}) == []


def test_a_class_that_vanished_from_the_golden_side_alone_is_named() -> None:
    """It would still be taught, but nobody would be judged by it."""
    now = {n: place for n, place in BEFORE.items() if n < 40}
    (found,) = losses(snapshot(BEFORE), snapshot(now), {})
    assert (found.name, found.side, found.before, found.now) == ("crack", Split.GOLDEN, 4, 0)


def test_a_loss_that_is_meant_is_none_down_to_the_number_that_was_said() -> None:
    """One picture less than that, and it is asked about again."""
    now = {n: place for n, place in BEFORE.items() if n not in range(30, 37)}
    assert losses(snapshot(BEFORE), snapshot(now), {"crack": 3}) == []
    assert len(losses(snapshot(BEFORE), snapshot(now), {"crack": 4})) == 1
    assert len(losses(snapshot(BEFORE), snapshot(now), {"dent": 0})) == 1


places = st.dictionaries(st.integers(0, 40), st.tuples(st.sampled_from(["ok", "dent", "crack"]), st.sampled_from(Split)))


@given(places, places)
def test_growing_is_never_a_loss(before: dict[int, Place], more: dict[int, Place]) -> None:
    """Whatever is added, while what was there stays as it was."""
    assert losses(snapshot(before), snapshot(more | before), {}) == []


@given(places, places)
def test_every_loss_accounts_for_the_pictures_that_are_gone(before: dict[int, Place], now: dict[int, Place]) -> None:
    """Those that were there and are not are as many as the fates say, and more than half of the class on that side."""
    for loss in losses(snapshot(before), snapshot(now), {}):
        had = {n for n, place in before.items() if place == (loss.name, loss.side)}
        gone = sum(now.get(n) != (loss.name, loss.side) for n in had)
        assert sum(loss.fates.values()) == gone
        assert loss.now < loss.before / 2 == len(had) / 2
