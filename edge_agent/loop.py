"""The loop, on one screen: trigger, frame, snapshot, verdict, durable row, signal, and only then everything else.

Invariants: one row per trigger, on the disk before the line is told; one immutable snapshot of bundle, recipe and mode
per trigger; the output is NG before the first verdict, from each trigger to its verdict, after the last, and whenever
this function leaves by an error; what is later than the takt is ERROR, and where only the writing made it late the row
stands, the line hears ERROR all the same, and that is counted (`told_late`).
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.camera import Camera
from edge_agent.capturing import capture
from edge_agent.challenging import Challenging
from edge_agent.errors import DeviceError
from edge_agent.inspecting import Identity, in_time, inspect
from edge_agent.journal import Journal
from edge_agent.keeper import Keeper
from edge_agent.signals import Signal
from edge_agent.trigger import Request, Trigger
from edge_agent.updater import Updater
from edge_agent.watching import Watcher

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
    challenging: Challenging
    updater: Updater
    watcher: Watcher
    camera_deadline_seconds: float
    takt: float = math.inf
    """Seconds from the trigger to the verdict."""


def run(station: Station, stop: threading.Event, *, max_triggers: int | None = None) -> int:
    """Inspect until told to stop, the camera has ended, or ``max_triggers`` are done. Returns how many were.

    DeviceError when the journal or the camera's folder fails: better no agent (and NG) than verdicts nobody can prove.
    """
    done = 0
    try:
        while not stop.is_set() and not station.camera.ended and done != max_triggers:
            request = station.trigger.next()
            _count_missed(station)
            if request is not None:
                done += 1
                _one(station, request, done)
            station.watcher.alive()
    finally:
        tell(lambda: station.signal.safe("stopped"))
        _count_missed(station)  # who was turned away, or asked and was never looked at
    return done


def _count_missed(station: Station) -> None:
    if missed := station.trigger.take_missed():
        station.journal.count_missed(missed)


def _one(station: Station, request: Request, sequence: int) -> None:
    tell(lambda: station.signal.begin(request))
    frame = capture(station.camera, request, deadline_seconds=min(station.camera_deadline_seconds, station.takt))
    active = station.updater.active
    inspected = inspect(frame, active, station.who, sequence, purpose=station.watcher.purpose)
    spent = time.monotonic() - request.at
    inspected = in_time(inspected, spent, station.takt)
    verdict, why = inspected.verdict, inspected.why if frame.image is not None else None
    challenger = station.challenging.choose(verdict, active.challenger, spent)
    station.journal.record(verdict, source=frame.source, sealed=why is None and challenger is None, late=inspected.late)
    told = in_time(inspected, time.monotonic() - request.at, station.takt)  # writing took time too: a late OK is none
    tell(lambda: station.signal.tell(told.verdict))
    if frame.image is not None and challenger is not None:
        station.challenging.offer(verdict, frame.image, why, challenger, wait=station.camera.patient)
    elif frame.image is not None and why is not None:
        station.keeper.offer(verdict, frame.image, why, wait=station.camera.patient)
    station.updater.note(inspected)
    station.watcher.seen(frame, told)
    if told.late and not inspected.late:
        log.warning("line was told late", extra={"id": verdict.id, "reason": told.verdict.reason})
        station.journal.count_told_late()


def tell(call: Callable[[], None]) -> None:
    """Tell the line. When it cannot be told the row stands all the same, and the line, not told, stays at NG."""
    try:
        call()
    except DeviceError as error:
        log.error("line was not told", extra={"reason": str(error)})  # noqa: TRY400  # no traceback
