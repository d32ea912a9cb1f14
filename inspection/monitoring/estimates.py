"""Escape and overkill in the field, from labels: exact intervals, and the numbers they rest on.

What is known directly: of the audited passed parts (a random share of all passed parts) how many were defective, and of
the labelled rejected parts how many were good. The two rates follow with the station's own counts of passed and rejected
parts. Only verdicts of stations that judge count; known parts of a challenge, and labels from an import, say nothing about
the line and are left out.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from scipy import stats
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from inspection.contracts import Decision, Mode, Purpose
from inspection.data.labels import IMPORT
from inspection.data.product import Product
from inspection.store.tables import LabelRow, TaskRow, VerdictRow

CONFIDENCE = 0.95
AUDIT = "audit"
REJECTS = "disagree"


@dataclass(frozen=True)
class Share:
    """``hits`` of ``total``, with the two-sided Clopper-Pearson interval (Biometrika 26, 1934) at ``confidence``."""

    hits: int
    total: int
    low: float
    high: float
    confidence: float = CONFIDENCE

    @property
    def rate(self) -> float | None:
        """The observed share, None with nothing observed."""
        return self.hits / self.total if self.total else None


@dataclass(frozen=True)
class Interval:
    """A rate in [0, 1] with its two-sided interval, conservative at 95 %."""

    rate: float
    low: float
    high: float


@dataclass(frozen=True)
class FieldEstimate:
    """One station's estimate. ``passed`` and ``rejected`` are the hub's counts of judged parts in the window."""

    station: str
    passed: int
    rejected: int
    defective_of_passed: Share  # among audited passed parts
    good_of_rejected: Share  # among labelled rejected parts
    defects_passed: Mapping[str, Share]  # per defect class, among audited passed parts
    left_out: int  # audited or labelled parts whose label is missing a decision: cannot tell, or contradictory

    @property
    def escape(self) -> Interval | None:
        """Share of the defective parts that were passed."""
        return _escape(self)

    @property
    def overkill(self) -> Interval | None:
        """Share of the good parts that were rejected."""
        return _overkill(self)

    @property
    def words(self) -> str:
        """The direct observation in one sentence."""
        audit, rejects = self.defective_of_passed, self.good_of_rejected
        return (
            f"Of {audit.total} audited passed parts {audit.hits} {_were(audit.hits)} defective; "
            f"of {rejects.total} labelled rejected parts {rejects.hits} {_were(rejects.hits)} good."
        )


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def share(hits: int, total: int, *, confidence: float = CONFIDENCE) -> Share:
    """Exact two-sided interval of ``hits`` in ``total``; [0, 1] with nothing observed. ValueError when hits > total."""
    if total == 0 and hits == 0:
        return Share(0, 0, 0.0, 1.0, confidence)
    found = stats.binomtest(hits, total).proportion_ci(confidence, method="exact")
    return Share(hits, total, float(found.low), float(found.high), confidence)


def _wider(observed: Share) -> Share:
    """The same observation at the confidence that leaves 95 % for two of them together (Bonferroni)."""
    return share(observed.hits, observed.total, confidence=1 - (1 - CONFIDENCE) / 2)


def _part_of(first: float, second: float) -> float | None:
    return first / (first + second) if first + second > 0 else None


def _escape(one: FieldEstimate) -> Interval | None:
    """a P / (a P + b R): rises with a = P(defective | passed), falls with b = P(defective | rejected)."""

    def rate(a: float, b: float) -> float | None:
        return _part_of(a * one.passed, b * one.rejected)

    return _spread(one, rate)


def _overkill(one: FieldEstimate) -> Interval | None:
    """(1 - b) R / ((1 - b) R + (1 - a) P): rises with a, falls with b."""

    def rate(a: float, b: float) -> float | None:
        return _part_of((1 - b) * one.rejected, (1 - a) * one.passed)

    return _spread(one, rate)


def _spread(one: FieldEstimate, rate: Callable[[float, float], float | None]) -> Interval | None:
    """Both rates rise with a and fall with b, so the corners of the joint region bound them."""
    passed, rejected = one.defective_of_passed, one.good_of_rejected
    if passed.rate is None or (rejected.rate is None and one.rejected > 0):
        return None
    a, b = _wider(passed), _wider(rejected)
    middle = rate(passed.rate, 1 - (rejected.rate or 0.0))
    low, high = rate(a.low, 1 - b.low), rate(a.high, 1 - b.high)
    if middle is None:
        return None  # no such part was seen: 0 of 0
    return Interval(middle, 0.0 if low is None else low, 1.0 if high is None else high)


def estimate_field(session: Session, product: Product, *, since: datetime) -> list[FieldEstimate]:
    """One estimate per station that judged parts since ``since`` (UTC), by station name.

    The audit is a random share of the passed parts: tasks with that purpose, on pictures their device drew at random.
    Near-threshold pictures of passed parts are never counted, they would make escape look worse than it is.
    """
    judged = (
        VerdictRow.product == product.name,
        VerdictRow.captured_at >= since,
        VerdictRow.mode == Mode.JUDGE.value,
        VerdictRow.purpose == Purpose.PRODUCTION.value,
    )
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    totals = select(VerdictRow.station, VerdictRow.decision, func.count()).where(*judged)
    for station, decision, number in session.execute(totals.group_by(VerdictRow.station, VerdictRow.decision)):
        counts[station][decision] = number
    asked = (
        select(VerdictRow.station, VerdictRow.decision, VerdictRow.picture_why, TaskRow.why, TaskRow.picture)
        .join(VerdictRow, VerdictRow.id == TaskRow.verdict)
        .where(*judged, TaskRow.product == product.name, TaskRow.why.in_((AUDIT, REJECTS)))
    )
    answers = _answers(session, product.name)
    found: dict[str, _Tally] = defaultdict(_Tally)
    for station, decision, picture_why, task_why, picture in session.execute(asked):
        side = _side(decision, picture_why, task_why)
        if side and picture in answers:
            found[station].add(side, answers[picture])
    return [_estimate(name, counts[name], found[name], product) for name in sorted(counts)]


def _answers(session: Session, product: str) -> dict[str, set[str | None]]:
    """What operators say now of the pictures asked for these samples: the latest row per answer, none from an import.

    Columns of just these pictures: the console asks often, and a product may have a hundred thousand labels.
    """
    pictures = select(TaskRow.picture).where(TaskRow.product == product, TaskRow.why.in_((AUDIT, REJECTS)))
    mine = (LabelRow.product == product, LabelRow.origin != IMPORT, LabelRow.picture.in_(pictures))
    latest = select(func.max(LabelRow.id)).where(*mine).group_by(LabelRow.origin, LabelRow.origin_id)
    said: dict[str, set[str | None]] = defaultdict(set)
    query = select(LabelRow.picture, LabelRow.label).where(LabelRow.id.in_(latest), LabelRow.kind == "answer")
    for picture, label in session.execute(query):
        said[picture].add(label)
    return said


def _side(decision: str, picture_why: str | None, task_why: str) -> str | None:
    """Which of the two samples a labelled verdict belongs to, None for neither."""
    if decision == Decision.OK:
        return "passed" if task_why == AUDIT and picture_why == AUDIT else None
    return "rejected" if decision in (Decision.NG, Decision.INCONCLUSIVE) and task_why == REJECTS else None


@dataclass
class _Tally:
    """What the labels said of one station's two samples."""

    passed: Counter[str] = field(default_factory=Counter)  # by label
    rejected: Counter[str] = field(default_factory=Counter)
    left_out: int = 0

    def add(self, side: str, said: set[str | None]) -> None:
        """Count one verdict by what operators said of it; what is not one clear class is left out, and counted."""
        label = next(iter(said)) if len(said) == 1 else None
        if label is None:
            self.left_out += 1
        else:
            (self.passed if side == "passed" else self.rejected)[label] += 1


def _estimate(station: str, counts: Counter[str], tally: _Tally, product: Product) -> FieldEstimate:
    audited, labelled = tally.passed.total(), tally.rejected.total()
    defects = [name for name in product.classes if name != product.good_class]
    defects += sorted(set(tally.passed) - set(product.classes))
    return FieldEstimate(
        station=station,
        passed=counts[Decision.OK],
        rejected=counts[Decision.NG] + counts[Decision.INCONCLUSIVE],
        defective_of_passed=share(audited - tally.passed[product.good_class], audited),
        good_of_rejected=share(tally.rejected[product.good_class], labelled),
        defects_passed={name: share(tally.passed[name], audited) for name in defects},
        left_out=tally.left_out,
    )
