"""What a person sees of products and stations, and may do to a running rollout."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select

from inspection.data.products import list_products, list_stations, load_product
from inspection.errors import UsageError
from inspection.release import rollout
from inspection.release.signing import load_or_create_keys
from inspection.settings import Settings
from inspection.stages.deploy import RolloutView, rollout_state
from inspection.store.session import Store
from inspection.store.tables import DeviceRow


class ProductView(BaseModel):
    """A product in a list."""

    model_config = ConfigDict(frozen=True)

    name: str
    good_class: str
    classes: list[str]
    stations: list[str]

    def in_words(self) -> str:
        """One line for people."""
        stations = ", ".join(self.stations) or "none yet"
        return f"{self.name}: classes {', '.join(self.classes)} (good: {self.good_class}); stations: {stations}"


class StationView(BaseModel):
    """A station in a list."""

    model_config = ConfigDict(frozen=True)

    name: str
    product: str
    mode: str
    audit_share: float
    challenger: str | None
    devices: list[str]

    def in_words(self) -> str:
        """One line for people."""
        line = f"{self.name}: product {self.product}, mode {self.mode}, audit share {self.audit_share:g}"
        challenger = f", challenger {self.challenger[:12]}" if self.challenger else ""
        return f"{line}{challenger}, devices: {', '.join(self.devices) or 'none enrolled'}"


def products(store: Store) -> list[ProductView]:
    """All products, by name."""
    with store.begin(read_only=True) as session:
        return [
            ProductView(
                name=product.name,
                good_class=product.good_class,
                classes=product.classes,
                stations=[station.name for station in list_stations(session, product.name)],
            )
            for product in list_products(session)
        ]


def stations(store: Store, product: str | None = None) -> list[StationView]:
    """The stations of one product, or of all, by product and name, with their devices. Raises UsageError."""
    with store.begin(read_only=True) as session:
        wanted = list_products(session) if product is None else [load_product(session, product)]
        devices = session.execute(select(DeviceRow.station, DeviceRow.name).order_by(DeviceRow.name)).all()
        return [
            StationView(
                name=row.name,
                product=row.product,
                mode=row.mode,
                audit_share=row.audit_share,
                challenger=row.challenger,
                devices=[name for station, name in devices if station == row.name],
            )
            for one in wanted
            for row in list_stations(session, one.name)
        ]


def enrolment_code(settings: Settings, store: Store) -> str:
    """What a device must know to enrol. UsageError where no station is: that is the wrong folder, or too early."""
    if not stations(store):
        raise UsageError(
            f"no device can enrol with {settings.state}: it has no station. Name the hub's folder with --state, or add a "
            "station with `inspection product add-station`"
        )
    return settings.secrets.enrolment_code.get_secret_value()


def pause(settings: Settings, store: Store, product: str) -> RolloutView:  # noqa: ARG001 - one shape for all commands
    """Assign nothing further. UsageError when nothing is running."""
    with store.begin() as session:
        rollout.pause(session, product)
    return rollout_state(store, product)


def resume(settings: Settings, store: Store, product: str) -> RolloutView:  # noqa: ARG001 - one shape for all commands
    """Carry on. UsageError when nothing is paused."""
    with store.begin() as session:
        rollout.resume(session, product, datetime.now(UTC))
    return rollout_state(store, product)


def abort(settings: Settings, store: Store, product: str) -> RolloutView:
    """Emergency stop: every station that was moved goes back, by a higher serial."""
    keys = load_or_create_keys(settings.keys)
    with store.begin() as session:
        rollout.abort(session, keys, product, "stopped by hand", datetime.now(UTC))
    return rollout_state(store, product)


def status(settings: Settings, store: Store, product: str) -> RolloutView:  # noqa: ARG001 - one shape for all commands
    """The newest rollout."""
    return rollout_state(store, product)


COMMANDS: Mapping[str, Callable[[Settings, Store, str], RolloutView]] = {
    "pause": pause,
    "resume": resume,
    "abort": abort,
    "status": status,
}
