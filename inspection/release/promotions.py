"""Promotions: the append-only ledger of which model decides on the lines, and which one waits to.

Invariants: a row is only ever added; serials of one product rise by one; a promotion is written only by a live holder of
the lease, whose fencing token is kept in the row and never falls; MLflow's aliases follow this ledger and not the reverse.
"""

from enum import StrEnum
from typing import Protocol

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from inspection.errors import LeaseError
from inspection.store.session import exclusive
from inspection.store.tables import BundleRow, PromotionRow, RolloutRow


class Role(StrEnum):
    """``champion`` decides; ``challenger`` passed its gates and is being rolled out or watched."""

    CHALLENGER = "challenger"
    CHAMPION = "champion"


class HeldLease(Protocol):
    """What a promotion asks of a lease (see `inspection.store.leases`)."""

    @property
    def token(self) -> int:
        """The fencing token: it rises with every new holder."""

    def check(self, session: Session) -> None:
        """Raise LeaseError inside the transaction when the lease was lost or taken over."""


def promote(
    session: Session,
    product: str,
    role: Role | str,
    *,
    model_version: str,
    run_id: str,
    snapshot: str,
    bundle: str,
    recipe: str,
    who: str,
    why: str,
    lease: HeldLease,
    teacher_version: str | None = None,
) -> PromotionRow:
    """Append a promotion. ``model_version`` is the edge model's in MLflow; ``bundle`` and ``recipe`` are digests.

    Raises LeaseError when the lease is lost, or when a later holder has already promoted this product.
    """
    lease.check(session)
    exclusive(session, f"promotions/{product}")
    last = session.execute(
        select(func.max(PromotionRow.serial), func.max(PromotionRow.fencing_token)).where(PromotionRow.product == product)
    ).one()
    if (last[1] or 0) > lease.token:
        raise LeaseError(f"promotion of {product!r} refused: token {lease.token} is older than {last[1]} in the ledger")
    row = PromotionRow(
        product=product,
        serial=(last[0] or 0) + 1,
        role=Role(role).value,
        model_version=model_version,
        teacher_version=teacher_version,
        run_id=run_id,
        snapshot=snapshot,
        bundle=bundle,
        recipe=recipe,
        fencing_token=lease.token,
        who=who,
        why=why,
    )
    session.add(row)
    session.flush()
    return row


def _newest(session: Session, product: str, role: Role) -> PromotionRow | None:
    query = select(PromotionRow).where(PromotionRow.product == product, PromotionRow.role == role.value)
    return session.scalars(query.order_by(PromotionRow.serial.desc()).limit(1)).first()


def champion(session: Session, product: str) -> PromotionRow | None:
    """The promotion of the model that decides now; None before the first."""
    return _newest(session, product, Role.CHAMPION)


def challenger(session: Session, product: str) -> PromotionRow | None:
    """The newest challenger; None when there is none, when a later champion has settled the matter, or its rollout was
    aborted."""
    found, decided = _newest(session, product, Role.CHALLENGER), champion(session, product)
    if found is None or (decided is not None and decided.serial > found.serial):
        return None
    query = select(RolloutRow.state).where(RolloutRow.product == product, RolloutRow.bundle == found.bundle)
    state = session.scalars(query.order_by(RolloutRow.id.desc()).limit(1)).first()
    return None if state == "aborted" else found


def is_cold_start(session: Session, bundle: str | None) -> bool:
    """Whether a registered bundle has learnt from good pictures alone (False of one nobody registered)."""
    row = None if bundle is None else session.get(BundleRow, bundle)
    return row is not None and bool(row.body.get("origin", {}).get("cold_start", False))
