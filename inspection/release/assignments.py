"""Assignments: what one station shall run, signed with the fleet key.

Invariants: only targets that carry a release signature are assigned; serials of a station rise by one and the newest
counts; rows are added and never changed; a cold start judges nowhere unless a person has said that it may.
"""

from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from inspection.contracts import Assignment, Mode, Target, TargetKind
from inspection.errors import UsageError
from inspection.release.promotions import is_cold_start
from inspection.release.signing import Keys, sign_assignment, trust_root, verify_assignment
from inspection.store.session import exclusive
from inspection.store.tables import AssignmentRow, BundleRow, GateDecisionRow, StationRow

BY_HAND = "BY HAND"
"""In the ledger of gate decisions: what a person answered where a gate could not."""


def may_judge(session: Session, bundle: str) -> bool:
    """Whether a person has said, by name and with a reason, that this cold start may judge."""
    query = select(GateDecisionRow.id).where(GateDecisionRow.subject == bundle, GateDecisionRow.answer == BY_HAND)
    return session.scalars(query.limit(1)).first() is not None


def mode_of(session: Session, station: StationRow, bundle: str | None, *, rolled_out: bool) -> Mode:
    """What a station is assigned to do with a bundle: what was set for it, but for a cold start.

    No gate has seen a defective part of a cold start's, so it judges nobody's part: stations that judge shadow with it
    until `may_judge`. A rollout takes those that collect into shadow, where the line hears the same.
    """
    mode = Mode(station.mode)
    if bundle is None or not is_cold_start(session, bundle):
        return mode
    if mode is Mode.JUDGE and not may_judge(session, bundle):
        return Mode.SHADOW
    return Mode.SHADOW if mode is Mode.COLLECT and rolled_out else mode


def signed_target(session: Session, digest: str, kind: TargetKind, product: str) -> Target:
    """The pointer to a registered, signed target of a product. UsageError when there is none, or it is not signed."""
    row = session.get(BundleRow, digest)
    if row is None or row.kind != kind.value or row.product != product:
        raise UsageError(f"there is no {kind.value} {digest[:12]} of {product!r}: build and register it first")
    if not row.envelope:
        raise UsageError(f"{kind.value} {digest[:12]} is not signed and cannot be assigned: run `inspection sign` on it")
    return Target(sha256=row.sha256, length=row.length, version=row.version)


def newest_assignment(session: Session, station: str) -> AssignmentRow | None:
    """What a station shall run now; None when it was never assigned anything."""
    query = select(AssignmentRow).where(AssignmentRow.station == station)
    return session.scalars(query.order_by(AssignmentRow.serial.desc()).limit(1)).first()


def belongs(session: Session, digest: str | None, product: str) -> bool:
    """Whether a registered target is one of this product's."""
    row = None if digest is None else session.get(BundleRow, digest)
    return row is not None and row.product == product


def set_challenger(session: Session, station: str, digest: str | None) -> None:
    """Let a bundle judge beside the station's own without answering (None: nobody does); assigned at the next watch.

    Raises UsageError on an unknown station, and on a bundle that is not the product's, or not signed.
    """
    row = _station(session, station)
    if digest is not None:
        signed_target(session, digest, TargetKind.BUNDLE, row.product)
    row.challenger = digest


def _station(session: Session, name: str) -> StationRow:
    row = session.get(StationRow, name)
    if row is None:
        raise UsageError(f"there is no station {name!r}: add it to its product first")
    return row


def _challenger(session: Session, station: StationRow, bundle: str | None) -> str | None:
    """Whoever challenges ``bundle`` at a station: nobody where it is the same one, or one of the product before."""
    digest = station.challenger
    return digest if bundle is not None and digest != bundle and belongs(session, digest, station.product) else None


def bring_in_step(
    session: Session, keys: Keys, product: str, bundle: str | None, recipe: str | None, *, now: datetime | None = None
) -> list[str]:
    """Assign these targets (None: none yet, a station may collect without) to the stations of a product that are not in
    step. For a product without a rollout under way. Returns what was done, in words."""
    done = []
    query = select(StationRow).where(StationRow.product == product).order_by(StationRow.name)
    for station in session.scalars(query).all():
        last = newest_assignment(session, station.name)
        if why := _out_of_step(session, keys, station, last, bundle):
            row = assign(session, keys, station.name, bundle, recipe, now=now)
            runs = (bundle or "none")[:12]
            mode = mode_of(session, station, bundle, rolled_out=False)
            done.append(f"station {station.name} {why}: mode {mode.value}, bundle {runs}, serial {row.serial}")
    return done


def _out_of_step(
    session: Session, keys: Keys, station: StationRow, last: AssignmentRow | None, bundle: str | None
) -> str | None:
    if last is None:
        return "is new"
    if last.bundle is None:
        if bundle is not None:
            return "had no bundle"
    elif not belongs(session, last.bundle, station.product):
        return "came from another product"
    said = verify_assignment(last.envelope, trust_root(keys))
    wanted = mode_of(session, station, last.bundle, rolled_out=False)
    if (said.mode, said.audit_share) != (wanted, station.audit_share):
        return "changed its mode or audit share"
    if (said.challenger and said.challenger.sha256) != _challenger(session, station, last.bundle):
        return "changed its challenger"
    return None


def assign(
    session: Session,
    keys: Keys,
    station: str,
    bundle: str | None,
    recipe: str | None,
    *,
    now: datetime | None = None,
    rollout: int | None = None,
) -> AssignmentRow:
    """Give ``station`` its next assignment, signed with the fleet key. Raises UsageError on an unknown station or target,
    and on a target without a signature."""
    row = _station(session, station)
    exclusive(session, f"assignments/{station}")
    last = newest_assignment(session, station)
    issued = now or datetime.now(UTC)
    challenger = _challenger(session, row, bundle)
    assignment = Assignment(
        station=station,
        serial=1 if last is None else last.serial + 1,
        mode=mode_of(session, row, bundle, rolled_out=rollout is not None),
        bundle=None if bundle is None else signed_target(session, bundle, TargetKind.BUNDLE, row.product),
        recipe=None if recipe is None else signed_target(session, recipe, TargetKind.RECIPE, row.product),
        challenger=None if challenger is None else signed_target(session, challenger, TargetKind.BUNDLE, row.product),
        audit_share=row.audit_share,
        issued_at=issued,
    )
    made = AssignmentRow(
        station=station,
        serial=assignment.serial,
        rollout=rollout,
        bundle=bundle,
        recipe=recipe,
        envelope=sign_assignment(keys, assignment),
        issued_at=issued,
    )
    session.add(made)
    session.flush()
    return made
