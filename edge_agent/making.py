"""From settings to concrete things: the only file that names concrete cameras, transports, triggers, signals, runtimes.

Invariant: what is not configured is not imported, so that `replay` starts without HTTP and a device without a PLC needs
no library for one.
"""

import functools
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from edge_agent.agent import MakePage
    from edge_agent.camera import Camera
    from edge_agent.config import AgentConfig
    from edge_agent.signals import Signal
    from edge_agent.targets import MakeRuntime
    from edge_agent.transport import Transport
    from edge_agent.trigger import Trigger
    from edge_agent.trigger.asked import Asked
    from edge_agent.watching import Watcher
    from edge_agent.wires import Wires

    Delivered = Callable[[str, Iterable[str]], set[str]]

_STALE_SECONDS = 10.0  # an OK that a broker hears later is not an OK any more
_SILENT_SECONDS, _SLACK_SECONDS = 5.0, 2.0  # a loop that has not gone round for so long has stopped


def make_transport(hub: str, token: str | None, timeout_seconds: float) -> "Transport":
    """``http(s)://...`` or ``dir:FOLDER``."""
    from edge_agent.transport import DirectoryTransport, HttpTransport

    if hub.startswith("dir:"):
        return DirectoryTransport(Path(hub.removeprefix("dir:")))
    if hub.startswith(("http://", "https://")):
        return HttpTransport(hub, token, timeout_seconds=timeout_seconds)
    raise UsageError(f"--hub {hub!r} is neither http(s)://... nor dir:FOLDER")


def make_camera(spec: str, config: "AgentConfig", delivered: "Delivered", *, loop: bool) -> "Camera":
    """``folder:DIR``, or what `camera.opening` knows. ``delivered`` says which files of a folder were delivered before."""
    from edge_agent.camera.folder import FolderCamera, printable
    from edge_agent.camera.opening import CameraSettings, guard_of, open_camera

    kind, _, where = spec.partition(":")
    limits, settings = config.limits, config.camera_settings
    if kind != "folder" or not where:
        return open_camera(
            spec,
            settings,
            deadline_seconds=limits.camera_deadline_seconds,
            max_pixels=limits.max_picture_pixels,
        )
    folder = Path(where).absolute()
    present = [printable(p.name) for p in folder.iterdir()] if folder.is_dir() else []
    return FolderCamera(
        folder,
        delivered=delivered(printable(str(folder)), present),
        loop=loop,
        max_bytes=limits.max_picture_bytes,
        max_pixels=limits.max_picture_pixels,
        guard=guard_of(settings) if settings.reference or settings.guard != CameraSettings().guard else None,
    )


@contextmanager
def opened_wires(camera: "Camera", config: "AgentConfig") -> "Iterator[tuple[Wires, Asked | None]]":
    """The station's triggers and signals, closed at the end; and who HTTP may ask, where the trigger is ``http``.

    A controller's line is trigger and signal at once; broker, webhook and file are told besides.
    """
    from edge_agent.signals.several import Several
    from edge_agent.trigger.asked import Asked
    from edge_agent.wires import Wires

    kind = config.wiring.trigger
    with ExitStack() as closing:
        asked = Asked() if kind in ("http", "mqtt") else None
        connections = _connections(config, closing)
        trigger = _trigger(kind, camera, config, connections, asked)
        signals = [*([asked] if asked else []), *_signals(config, connections)]  # who asked comes first: see `Asked`
        closing.callback(trigger.close)
        for one in signals:
            closing.callback(one.close)
        if "mqtt" in connections:
            connections["mqtt"].start()  # now that it knows what to listen to
        wires = Wires(
            trigger,
            Several(signals),
            failures=lambda: [wire.failure for wire in connections.values() if wire.failure],
            health=lambda: {name: wire.health() for name, wire in connections.items()},
        )
        yield wires, asked if kind == "http" else None


def _connections(config: "AgentConfig", closing: ExitStack) -> "dict[str, Any]":
    """What is connected with the network, by name: each has ``failure``, ``health`` and ``close``."""
    wiring = config.wiring
    made: dict[str, Any] = {}

    def make(name: str, one: Any) -> None:
        made[name] = one
        closing.callback(one.close)

    if wiring.mqtt is not None:
        from edge_agent.broker import Broker

        expiry = min(_STALE_SECONDS, max(1.0, config.takt_seconds or _STALE_SECONDS))
        who = config.enrolment
        make("mqtt", Broker(wiring.mqtt, device=who.device, station=who.station, expiry_seconds=expiry))
    if wiring.modbus is not None:
        from edge_agent.plc.line import modbus_line

        make("plc", modbus_line(wiring.modbus))
    if wiring.opcua is not None:
        from edge_agent.plc.line import opcua_line

        make("plc", opcua_line(wiring.opcua))
    if wiring.webhook is not None:
        from edge_agent.signals.webhook import WebhookSignal

        make("webhook", WebhookSignal(wiring.webhook))
    return made


def _trigger(
    kind: str, camera: "Camera", config: "AgentConfig", connections: "dict[str, Any]", asked: "Asked | None"
) -> "Trigger":
    if kind in ("modbus", "opcua"):
        plc: Trigger = connections["plc"]
        return plc
    if asked is not None and kind == "mqtt":
        from edge_agent.trigger.mqtt import MqttTrigger

        return MqttTrigger(connections["mqtt"], asked)
    return asked or _by_itself(kind, camera, config)


def _by_itself(kind: str, camera: "Camera", config: "AgentConfig") -> "Trigger":
    """By interval when one is set, else free-running."""
    from edge_agent.trigger.free import FreeRunning
    from edge_agent.trigger.interval import Interval

    if config.interval_seconds > 0:
        return Interval(camera, seconds=config.interval_seconds)
    if kind == "interval":
        raise UsageError("trigger interval needs interval_seconds; set it, or give --interval SECONDS")
    return FreeRunning(camera, deadline_seconds=config.limits.camera_deadline_seconds)


def _signals(config: "AgentConfig", connections: "dict[str, Any]") -> "list[Signal]":
    """Everybody who is told, the controller first."""
    from edge_agent.signals.file import FileSignal
    from edge_agent.signals.log import LogSignal

    told: list[Signal] = [connections["plc"]] if "plc" in connections else []
    if "mqtt" in connections:
        from edge_agent.signals.mqtt import MqttSignal

        told.append(MqttSignal(connections["mqtt"]))
    if "webhook" in connections:
        told.append(connections["webhook"])
    return [*told, FileSignal(Path(config.signal_file)) if config.signal_file else LogSignal()]


def make_page(config: "AgentConfig", asked: "Asked | None") -> "tuple[Watcher, MakePage] | None":
    """The station's page, where one is set: what looks on, and how the page is made of the agent's facts."""
    settings = config.wiring.page
    if settings is None:
        return None
    from edge_agent.page import Board, PageServer

    longest = config.limits.camera_deadline_seconds + (config.takt_seconds or 0.0) + _SLACK_SECONDS
    board = Board(silent_after_seconds=max(_SILENT_SECONDS, longest))
    return board, lambda facts: PageServer(settings, board, facts, asked)


def runtime_maker(threads: int) -> "MakeRuntime":
    """A bundle's runtime with so many threads; OpenCV gets no more: waking others costs it more than a defect map takes."""
    import cv2

    from edge_agent.runtimes import make_runtime

    cv2.setNumThreads(threads)
    return functools.partial(make_runtime, threads=threads)
