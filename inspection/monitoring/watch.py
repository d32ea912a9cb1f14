"""What somebody should look at now, in words: silent devices, open ledgers, rising errors, shifted scores."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from inspection.contracts import AgentState, Decision, Purpose, Report
from inspection.monitoring.drift import errors_rose, score_shift
from inspection.monitoring.fleet import is_silent, ledger_words
from inspection.store.session import Store
from inspection.store.tables import DeviceRow, StationRow, VerdictRow, utc_now

RECENT = 200  # verdicts
EARLIER = 1000


@dataclass(frozen=True)
class Finding:
    """One thing to look at. ``kind`` is a stable word: silent | ledger | hold | refused | errors | drift."""

    kind: str
    subject: str  # a device or a station
    message: str


def watch(store: Store, product: str, *, poll_seconds: float = 30.0, now: datetime | None = None) -> list[Finding]:
    """Everything to look at for one product, devices first. An empty list means that all is well."""
    moment = now or utc_now()
    findings: list[Finding] = []
    with store.begin(read_only=True) as session:
        stations = session.scalars(
            select(StationRow.name).where(StationRow.product == product).order_by(StationRow.name)
        ).all()
        devices = session.scalars(select(DeviceRow).where(DeviceRow.station.in_(stations)).order_by(DeviceRow.name)).all()
        for device in devices:
            findings.extend(_device_findings(device, moment, poll_seconds))
        for station in stations:
            findings.extend(_station_findings(session, station))
    return findings


def _device_findings(device: DeviceRow, now: datetime, poll_seconds: float) -> Iterator[Finding]:
    if is_silent(device, now, poll_seconds=poll_seconds):
        heard = f"last report {device.last_seen:%Y-%m-%d %H:%M:%S} UTC" if device.last_seen else "it never reported"
        yield Finding(
            "silent", device.name, f"{device.name} at {device.station} is silent: {heard}. Is it on, is it connected?"
        )
    if device.report is None:
        return
    report = Report.model_validate(device.report)
    if not report.ledger.closes:
        yield Finding("ledger", device.name, f"the ledger of {device.name} does not close: {ledger_words(report.ledger)}")
    if report.state is AgentState.HOLD:
        why = report.last_error or "no reason given"
        yield Finding("hold", device.name, f"{device.name} is in HOLD and passes no part: {why}")
    for words in report.refused:
        yield Finding("refused", device.name, f"{device.name} refused a target: {words}")


def _station_findings(session: Session, station: str) -> Iterator[Finding]:
    query = (
        select(VerdictRow.decision, VerdictRow.defect_score, VerdictRow.bundle_digest)
        .where(VerdictRow.station == station, VerdictRow.purpose == Purpose.PRODUCTION.value)
        .order_by(VerdictRow.captured_at.desc())
        .limit(RECENT + EARLIER)
    )
    rows = session.execute(query).all()
    recent, earlier = rows[:RECENT], rows[RECENT:]
    errors = [sum(row.decision == Decision.ERROR for row in side) for side in (recent, earlier)]
    if errors_rose(errors[0], len(recent), errors[1], len(earlier)):
        said = (
            f"{errors[0]} of the last {len(recent)} verdicts at {station} are ERROR ({errors[1]} of {len(earlier)} before)"
        )
        yield Finding("errors", station, f"{said}. Look at its camera and its last error.")
    # Another model scores differently: only verdicts of the bundle that runs now are compared.
    running = rows[0].bundle_digest if rows else None
    scores = [
        [row.defect_score for row in side if row.bundle_digest == running and row.defect_score is not None]
        for side in (recent, earlier)
    ]
    if shift := score_shift(scores[0], scores[1]):
        said = f"defect scores at {station} moved: median {shift.recent_median:.2f}, before {shift.earlier_median:.2f}"
        yield Finding("drift", station, f"{said} (distance {shift.distance:.2f}). Light, focus, or another kind of part?")
