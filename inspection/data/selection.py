"""Selection: which pictures are worth an operator's time. Chosen by the latest verdict on each picture.

Invariants: a picture is asked about once; verdicts on known parts of a challenge choose nothing; audits are drawn at random
from the pictures of passed parts that their device drew at random, and those are chosen in no other way, so that escapes
can be estimated without bias; the same ``rng`` state gives the same choice.
"""

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from inspection.contracts import ANY_DEFECT, Decision, Purpose
from inspection.data.labels import name_of
from inspection.data.product import Product
from inspection.data.products import load_product
from inspection.data.snapshot_record import UNUSUAL
from inspection.store.tables import LabelRow, PictureRow, TaskRow, VerdictRow

PURPOSE = "label"
AUDIT, DISAGREE, NOVEL, UNCERTAIN = "audit", "disagree", "novel", "uncertain"
_DOUBTED = (Decision.NG, Decision.INCONCLUSIVE)


@dataclass(frozen=True)
class Choice:
    """A picture to ask about, why ("audit", "disagree", "novel" or "uncertain"), and the id of its latest verdict."""

    picture: str
    why: str
    verdict: str


@dataclass(frozen=True)
class _Candidate:
    picture: str
    verdict: str
    decision: str
    audited: bool  # the device kept the picture because it drew the passed part at random
    doubt: float  # the higher, the less certain the verdict
    novelty: float | None  # how far the picture lies from good ones, where the model says so


def choose(session: Session, product: str | Product, *, budget: int, rng: random.Random) -> list[Choice]:
    """Up to ``budget`` pictures, fewer when the plan's ``max_open_tasks`` unanswered questions are reached.

    Shares of the budget by `CollectPlan`: passed parts at random (audit), NG and INCONCLUSIVE ones at random (disagree),
    the most novel (novel), the rest by doubt. What one share cannot fill the most doubtful pictures get, and then
    more audits.
    """
    plan = load_product(session, name_of(product)).collect
    room = min(budget, plan.max_open_tasks - open_tasks(session, product))
    if room <= 0:
        return []
    candidates = _candidates(session, name_of(product))
    taken: dict[str, Choice] = {}
    audits = [c for c in candidates if c.audited]
    others = [c for c in candidates if not c.audited]
    doubted = [c for c in others if c.decision in _DOUBTED]
    _take(taken, AUDIT, _shuffled(audits, rng), round(room * plan.audit_share))
    _take(taken, DISAGREE, _shuffled(doubted, rng), round(room * plan.disagree_share))
    _take(taken, NOVEL, _by_novelty(others), min(round(room * plan.novel_share), room - len(taken)))
    _take(taken, UNCERTAIN, sorted(others, key=lambda c: (-c.doubt, c.picture)), room - len(taken))
    _take(taken, AUDIT, _shuffled(audits, rng), room - len(taken))
    return list(taken.values())


def open_tasks(session: Session, product: str | Product) -> int:
    """How many questions about a product wait for an answer."""
    return session.scalar(select(func.count()).select_from(TaskRow).where(waits(product))) or 0


def waits(product: str | Product) -> ColumnElement[bool]:
    """The condition on a row that its question about a product waits for an answer."""
    mine = and_(TaskRow.product == name_of(product), TaskRow.purpose == PURPOSE)
    return and_(mine, TaskRow.answered_at.is_(None), TaskRow.closed_at.is_(None))


def _shuffled(candidates: Sequence[_Candidate], rng: random.Random) -> list[_Candidate]:
    return rng.sample(candidates, len(candidates))


def _by_novelty(candidates: Iterable[_Candidate]) -> list[_Candidate]:
    """Those whose novelty is known, the most novel first."""
    known = [(c.novelty, c) for c in candidates if c.novelty is not None]
    return [c for _, c in sorted(known, key=lambda pair: (-pair[0], pair[1].picture))]


def _take(taken: dict[str, Choice], why: str, ordered: Iterable[_Candidate], count: int) -> None:
    """The first ``count`` that are not taken yet."""
    free = (c for c in ordered if c.picture not in taken)
    for candidate in islice(free, max(0, count)):
        taken[candidate.picture] = Choice(candidate.picture, why, candidate.verdict)


def _candidates(session: Session, product: str) -> list[_Candidate]:
    """Stored pictures without a task or an answer, each with its latest verdict, by digest."""
    asked = select(TaskRow.picture).where(TaskRow.product == product, TaskRow.purpose == PURPOSE)
    answered = select(LabelRow.picture).where(LabelRow.product == product)
    stored = select(PictureRow.sha256).where(PictureRow.product == product)
    place = func.row_number().over(
        partition_by=VerdictRow.picture, order_by=(VerdictRow.captured_at.desc(), VerdictRow.id.desc())
    )
    latest = (
        select(VerdictRow.id, place.label("place"))
        .where(VerdictRow.product == product, VerdictRow.purpose == Purpose.PRODUCTION.value)
        .where(VerdictRow.picture.in_(stored))
        .where(VerdictRow.picture.not_in(asked), VerdictRow.picture.not_in(answered))
        .subquery()
    )
    wanted = select(VerdictRow)
    rows = session.scalars(wanted.join(latest, latest.c.id == VerdictRow.id).where(latest.c.place == 1))
    found = [
        _Candidate(
            str(row.picture),
            row.id,
            row.decision,
            _audited(row),
            _doubt(row.decision, row.defect_score, row.body),
            _novelty(row.body),
        )
        for row in rows
    ]
    return sorted(found, key=lambda c: c.picture)


def _audited(row: VerdictRow) -> bool:
    return row.decision == Decision.OK and row.picture_why == AUDIT


def _novelty(body: dict[str, Any]) -> float | None:
    """What the model said; a cold start's novelty is its score of `UNUSUAL`."""
    said: float | None = body.get("novelty")
    return said if said is not None else (body.get("scores") or {}).get(UNUSUAL)


def _doubt(decision: str, defect_score: float | None, body: dict[str, Any]) -> float:
    """Those a challenger judged otherwise first (3), then INCONCLUSIVE and unscored ones (1 to 2); else 1 at a threshold,
    falling with the distance from it."""
    challenger = body.get("challenger")
    if challenger and (challenger["decision"] == Decision.OK) is not (decision == Decision.OK):
        return 3.0
    scores: dict[str, float] = body.get("scores") or {}
    if decision == Decision.INCONCLUSIVE or not scores:
        return 1.0 + _entropy(scores.values())
    bands: dict[str, dict[str, float]] = body.get("thresholds") or {}
    distances = [
        min(abs(score - band["inconclusive"]), abs(score - band["ng"]))
        for name, band in bands.items()
        if (score := defect_score if name == ANY_DEFECT else scores.get(name)) is not None
    ]
    return 1.0 - min(distances) if distances else _entropy(scores.values())


def _entropy(scores: Iterable[float]) -> float:
    """Entropy of class probabilities over its largest value, in [0, 1]."""
    values = list(scores)
    if len(values) < 2:
        return 0.0
    return -sum(p * math.log(p) for p in values if p > 0) / math.log(len(values))
