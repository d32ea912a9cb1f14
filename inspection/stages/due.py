"""When a retrain is due: enough labels that no finished retrain has considered, and not just failed on these very labels.
Cheap; loads neither torch nor MLflow.

Invariant: what broke twice on the same labels is not tried at every tick, and never given up either.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import exists, func, or_, select
from sqlalchemy.orm import Session

from inspection.data.labels import count_new_labels, last_label_id
from inspection.data.product import Product
from inspection.store.tables import FailedRetrainRow, GateDecisionRow, PromotionRow, SnapshotRow, utc_now

PASS = "PASS"  # noqa: S105 - a gate's answer, not a password
FAILURES_AT_ONCE = 2  # on the same labels, before the schedule waits
FIRST_WAIT, LONGEST_WAIT = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True)
class Due:
    """Whether a retrain should start, why in words, and the newest label it would rest on (0: there is none)."""

    due: bool
    why: str
    newest_label: int = 0


def considered_label_id(session: Session, product: str) -> int:
    """Labels up to this id are settled: a gate refused their model, or it went to the lines.

    A snapshot alone does not settle its labels: the retrain that took it may have been killed.
    """
    refused = exists().where(GateDecisionRow.snapshot == SnapshotRow.id, GateDecisionRow.answer != PASS)
    shipped = exists().where(PromotionRow.snapshot == SnapshotRow.id)
    query = select(func.max(SnapshotRow.last_label_id)).where(SnapshotRow.product == product, or_(refused, shipped))
    return session.scalar(query) or 0


def is_due(session: Session, product: Product, *, now: datetime | None = None) -> Due:
    """Compare the labels that wait with the product's plan, and the failures on them with the patience above."""
    newest = last_label_id(session, product)
    waiting = count_new_labels(session, product.name, considered_label_id(session, product.name))
    needed = product.retrain.min_new_labels
    if waiting < needed:
        return Due(False, f"{waiting} new labels since the last retrain, {needed} are needed", newest)
    failed = _failures(session, product.name, newest)
    if failed and (now or utc_now()) < (until := failed[-1].at + wait_after(len(failed))):
        return Due(False, _waits(failed, until), newest)
    return Due(True, f"{waiting} new labels since the last retrain, {needed} are enough", newest)


def wait_after(failures: int) -> timedelta:
    """How long after the last of so many failures on the same labels the next attempt waits. Pure.

    Not at all after the first (a server that was away comes back), then an hour, doubling, a day at most.
    """
    if failures < FAILURES_AT_ONCE:
        return timedelta(0)
    wait = FIRST_WAIT
    for _ in range(failures - FAILURES_AT_ONCE):
        wait = min(2 * wait, LONGEST_WAIT)
    return wait


def record_failure(session: Session, product: str, newest_label: int, stage: str, why: str) -> None:
    """Append a failed attempt: on labels up to ``newest_label``, broken in ``stage``, with ``why`` in words."""
    session.add(FailedRetrainRow(product=product, last_label_id=newest_label, stage=stage, why=why))
    session.flush()


def _failures(session: Session, product: str, newest_label: int) -> Sequence[FailedRetrainRow]:
    mine = (FailedRetrainRow.product == product, FailedRetrainRow.last_label_id == newest_label)
    return session.scalars(select(FailedRetrainRow).where(*mine).order_by(FailedRetrainRow.id)).all()


def _waits(failed: Sequence[FailedRetrainRow], until: datetime) -> str:
    return (
        f"{len(failed)} retrains failed on these labels, the last in {failed[-1].stage!r} ({failed[-1].why}): the next "
        f"begins after {until:%Y-%m-%d %H:%M} UTC, with the first new label, or by hand with force"
    )
