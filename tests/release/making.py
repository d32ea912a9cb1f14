"""Plain values the release tests are made of."""

from datetime import UTC, datetime
from itertools import count

from inspection.contracts import ANY_DEFECT, Band, Decision, Limits, Recipe, Verdict
from inspection.data.product import Product
from inspection.release.scorecard import PartOutcome, Scorecard, scorecard_of

_sequence = count(1)


def verdict(
    part: str, decision: str, score: float | None, defect_class: str | None = None, station: str = "evaluation"
) -> Verdict:
    """A verdict on ``part``; ``score`` is the total defect score (None: ERROR, no scores)."""
    number = next(_sequence)
    return Verdict(
        id=f"v{number}",
        device="device-1",
        boot="boot",
        sequence=number,
        station=station,
        product="plate",
        part=part,
        captured_at=datetime(2026, 1, 1, tzinfo=UTC),
        decision=Decision(decision),
        defect_class=defect_class,
        scores={} if score is None else {"good": 1 - score, "dent": score},
        agent_version="1",
    )


def card(escapes: int, defective: int, overkills: int, good: int) -> Scorecard:
    """A scorecard with these counts; the first parts of each kind are the missed ones."""
    bad = [
        PartOutcome(
            part=f"d{i:05}",
            truth=["dent"],
            decision=Decision.OK if i < escapes else Decision.NG,
            score=0.1 if i < escapes else 0.9,
        )
        for i in range(defective)
    ]
    fine = [
        PartOutcome(
            part=f"g{i:05}",
            truth=[],
            decision=Decision.NG if i < overkills else Decision.OK,
            score=0.9 if i < overkills else 0.1,
        )
        for i in range(good)
    ]
    return scorecard_of(bad + fine, good_class="good", pictures=defective + good)


def product(**changes: object) -> Product:
    """A product with two defect classes and limits of 5 % and 10 %."""
    fields: dict[str, object] = {
        "name": "plate",
        "good_class": "good",
        "classes": ["good", "dent", "scratch"],
        "limits": Limits(escape_rate=0.05, overkill_rate=0.10),
    }
    return Product.model_validate(fields | changes)


def recipe(ng: float = 0.6, inconclusive: float = 0.4) -> Recipe:
    """A recipe with one band on any defect."""
    made = product()
    return Recipe(
        product=made.name,
        version=1,
        good_class="good",
        thresholds={ANY_DEFECT: Band(inconclusive=inconclusive, ng=ng)},
        limits=made.limits,
    )
