"""When a retrain is due: enough labels that no finished retrain has considered, and not just failed on these very labels.
Cheap; loads neither torch nor MLflow.

Before the first model, while no class of defects has enough pictures to be trained, a cold start is due instead, from
enough good parts on; its labels are owed a classifier all the same.

Invariant: what broke twice on the same labels is not tried at every tick, and never given up either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, exists, func, or_, select
from sqlalchemy.orm import Session

from inspection.data.labels import count_new_labels, current_labels, last_label_id
from inspection.data.product import Product
from inspection.data.snapshot_record import Split
from inspection.data.splitting import shares
from inspection.release.promotions import champion, is_cold_start
from inspection.store.tables import (
    FailedRetrainRow,
    GateDecisionRow,
    PictureRow,
    PromotionRow,
    SnapshotRow,
    SplitRow,
    utc_now,
)

PASS = "PASS"  # noqa: S105 - a gate's answer, not a password
FAILURES_AT_ONCE = 2  # on the same labels, before the schedule waits
RETRY_GROWTH = 1.5  # of a cold start's good pictures, before one that did not get to the lines is tried again
FIRST_WAIT, LONGEST_WAIT = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True)
class Due:
    """Whether a retrain should start, why in words, and the newest label it would rest on (0: there is none);
    ``cold_start``: not a classifier, but what good pictures alone can teach."""

    due: bool
    why: str
    newest_label: int = 0
    cold_start: bool = False


def considered_label_id(session: Session, product: str) -> int:
    """Labels up to this id are settled: a gate refused their model, or it went to the lines.

    A snapshot alone does not settle its labels: the retrain that took it may have been killed.
    """
    refused = exists().where(GateDecisionRow.snapshot == SnapshotRow.id, GateDecisionRow.answer != PASS)
    shipped = exists().where(PromotionRow.snapshot == SnapshotRow.id)
    query = select(SnapshotRow.last_label_id, SnapshotRow.counts).where(
        SnapshotRow.product == product, or_(refused, shipped)
    )
    settled = session.execute(query.order_by(SnapshotRow.last_label_id.desc()))
    return next((newest for newest, counts in settled if not _good_alone(counts)), 0)


def _good_alone(counts: Mapping[str, Any]) -> bool:
    """Whether a snapshot is a cold start's, by what its row counts: a classifier's has two classes to train at least."""
    return len(counts.get(Split.TRAIN.value, {})) == 1


def is_due(session: Session, product: Product, *, now: datetime | None = None) -> Due:
    """Compare the labels that wait with the product's plan, and the failures on them with the patience above."""
    newest = last_label_id(session, product)
    first = _without_a_class(session, product, newest)
    if first is not None and not first.due:
        return first
    waiting = count_new_labels(session, product.name, considered_label_id(session, product.name))
    needed = product.retrain.min_new_labels
    if first is None and waiting < needed:
        return Due(False, f"{waiting} new labels since the last retrain, {needed} are needed", newest)
    failed = _failures(session, product.name, newest)
    if failed and (now or utc_now()) < (until := failed[-1].at + wait_after(len(failed))):
        return Due(False, _waits(failed, until), newest)
    return first or Due(True, f"{waiting} new labels since the last retrain, {needed} are enough", newest)


def _without_a_class(session: Session, product: Product, newest: int) -> Due | None:
    """What is due while no class of defects can be trained: a cold start where there is none yet, else nothing. None where
    one can, and where a cold start is not for this product (yet)."""
    row, least = champion(session, product.name), product.retrain.cold_start_good
    after_cold_start = row is not None and is_cold_start(session, row.bundle)
    possible = row is None and least is not None and {product.student.pretrained, product.train.pretrained} != {"none"}
    if not possible and not after_cold_start:
        return None
    found = _labelled(session, product)
    if found.trainable:
        return None
    if after_cold_start:
        return Due(False, "no class of defects has pictures enough to be trained: the cold start goes on", newest)
    if least is None or found.good_parts < least:
        return None
    if found.good_pictures < RETRY_GROWTH * (tried := _tried(session, product)):
        said = f"a cold start was made from {tried} good pictures and is not on the lines: the next one needs half as many"
        return Due(False, f"{said} more (there are {found.good_pictures}), or `inspection cold-start`", newest)
    why = f"{found.good_parts} good parts, {least} are enough for a cold start: no class of defects can be trained yet"
    return Due(True, why, newest, cold_start=True)


@dataclass(frozen=True)
class _Labelled:
    """What there is to learn from. ``trainable``: some class of defects has pictures enough on the training side."""

    good_parts: int
    good_pictures: int
    trainable: bool


def _labelled(session: Session, product: Product) -> _Labelled:
    """Counted cheaply: pictures whose side is not settled count by the training side's share."""
    labels = {sha256: one.label for sha256, one in current_labels(session, product).items() if one.label is not None}
    side = func.coalesce(SplitRow.split, PictureRow.fixed_split)
    own = and_(SplitRow.product == PictureRow.product, SplitRow.group == PictureRow.group)
    query = select(PictureRow.sha256, PictureRow.part, side).outerjoin(SplitRow, own)
    rows = session.execute(query.where(PictureRow.product == product.name)).all()
    good = [(sha256, part) for sha256, part, _ in rows if labels.get(sha256) == product.good_class]
    weight = {None: shares(product.retrain)[Split.TRAIN], Split.TRAIN.value: 1.0}
    training: dict[str, float] = {}
    for sha256, _, known in rows:
        name = labels.get(sha256)
        if name in product.classes and name != product.good_class:
            training[name] = training.get(name, 0.0) + weight.get(known, 0.0)
    trainable = any(count >= product.retrain.min_per_class for count in training.values())
    return _Labelled(len({part for _, part in good}), len(good), trainable)


def _tried(session: Session, product: Product) -> int:
    """Good pictures of the largest cold start a gate was asked about; 0 before the first."""
    asked = exists().where(GateDecisionRow.snapshot == SnapshotRow.id)
    query = select(SnapshotRow.counts).where(SnapshotRow.product == product.name, asked)
    sizes = [
        sum(sum(counts.get(side.value, {}).values()) for side in Split)
        for counts in session.scalars(query)
        if _good_alone(counts)
    ]
    return max(sizes, default=0)


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
