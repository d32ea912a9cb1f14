"""The loop, on one screen: trigger, snapshot, verdict, durable row, signal, and only then everything else.

Invariants: one row per trigger, on the disk before the line is told; one immutable snapshot of bundle, recipe and mode
per trigger; the output is NG before the first verdict, after the last, and whenever this function leaves by an error.
"""

import logging
import threading
from dataclasses import dataclass

from edge_agent.camera import Camera
from edge_agent.errors import DeviceError
from edge_agent.inspecting import Identity, inspect
from edge_agent.journal import Journal
from edge_agent.keeper import Keeper
from edge_agent.signals import Signal
from edge_agent.trigger import Trigger
from edge_agent.updater import Updater

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Station:
    """Everything one station's loop uses."""

    who: Identity
    camera: Camera
    trigger: Trigger
    signal: Signal
    journal: Journal
    keeper: Keeper
    updater: Updater


def run(station: Station, stop: threading.Event, *, max_triggers: int | None = None) -> int:
    """Inspect until told to stop, the camera has ended, or ``max_triggers`` are done. Returns how many were.

    DeviceError when the journal or the camera's folder fails: better no agent (and NG) than verdicts nobody can prove.
    """
    done = 0
    _tell_safe(station, "starting")
    try:
        while not stop.is_set() and not station.camera.ended and done != max_triggers:
            done += _one(station, done + 1)
    finally:
        _tell_safe(station, "stopped")
    return done


def _one(station: Station, sequence: int) -> int:
    frame = station.trigger.next()
    if missed := station.trigger.take_missed():
        station.journal.count_missed(missed)
    if frame is None:
        return 0
    inspected = inspect(frame, station.updater.active, station.who, sequence)
    keep = inspected.why is not None and frame.image is not None
    station.journal.record(inspected.verdict, source=frame.source, sealed=not keep)
    try:
        station.signal.tell(inspected.verdict)
    except DeviceError as error:  # the row stands; the line, not told, stays at NG
        log.error("line was not told", extra={"part": frame.part, "reason": str(error)})  # noqa: TRY400  # no traceback
    if keep and frame.image is not None and inspected.why is not None:
        station.keeper.offer(inspected.verdict, frame.image, inspected.why, wait=station.camera.patient)
    station.updater.note(inspected)
    return 1


def _tell_safe(station: Station, reason: str) -> None:
    try:
        station.signal.safe(reason)
    except DeviceError as error:
        log.error("line was not told", extra={"reason": str(error)})  # noqa: TRY400  # no traceback
