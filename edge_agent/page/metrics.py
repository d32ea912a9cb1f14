"""The facts for Prometheus: names with units, counters that go over all restarts.

Invariants: a label's value is a word of ours, a version or a digest, never what somebody sent; each scrape asks anew.
"""

import threading
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from edge_agent.page.board import Board
from edge_agent.page.health import reasons
from edge_agent.page.snapshot import Snapshot
from edge_agent.version import AGENT_VERSION
from inspection.contracts import AgentState, Decision

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_CAMERA_GAUGES = {
    "silent_seconds": ("escapement_camera_frame_age_seconds", "Seconds since the camera's last frame."),
    "focus": ("escapement_camera_focus", "Sharpness of the picture (no unit, higher is sharper)."),
    "brightness": ("escapement_camera_brightness", "Mean grey of the picture (of 255)."),
    "saturated_share": ("escapement_camera_saturated_ratio", "Share of saturated samples."),
}
_CAMERA_COUNTERS = {
    "delivered": ("escapement_camera_frames", "Frames the camera delivered since the start."),
    "restarts": ("escapement_camera_restarts", "Restarts of a camera that failed, since the start."),
}


class Metrics:
    """One registry. For one thread."""

    def __init__(self, board: Board, snapshot: Callable[[], Snapshot]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Facts(board, snapshot))
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """The exposition text."""
        return generate_latest(self._registry)


class _Facts(Collector):
    def __init__(self, board: Board, snapshot: Callable[[], Snapshot]) -> None:
        self._board = board
        self._snapshot = snapshot

    def describe(self) -> list[Metric]:
        """Nothing beforehand: registering must not ask."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Everything now."""
        now = self._snapshot()
        yield from _counted(now)
        yield from _kept(now)
        yield from _camera(now)
        yield from _station(self._board, now)
        yield _info(now)


def _counted(now: Snapshot) -> Iterator[Metric]:
    counters = now.counters
    yield CounterMetricFamily("escapement_triggers", "Triggers.", value=counters.get("triggers", 0))
    verdicts = CounterMetricFamily("escapement_verdicts", "Verdicts by decision.", labels=["decision"])
    for decision in Decision:
        verdicts.add_metric([decision.value], counters.get(decision.value, 0))
    yield verdicts
    named = {
        "missed": "Triggers nobody could serve.",
        "late": "Verdicts later than the takt, which are ERROR.",
        "told_late": "Verdicts that were written too slowly: the line heard ERROR instead.",
        "pictures_dropped": "Pictures not kept because the queue was full.",
        "refused": "Items the hub refused.",
        "ledger_breaks": "Times the ledger was found not to close.",
    }
    for name, words in named.items():
        yield CounterMetricFamily(f"escapement_{name}", words, value=counters.get(name, 0))


def _kept(now: Snapshot) -> Iterator[Metric]:
    yield _gauge("escapement_ledger_closes", "1 when both identities of the ledger hold.", float(now.line.closes))
    if now.ledger is not None:
        yield CounterMetricFamily("escapement_stored", "Verdicts and pictures stored.", value=now.ledger.stored)
        yield CounterMetricFamily("escapement_uploaded", "Of them, held by the hub.", value=now.ledger.uploaded)
        yield CounterMetricFamily("escapement_evicted", "Of them, given up or set aside.", value=now.ledger.evicted)
        yield _gauge("escapement_outbox_items", "Verdicts and pictures that wait for the hub.", now.ledger.pending)
    if now.pictures_waiting is not None:
        yield _gauge("escapement_outbox_pictures", "Pictures that wait for the hub.", now.pictures_waiting)
    if now.free_disk_bytes is not None:
        yield _gauge("escapement_free_disk_bytes", "Free bytes on the outbox's disk.", now.free_disk_bytes)
    if now.hub_contact is not None:
        yield _gauge("escapement_hub_contact_age_seconds", "Seconds since the hub answered.", now.at - now.hub_contact)


def _camera(now: Snapshot) -> Iterator[Metric]:
    yield _gauge("escapement_camera_ok", "1 when the camera's pictures can be judged.", float(bool(now.camera.get("ok"))))
    for key, (name, words) in _CAMERA_GAUGES.items():
        if isinstance(value := now.camera.get(key), int | float):
            yield _gauge(name, words, value)
    for key, (name, words) in _CAMERA_COUNTERS.items():
        if isinstance(value := now.camera.get(key), int | float):
            yield CounterMetricFamily(name, words, value=value)


def _station(board: Board, now: Snapshot) -> Iterator[Metric]:
    buckets, total = board.cycle.histogram()
    words = "Seconds per part from its picture to its verdict, since the start."
    yield HistogramMetricFamily("escapement_cycle_seconds", words, buckets=buckets, sum_value=total)
    yield _gauge("escapement_up", "1 when the station is fit to judge, as /healthz says.", float(not reasons(board, now)))
    yield _gauge("escapement_hold", "1 without a verified bundle.", float(now.state is AgentState.HOLD))
    challenged = board.challenges.running is not None
    yield _gauge("escapement_challenge_running", "1 while known parts are shown.", float(challenged))
    yield _gauge("escapement_threads", "Threads of this process.", threading.active_count())
    connected = GaugeMetricFamily("escapement_connection_ok", "1 when a connection of the line works.", labels=["name"])
    for name, health in now.connections.items():
        connected.add_metric([name], float(bool(health.get("ok"))))
    yield connected


def _info(now: Snapshot) -> Metric:
    loaded = now.active.loaded
    about = {"mode": now.active.mode.value, "state": now.state.value, "agent_version": AGENT_VERSION}
    if loaded is not None:
        manifest = loaded.bundle.manifest
        about |= {"bundle": loaded.digest, "recipe": loaded.recipe_digest, "model": f"{manifest.name} {manifest.version}"}
    return InfoMetricFamily("escapement_bundle", "What judges.", value=about)


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)
