"""When a retrain is due: enough labels that no finished retrain has considered. Cheap; loads neither torch nor MLflow."""

from dataclasses import dataclass

from sqlalchemy import exists, func, or_, select
from sqlalchemy.orm import Session

from inspection.data.labels import count_new_labels
from inspection.data.product import Product
from inspection.store.tables import GateDecisionRow, PromotionRow, SnapshotRow

PASS = "PASS"  # noqa: S105 - a gate's answer, not a password


@dataclass(frozen=True)
class Due:
    """Whether a retrain should start, and why in words."""

    due: bool
    why: str


def considered_label_id(session: Session, product: str) -> int:
    """Labels up to this id are settled: a gate refused their model, or it went to the lines.

    A snapshot alone does not settle its labels: the retrain that took it may have been killed.
    """
    refused = exists().where(GateDecisionRow.snapshot == SnapshotRow.id, GateDecisionRow.answer != PASS)
    shipped = exists().where(PromotionRow.snapshot == SnapshotRow.id)
    query = select(func.max(SnapshotRow.last_label_id)).where(SnapshotRow.product == product, or_(refused, shipped))
    return session.scalar(query) or 0


def is_due(session: Session, product: Product) -> Due:
    """Compare the labels that wait with the product's plan."""
    waiting = count_new_labels(session, product.name, considered_label_id(session, product.name))
    needed = product.retrain.min_new_labels
    if waiting >= needed:
        return Due(True, f"{waiting} new labels since the last retrain, {needed} are enough")
    return Due(False, f"{waiting} new labels since the last retrain, {needed} are needed")
