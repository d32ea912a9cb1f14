"""Rollout: a signed bundle and recipe go to groups of stations in order, and come back when they do harm.

Invariants: only signed targets are assigned; serials of a station only rise, and going back is a new, higher serial; one
rollout per product is under way; a group has succeeded when every device of its stations says that it made enough
verdicts with the new digest, never because something was installed; aborting returns every station that was
moved to what it had before.

State: running -> done | aborted, running <-> paused, paused -> aborted. While paused nothing is assigned and no time-out
runs, but refusals and errors still abort.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from inspection.contracts import AgentState, Decision, Mode, Purpose, Report, TargetKind
from inspection.data.product import Product
from inspection.errors import IntegrityError, UsageError
from inspection.release.assignments import assign, belongs, signed_target
from inspection.release.promotions import champion, is_cold_start
from inspection.release.signing import Keys
from inspection.store.session import exclusive
from inspection.store.tables import AssignmentRow, DeviceRow, RolloutRow, StationRow, VerdictRow


class RolloutState(StrEnum):
    """Where a rollout is."""

    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    ABORTED = "aborted"


_OPEN = (RolloutState.RUNNING.value, RolloutState.PAUSED.value)
_PROVING = (AgentState.RUNNING, AgentState.PROBATION)

OnDone = Callable[[Session, RolloutRow], None]


@dataclass(frozen=True)
class DeviceProgress:
    """One device of the group under way: verdicts its process made with the new digest, of how many wanted."""

    device: str
    station: str
    verdicts: int
    wanted: int
    says: str

    @property
    def proved(self) -> bool:
        """Whether this device has succeeded."""
        return self.verdicts >= self.wanted


@dataclass(frozen=True)
class RolloutStatus:
    """What people are shown of a rollout."""

    id: int
    state: RolloutState
    bundle: str
    recipe: str
    group_index: int
    groups: list[list[str]]
    why: str
    devices: list[DeviceProgress]


# --- starting ----------------------------------------------------------------------------------------------------------


def plan_groups(session: Session, product: Product, *, cold_start: bool = False) -> list[list[str]]:
    """The first group of the product's plan (or its first station by name), then all its other stations. Stations that
    collect are left out: without a verdict they prove nothing. A ``cold_start`` takes them with it, into shadow."""
    wanted = [StationRow.product == product.name]
    wanted += [] if cold_start else [StationRow.mode != Mode.COLLECT.value]
    names = sorted(session.scalars(select(StationRow.name).where(*wanted)))
    first = list(product.rollout.first_group) or names[:1]
    rest = [name for name in names if name not in first]
    return [first, rest] if rest else [first]


def _check_groups(session: Session, product: Product, groups: Sequence[Sequence[str]], cold_start: bool) -> None:
    if not groups or not all(groups):
        raise UsageError(
            f"a rollout of {product.name!r} needs groups that each name a station that judges or shadows, got "
            f"{[list(g) for g in groups]}: add a station, or change the mode of one that collects"
        )
    stations = session.execute(select(StationRow.name, StationRow.mode).where(StationRow.product == product.name))
    known = {row.name: row.mode for row in stations}
    named = [station for group in groups for station in group]
    if strange := sorted(set(named) - known.keys()):
        raise UsageError(f"these are no stations of {product.name!r}: {strange}. It has {sorted(known)}")
    collecting = sorted(name for name in named if known[name] == Mode.COLLECT.value)
    if collecting and not cold_start:
        raise UsageError(f"these stations collect and prove nothing: {collecting}. Change their mode, or leave them out")
    if len(named) != len(set(named)):
        raise UsageError(f"a station is in two groups of the rollout: {sorted(n for n in named if named.count(n) > 1)}")
    for place, group in enumerate(groups, start=1):
        if not _devices(session, group):
            raise UsageError(f"group {place} of the rollout ({list(group)}) has no device that could prove it: enrol one")


def check_ready(
    session: Session, product: Product, groups: Sequence[Sequence[str]] | None = None, *, cold_start: bool = False
) -> list[list[str]]:
    """The groups a rollout would have (``groups`` None: `plan_groups`). UsageError when it could not start: see
    `start_rollout`."""
    if (other := current(session, product.name)) is not None:
        raise UsageError(f"rollout {other.id} of {product.name!r} is {other.state}: finish or abort it first")
    if cold_start:
        check_no_classifier(session, product.name)
    chosen = plan_groups(session, product, cold_start=cold_start) if groups is None else [list(g) for g in groups]
    _check_groups(session, product, chosen, cold_start)
    return chosen


def check_no_classifier(session: Session, product: str) -> None:
    """UsageError where a classifier is on the lines, which a cold start must not replace: it knows less, and would send
    every station into shadow."""
    row = champion(session, product)
    if row is not None and not is_cold_start(session, row.bundle):
        raise UsageError(
            f"bundle {row.bundle[:12]}, a classifier, is the champion of {product!r}: a cold start is for the time before "
            "the first one. Train a better classifier instead"
        )


def start_rollout(
    session: Session,
    keys: Keys,
    product: Product,
    bundle: str,
    recipe: str,
    groups: Sequence[Sequence[str]] | None = None,
    *,
    now: datetime | None = None,
) -> RolloutRow:
    """Begin: assign the digests ``bundle`` and ``recipe`` to the first group (``groups`` None: `plan_groups`).

    Raises UsageError on an empty group, on unknown, repeated or (but for a cold start) collecting stations, on a target
    that is missing or not signed, when another rollout of this product is under way, and of a cold start when a classifier
    is the champion.
    """
    exclusive(session, f"rollout/{product.name}")
    chosen = check_ready(session, product, groups, cold_start=is_cold_start(session, bundle))
    signed_target(session, bundle, TargetKind.BUNDLE, product.name)
    signed_target(session, recipe, TargetKind.RECIPE, product.name)
    when = now or datetime.now(UTC)
    row = RolloutRow(
        product=product.name,
        bundle=bundle,
        recipe=recipe,
        state=RolloutState.RUNNING.value,
        group_index=0,
        groups=chosen,
        group_started_at=when,
        created_at=when,
        why="",
    )
    session.add(row)
    session.flush()
    _move_group(session, keys, row, when)
    return row


def _move_group(session: Session, keys: Keys, row: RolloutRow, now: datetime) -> None:
    row.group_started_at = now
    for station in row.groups[row.group_index]:
        assign(session, keys, station, row.bundle, row.recipe, now=now, rollout=row.id)


# --- evidence ----------------------------------------------------------------------------------------------------------


def _devices(session: Session, stations: Sequence[str]) -> list[DeviceRow]:
    query = select(DeviceRow).where(DeviceRow.station.in_(list(stations))).order_by(DeviceRow.name)
    return list(session.scalars(query))


def _issued(session: Session, row: RolloutRow, station: str) -> AssignmentRow:
    """This rollout's assignment of a station that was moved."""
    query = select(AssignmentRow).where(AssignmentRow.station == station, AssignmentRow.rollout == row.id)
    found = session.scalars(query.order_by(AssignmentRow.serial).limit(1)).first()
    if found is None:
        raise IntegrityError(f"rollout {row.id} has reached station {station!r} but never assigned it: look at the ledger")
    return found


def _fresh_report(device: DeviceRow, issued: AssignmentRow) -> Report | None:
    """The device's last report, if it knows of this assignment or is younger (a device's clock may be behind)."""
    report = None if device.report is None else Report.model_validate(device.report)
    if report is None or (report.assignment_serial < issued.serial and report.at < issued.issued_at):
        return None
    return report


def _had_before(session: Session, issued: AssignmentRow) -> bool:
    query = select(AssignmentRow.serial).where(
        AssignmentRow.station == issued.station,
        AssignmentRow.serial < issued.serial,
        AssignmentRow.bundle == issued.bundle,
    )
    return session.scalars(query.limit(1)).first() is not None


def _verdicts_made(session: Session, device: DeviceRow, report: Report, issued: AssignmentRow) -> int:
    """Verdicts on parts of the line the device counts for the new digest. One that ran this bundle before the rollout has
    counted older ones too; then only verdicts the hub received since the assignment count."""
    claimed = report.verdicts_by_digest.get(issued.bundle or "", 0)
    if not _had_before(session, issued):
        return claimed
    query = select(func.count()).where(
        VerdictRow.device == device.name,
        VerdictRow.bundle_digest == issued.bundle,
        VerdictRow.recipe_digest == issued.recipe,
        VerdictRow.purpose == Purpose.PRODUCTION.value,
        VerdictRow.received_at >= issued.issued_at,
    )
    return min(claimed, session.scalars(query).one())


def _progress(session: Session, device: DeviceRow, issued: AssignmentRow, wanted: int) -> DeviceProgress:
    def says(words: str, verdicts: int = 0) -> DeviceProgress:
        return DeviceProgress(device.name, device.station, verdicts, wanted, words)

    report = _fresh_report(device, issued)
    if report is None:
        return says("has not reported since it was assigned")
    if report.assignment_serial < issued.serial:
        return says(f"is still at serial {report.assignment_serial}, assigned {issued.serial}")
    if (report.bundle_digest, report.recipe_digest) != (issued.bundle, issued.recipe):
        return says(f"runs bundle {_short(report.bundle_digest)} with recipe {_short(report.recipe_digest)}")
    if report.state not in _PROVING:
        return says(f"is in {report.state.value}: {report.last_error or 'no reason given'}")
    made = _verdicts_made(session, device, report, issued)
    return says(f"made {made} of {wanted} verdicts with the new bundle", made)


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]


def _moved(row: RolloutRow) -> list[str]:
    return [station for group in row.groups[: row.group_index + 1] for station in group]


def _group_progress(session: Session, product: Product, row: RolloutRow) -> list[DeviceProgress]:
    wanted = product.rollout.success_verdicts
    devices = _devices(session, row.groups[row.group_index])
    return [_progress(session, d, _issued(session, row, d.station), wanted) for d in devices]


def _refusal(session: Session, row: RolloutRow) -> str | None:
    for device in _devices(session, _moved(row)):
        report = _fresh_report(device, _issued(session, row, device.station))
        for said in report.refused if report else []:
            if row.bundle in said or row.recipe in said:
                return f"device {device.name} refused the target: {said}"
    return None


def _errors(session: Session, product: Product, row: RolloutRow) -> str | None:
    """Too many ERROR verdicts by the new bundle at moved stations. The share is of at least ``success_verdicts``, so that
    one bad trigger among the first few does not halt a rollout. Known parts of a challenge are left out: whether the
    model fails on them the device's own probation sees, and a bundle that fails there is refused."""
    total = errors = 0
    for station in _moved(row):
        query = select(VerdictRow.decision, func.count()).where(
            VerdictRow.station == station,
            VerdictRow.bundle_digest == row.bundle,
            VerdictRow.purpose == Purpose.PRODUCTION.value,
            VerdictRow.received_at >= _issued(session, row, station).issued_at,
        )
        for decision, made in session.execute(query.group_by(VerdictRow.decision)):
            total += made
            errors += made if decision == Decision.ERROR.value else 0
    limit = product.rollout.max_error_share
    if errors <= limit * max(total, product.rollout.success_verdicts):
        return None
    return f"{errors} of {total} verdicts by the new bundle are ERROR, more than {limit:.1%}"


# --- steps -------------------------------------------------------------------------------------------------------------


def current(session: Session, product: str) -> RolloutRow | None:
    """The rollout of a product that is running or paused, or None."""
    query = select(RolloutRow).where(RolloutRow.product == product, RolloutRow.state.in_(_OPEN))
    return session.scalars(query.order_by(RolloutRow.id.desc()).limit(1)).first()


def latest(session: Session, product: str) -> RolloutRow | None:
    """The newest rollout of a product, finished or not."""
    query = select(RolloutRow).where(RolloutRow.product == product)
    return session.scalars(query.order_by(RolloutRow.id.desc()).limit(1)).first()


def step(session: Session, keys: Keys, product: Product, now: datetime, *, on_done: OnDone | None = None) -> list[str]:
    """Look at the evidence once and act on it; returns what happened, in words (empty: nothing did).

    ``on_done`` runs in this transaction when the last group has succeeded: promote the champion there.
    """
    exclusive(session, f"rollout/{product.name}")
    row = current(session, product.name)
    if row is None:
        return []
    harm = _refusal(session, row) or _errors(session, product, row)
    if harm is not None:
        return _abort(session, keys, row, harm, now)
    if row.state == RolloutState.PAUSED.value:
        return []
    waiting = [p for p in _group_progress(session, product, row) if not p.proved]
    if not waiting:
        return _advance(session, keys, row, now, on_done)
    if (now - row.group_started_at).total_seconds() <= product.rollout.timeout_seconds:
        return []
    silent = "; ".join(f"{p.device} {p.says}" for p in waiting)
    return _abort(session, keys, row, f"group {row.group_index + 1} timed out: {silent}", now)


def _advance(session: Session, keys: Keys, row: RolloutRow, now: datetime, on_done: OnDone | None) -> list[str]:
    proved = f"group {row.group_index + 1} of {len(row.groups)} has proved bundle {row.bundle[:12]}"
    if row.group_index + 1 < len(row.groups):
        row.group_index += 1
        _move_group(session, keys, row, now)
        return [proved, f"assigned group {row.group_index + 1}: {', '.join(row.groups[row.group_index])}"]
    row.state, row.finished_at, row.why = RolloutState.DONE.value, now, proved
    session.flush()
    if on_done is not None:
        on_done(session, row)
    return [proved, f"rollout {row.id} is done"]


def _abort(session: Session, keys: Keys, row: RolloutRow, why: str, now: datetime) -> list[str]:
    row.state, row.finished_at, row.why = RolloutState.ABORTED.value, now, why
    events = [f"rollout {row.id} is aborted: {why}"]
    for station in _moved(row):
        former = _former(session, row, station)
        usable = former is not None and belongs(session, former.bundle, row.product)
        bundle, recipe = (former.bundle, former.recipe) if former is not None and usable else (None, None)
        back = assign(session, keys, station, bundle, recipe, now=now, rollout=row.id)
        events.append(f"station {station} returns to bundle {_short(bundle)} by serial {back.serial}")
    return events


def _former(session: Session, row: RolloutRow, station: str) -> AssignmentRow | None:
    first = _issued(session, row, station)
    query = select(AssignmentRow).where(AssignmentRow.station == station, AssignmentRow.serial < first.serial)
    return session.scalars(query.order_by(AssignmentRow.serial.desc()).limit(1)).first()


def _must_be(session: Session, product: str, *states: RolloutState) -> RolloutRow:
    exclusive(session, f"rollout/{product}")
    row = latest(session, product)
    if row is None or row.state not in states:
        has = "has no rollout" if row is None else f"has rollout {row.id}, which is {row.state}"
        raise UsageError(f"{product!r} {has}; this needs one that is {' or '.join(states)}")
    return row


def pause(session: Session, product: str) -> None:
    """Assign nothing further until `resume`. UsageError when nothing is running."""
    _must_be(session, product, RolloutState.RUNNING).state = RolloutState.PAUSED.value


def resume(session: Session, product: str, now: datetime) -> None:
    """Carry on; the group's time-out starts anew. UsageError when nothing is paused."""
    row = _must_be(session, product, RolloutState.PAUSED)
    row.state, row.group_started_at = RolloutState.RUNNING.value, now


def abort(session: Session, keys: Keys, product: str, why: str, now: datetime) -> list[str]:
    """Emergency stop: return every moved station at once. UsageError when nothing is under way."""
    row = _must_be(session, product, RolloutState.RUNNING, RolloutState.PAUSED)
    return _abort(session, keys, row, why, now)


def status(session: Session, product: Product) -> RolloutStatus | None:
    """The newest rollout as people are shown it; None when there never was one."""
    row = latest(session, product.name)
    if row is None:
        return None
    devices = _group_progress(session, product, row) if row.state in _OPEN else []
    return RolloutStatus(
        row.id, RolloutState(row.state), row.bundle, row.recipe, row.group_index, list(row.groups), row.why, devices
    )
