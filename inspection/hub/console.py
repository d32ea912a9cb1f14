"""What the console shows, read from the store in one read-only transaction: plain records, no HTML."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from inspection.contracts import Purpose, Report
from inspection.data.product import Product
from inspection.data.products import list_products, list_stations
from inspection.hub.state import Hub
from inspection.monitoring.estimates import FieldEstimate, estimate_field
from inspection.monitoring.fleet import is_silent, ledger_words
from inspection.monitoring.watch import Finding, watch
from inspection.store.tables import (
    DeviceRow,
    GateDecisionRow,
    LabelRow,
    PromotionRow,
    QuarantineRow,
    RolloutRow,
    StationRow,
    VerdictRow,
    utc_now,
)

WINDOW = timedelta(days=7)
_GATES = 4
_PROMOTIONS = 8
_PARTS = 12
_Row = TypeVar("_Row", GateDecisionRow, PromotionRow)


@dataclass(frozen=True)
class DeviceView:
    """A device as its last report shows it; ``report`` is None until the first one."""

    name: str
    last_seen: datetime | None
    silent: bool
    report: Report | None

    @property
    def ledger(self) -> str:
        """The ledger in words."""
        return ledger_words(self.report.ledger) if self.report else ""


@dataclass(frozen=True)
class StationView:
    """A station, its devices, and the hub's count of its verdicts per decision in the window, without challenges."""

    name: str
    mode: str
    devices: Sequence[DeviceView]
    counts: Counter[str]


@dataclass(frozen=True)
class GroupView:
    """One group of a rollout: done | current | waiting, with the verdicts each station made by the new digest."""

    state: str
    stations: Sequence[tuple[str, int]]


@dataclass(frozen=True)
class RolloutView:
    """The newest rollout of a product."""

    row: RolloutRow
    groups: Sequence[GroupView]
    needed: int


@dataclass(frozen=True)
class ProductView:
    """Everything the console shows of one product."""

    product: Product
    stations: Sequence[StationView]
    estimates: Sequence[FieldEstimate]
    rollout: RolloutView | None
    gates: Sequence[GateDecisionRow]
    promotions: Sequence[PromotionRow]
    labels: Counter[str]
    parts: Sequence[VerdictRow]


@dataclass(frozen=True)
class ConsoleView:
    """The whole page."""

    now: datetime
    window_days: int
    products: Sequence[ProductView]
    findings: Sequence[Finding]
    quarantine: Counter[str]


def read_console(hub: Hub) -> ConsoleView:
    """Read everything for the console, as of now."""
    now = utc_now()
    poll_seconds = hub.settings.agent_poll_seconds
    with hub.store.begin(read_only=True) as session:
        products = [_product_view(session, product, now, poll_seconds) for product in list_products(session)]
        refused: Counter[str] = Counter()
        for code, number in session.execute(select(QuarantineRow.code, func.count()).group_by(QuarantineRow.code)):
            refused[code] = number
    findings = [found for one in products for found in watch(hub.store, one.product.name, poll_seconds=poll_seconds)]
    return ConsoleView(now, WINDOW.days, products, findings, refused)


def _product_view(session: Session, product: Product, now: datetime, poll_seconds: float) -> ProductView:
    stations = list_stations(session, product.name)
    devices = session.scalars(
        select(DeviceRow).where(DeviceRow.station.in_([row.name for row in stations])).order_by(DeviceRow.name)
    ).all()
    return ProductView(
        product=product,
        stations=_station_views(session, product, stations, devices, now, poll_seconds),
        estimates=estimate_field(session, product, since=now - WINDOW),
        rollout=_rollout_view(session, product, devices),
        gates=_newest(session, GateDecisionRow, product.name, _GATES),
        promotions=_newest(session, PromotionRow, product.name, _PROMOTIONS),
        labels=_label_counts(session, product.name),
        parts=_recent_rejects(session, product.name, now),
    )


def _station_views(
    session: Session,
    product: Product,
    stations: Sequence[StationRow],
    devices: Sequence[DeviceRow],
    now: datetime,
    poll_seconds: float,
) -> list[StationView]:
    counts: dict[str, Counter[str]] = {row.name: Counter() for row in stations}
    query = (
        select(VerdictRow.station, VerdictRow.decision, func.count())
        .where(VerdictRow.product == product.name, VerdictRow.purpose == Purpose.PRODUCTION.value)
        .where(VerdictRow.captured_at >= now - WINDOW)
        .group_by(VerdictRow.station, VerdictRow.decision)
    )
    for station, decision, number in session.execute(query):
        counts.setdefault(station, Counter())[decision] = number
    return [
        StationView(
            row.name,
            row.mode,
            [_device_view(device, now, poll_seconds) for device in devices if device.station == row.name],
            counts[row.name],
        )
        for row in stations
    ]


def _device_view(device: DeviceRow, now: datetime, poll_seconds: float) -> DeviceView:
    report = Report.model_validate(device.report) if device.report else None
    return DeviceView(device.name, device.last_seen, is_silent(device, now, poll_seconds=poll_seconds), report)


def _rollout_view(session: Session, product: Product, devices: Sequence[DeviceRow]) -> RolloutView | None:
    newest = select(RolloutRow).where(RolloutRow.product == product.name).order_by(RolloutRow.id.desc()).limit(1)
    row = session.scalars(newest).first()
    if row is None:
        return None
    made: Counter[str] = Counter()
    for device in devices:
        if device.report:
            made[device.station] += Report.model_validate(device.report).verdicts_by_digest.get(row.bundle, 0)
    groups = [
        GroupView(_group_state(row, index), [(station, made[station]) for station in group])
        for index, group in enumerate(row.groups)
    ]
    return RolloutView(row, groups, product.rollout.success_verdicts)


def _group_state(row: RolloutRow, index: int) -> str:
    if row.state == "done" or index < row.group_index:
        return "done"
    return "current" if index == row.group_index else "waiting"


def _newest(session: Session, table: type[_Row], product: str, limit: int) -> Sequence[_Row]:
    return session.scalars(select(table).where(table.product == product).order_by(table.id.desc()).limit(limit)).all()


def _label_counts(session: Session, product: str) -> Counter[str]:
    query = select(LabelRow.origin, LabelRow.kind, func.count()).where(LabelRow.product == product)
    rows = session.execute(query.group_by(LabelRow.origin, LabelRow.kind)).all()
    return Counter({f"{origin} {kind}": number for origin, kind, number in rows})


def _recent_rejects(session: Session, product: str, now: datetime) -> Sequence[VerdictRow]:
    query = select(VerdictRow).where(
        VerdictRow.product == product, VerdictRow.captured_at >= now - WINDOW, VerdictRow.decision != "OK"
    )
    return session.scalars(query.order_by(VerdictRow.captured_at.desc()).limit(_PARTS)).all()
