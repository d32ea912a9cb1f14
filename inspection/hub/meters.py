"""The hub's counters, in a registry of their own (nothing global: two hubs in one process do not mix)."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Meters:
    """Counters of one hub. Labels are words of ours, never what a sender wrote, so their number is bounded."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.seconds = Histogram(
            "escapement_hub_request_seconds",
            "Time from request to the end of the answer.",
            ["method", "route", "status"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.verdicts = Counter(
            "escapement_hub_verdicts", "Verdicts stored (repeats not counted).", ["decision"], registry=self.registry
        )
        self.repeats = Counter("escapement_hub_verdict_repeats", "Verdicts that were held already.", registry=self.registry)
        self.pictures = Counter("escapement_hub_pictures", "Pictures stored.", registry=self.registry)
        self.picture_bytes = Counter("escapement_hub_picture_bytes", "Bytes of pictures stored.", registry=self.registry)
        self.refused = Counter("escapement_hub_refused", "Uploads refused.", ["kind"], registry=self.registry)
        self.in_flight = Gauge("escapement_hub_upload_bytes_in_flight", "Bytes of bodies now held.", registry=self.registry)
        self.devices = Gauge("escapement_hub_devices", "Devices enrolled.", registry=self.registry)
        self.silent = Gauge(
            "escapement_hub_devices_silent", "Devices without a report for three polls.", registry=self.registry
        )
        self.open_ledgers = Gauge(
            "escapement_hub_ledgers_open", "Devices whose trigger ledger does not close.", registry=self.registry
        )

    def text(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)
