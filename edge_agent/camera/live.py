"""A live camera: a child process captures, this side delivers the newest frame, and starts the child again when it fails.

Invariants: `next` never blocks longer than it was told, whatever the driver does; no frame older than ``max_age_seconds``
and none from before a restart is delivered; a child that hangs is killed with everything it started, and reaped; one
thread and one child at a time, however often it fails, besides at most `_MOST_LEFT` that even the kernel cannot end;
secrets in an address are shown to nobody: not in words, not in a process's arguments.
"""

import contextlib
import json
import logging
import math
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import cv2

from edge_agent.camera.guard import StreamGuard
from edge_agent.camera.imaging import Reference, measure
from edge_agent.camera.port import Frame, Health
from edge_agent.camera.ring import Ring, Taken
from edge_agent.pictures import Image
from edge_agent.supervise import Worker

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.1
_FIRST_SLOT_BYTES = 1920 * 1080 * 3
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 2.0
_STEADY_SECONDS = 5.0  # after so long without trouble the next restart is at once again
_MEASURE_SECONDS = 1.0
_END_SECONDS = 2.0  # a killed process is gone by then, unless it hangs inside the kernel, in a driver
_MOST_LEFT = 3
_SECRET = re.compile(r"(?<=://)[^/\s]+(?=@)")  # up to the last @: a password may hold one


def masked(text: str) -> str:
    """An address without its user and password."""
    return _SECRET.sub("***", text)


def _is_set(value: float, wanted: float) -> bool:
    """Whether a camera took a setting: drivers round, and count in steps of their own."""
    return math.isclose(value, wanted, rel_tol=1e-3, abs_tol=1e-6)


@dataclass(frozen=True)
class Feed:
    """What to open and how patiently. ``kind`` is opencv or genicam; ``settings`` by name (see `source.PROPERTIES`);
    ``latency_seconds`` pass from the light on the sensor to the frame in this computer."""

    kind: str
    where: str
    settings: Mapping[str, float] = field(default_factory=dict)
    deadline_seconds: float = 2.0
    open_deadline_seconds: float = 10.0
    max_age_seconds: float = 0.5
    latency_seconds: float = 0.0
    max_pixels: int = 64_000_000

    @property
    def name(self) -> str:
        """How people see it."""
        return f"camera {masked(self.where)!r}"


class _Child:
    """One run of the capture process, with its ring and its two pipes."""

    def __init__(self, feed: Feed, slot_bytes: int) -> None:
        """OSError when this computer cannot give what it needs; then nothing is left open."""
        with contextlib.ExitStack() as opened:
            self.ring = Ring.create(slot_bytes)
            opened.callback(self.ring.close)
            self.wake, wake = os.pipe()
            opened.callback(os.close, self.wake)
            try:
                self.process = _start(_order(feed, self.ring, wake), self.ring.descriptor, wake)
            finally:
                os.close(wake)  # only the child keeps it
            opened.pop_all()
        self.started = time.monotonic()
        self.opened = False
        self.last_frame = self.started
        self.failed = ""  # why it ends, as it said itself
        self.last_words = "; see the system's log"
        self._half_line = b""

    @property
    def said(self) -> int:
        """The descriptor of what it says."""
        assert self.process.stdout is not None  # noqa: S101  # a pipe was asked for
        return self.process.stdout.fileno()

    def lines(self) -> list[str] | None:
        """What it said since; None when it will say no more."""
        data = os.read(self.said, 65_536)
        *whole, self._half_line = (self._half_line + data).split(b"\n")
        return None if not data else [line.decode(errors="replace") for line in whole]

    def end(self) -> bool:
        """Kill it with all it started, wait for it, let go of everything. False when the kernel cannot end it now."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_SECONDS)
        if self.process.returncode is None:
            log.error("a capture process hangs in the kernel and is left", extra={"pid": self.process.pid})
        assert self.process.stdout is not None  # noqa: S101
        self.process.stdout.close()
        os.close(self.wake)
        self.ring.close()
        return self.process.returncode is not None


def _order(feed: Feed, ring: Ring, wake: int) -> bytes:
    order = {
        "kind": feed.kind,
        "where": feed.where,
        "name": feed.name,
        "settings": dict(feed.settings),
        "ring": ring.descriptor,
        "slot_bytes": ring.slot_bytes,
        "wake": wake,
        "max_pixels": feed.max_pixels,
        "parent": os.getpid(),
    }
    return json.dumps(order).encode()


def _start(order: bytes, *passed: int) -> "subprocess.Popen[bytes]":
    """The capture process. Its order may hold a password: it is no argument, since everybody here may read those."""
    with os.fdopen(os.memfd_create("edge-agent-order"), "w+b") as said:
        said.write(order)
        said.seek(0)
        return subprocess.Popen(
            [sys.executable, "-m", "edge_agent.camera.child"],
            stdin=said,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # the drivers' last words are often the only ones
            pass_fds=passed,
            start_new_session=True,
        )


class LiveCamera:
    """The newest frame of a device or stream."""

    patient = False
    ended = False

    def __init__(self, feed: Feed, guard: StreamGuard, reference: Reference | None = None) -> None:
        self._feed = feed
        self._guard = guard
        self._reference = reference
        self._changed = threading.Condition()  # guards what follows
        self._child: _Child | None = None
        self._left: list[subprocess.Popen[bytes]] = []  # killed, and hanging in the kernel all the same
        self._taken = 0  # number of the newest frame delivered, of this child
        self._delivered = self._skipped = self._damaged = self._restarts = 0
        self._last_arrival: float | None = None
        self._last_image: Image | None = None
        self._fault: str | None = "it has not delivered yet"
        self._frame_fault: str | None = None
        self._settings: Mapping[str, float] = {}
        self._imaging: Mapping[str, float] = {}
        self._slot_bytes = _FIRST_SLOT_BYTES
        self._stop = threading.Event()
        self._pause = 0.0
        self._worker = Worker("camera", self._watch)
        self._worker.start()

    # -- the port -------------------------------------------------------------------------------------------------

    def next(self, timeout_seconds: float, *, since: float | None = None) -> Frame | None:
        """The newest frame not delivered yet (exposed after ``since``), or None when none came in time."""
        until = time.monotonic() + timeout_seconds
        with self._changed:
            while (taken := self._take(since)) is None:
                left = until - time.monotonic()
                if left <= 0 or self._stop.is_set():
                    return None
                self._changed.wait(left)
            self._delivered += 1
            number = self._delivered + self._skipped
        fault = self._guard.check(taken.image)
        with self._changed:
            self._last_image, self._frame_fault = taken.image, fault
        at = datetime.fromtimestamp(taken.wall, UTC)
        part = f"{at:%Y%m%dT%H%M%S.%f}"
        return Frame(taken.image, part, captured_at=at, fault=fault, stamp=taken.stamp, number=number)

    def _take(self, since: float | None) -> Taken | None:
        if self._child is None:
            return None
        not_before = time.monotonic() - self._feed.max_age_seconds
        if since is not None:  # a frame that arrives sooner shows what stood there before
            not_before = max(not_before, since + self._feed.latency_seconds)
        taken = self._child.ring.newest(self._taken, not_before)
        if taken is not None:
            self._skipped += taken.number - self._taken - 1
            self._taken = taken.number
        return taken

    def health(self) -> Health:
        """State, counts, seconds since the last frame, restarts, the last trouble in words, imaging health."""
        with self._changed:
            silent = None if self._last_arrival is None else round(time.monotonic() - self._last_arrival, 1)
            fault = self._fault or self._worker.failure or self._frame_fault
            wanted = self._feed.settings
            other = [f"{k} is {v:g}" for k, v in self._settings.items() if k not in wanted or not _is_set(v, wanted[k])]
            return {
                "kind": self._feed.kind,
                "ok": fault is None and (silent or 0.0) < self._feed.deadline_seconds,
                "delivered": self._delivered,
                "skipped": self._skipped,
                "damaged": self._damaged,
                "silent_seconds": silent,
                "restarts": self._restarts,
                "last_fault": fault,
                "settings_refused": ", ".join(other) or None,
                **self._imaging,
            }

    def close(self) -> None:
        """Kill the child and end the thread; may be called twice."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        self._worker.stop()

    # -- the thread that watches the child ------------------------------------------------------------------------

    def _watch(self) -> float:
        """One child, from its start to its end; how long to wait before the next."""
        began = time.monotonic()
        reason = self._one_child()
        if self._stop.is_set():
            return 0.0
        steady = self._last_arrival is not None and time.monotonic() - began > _STEADY_SECONDS
        self._pause = 0.0 if steady else min(_LONGEST_PAUSE_SECONDS, max(_FIRST_PAUSE_SECONDS, self._pause * 2))
        log.warning("camera failed", extra={"reason": reason, "pause_seconds": self._pause})
        with self._changed:
            self._fault = reason
            self._restarts += 1
        return self._pause

    def _one_child(self) -> str:
        """Start a child and look after it until it fails; why it did, or why there is none."""
        self._left = [process for process in self._left if process.poll() is None]
        if len(self._left) >= _MOST_LEFT:
            return f"{self._feed.name}: {len(self._left)} processes hang in its driver; unplug it, or restart this computer"
        try:
            child = _Child(self._feed, self._slot_bytes)
        except OSError as error:
            return f"{self._feed.name}: no process for it: {error}; is this computer out of memory or descriptors?"
        with self._changed:
            self._child, self._taken = child, 0
        try:
            return self._look_after(child)
        except OSError as error:
            return f"{self._feed.name}: its process cannot be heard: {error}"
        finally:
            with self._changed:
                self._child = None
            if not child.end():
                self._left.append(child.process)

    def _look_after(self, child: _Child) -> str:
        with selectors.DefaultSelector() as pipes:
            pipes.register(child.wake, selectors.EVENT_READ)
            pipes.register(child.said, selectors.EVENT_READ)
            return self._listen(child, pipes)

    def _listen(self, child: _Child, pipes: selectors.BaseSelector) -> str:
        measured = 0.0
        while not self._stop.is_set():
            ready = {key.fd for key, _ in pipes.select(_LOOK_SECONDS)}
            if child.wake in ready and os.read(child.wake, 65_536):
                self._arrived(child)
            if child.said in ready:
                lines = child.lines()
                if lines is None:
                    return child.failed or f"{self._feed.name}: its process ended by itself{child.last_words}"
                self._heard(child, lines)
            now = time.monotonic()
            if late := self._late(child, now):
                return late
            if now - measured > _MEASURE_SECONDS:
                measured = now
                self._measure()
        return "stopped"

    def _arrived(self, child: _Child) -> None:
        child.last_frame = time.monotonic()
        with self._changed:
            self._last_arrival, self._fault = child.last_frame, None
            self._worker.note(None)
            self._changed.notify_all()

    def _heard(self, child: _Child, lines: list[str]) -> None:
        """Take in what the child said."""
        for line in lines:
            try:
                facts = json.loads(line)
                what = facts["what"]
            except (ValueError, KeyError, TypeError):  # a driver's own words
                child.last_words = f"; the driver's last words: {masked(line)[:200]}"
                continue
            if what == "opened":
                child.opened, child.last_frame = True, time.monotonic()
                self._settings = facts["settings"]
            elif what == "damaged":
                self._damaged += 1
            elif what == "larger" and facts["width"] * facts["height"] <= self._feed.max_pixels:
                self._slot_bytes = int(facts["bytes"])
                child.failed = f"{self._feed.name} delivers {facts['width']} x {facts['height']} now"
            else:
                reason = facts.get("reason", "its frames are beyond the limit of pixels")
                child.failed = masked(reason if self._feed.name in reason else f"{self._feed.name}: {reason}")

    def _late(self, child: _Child, now: float) -> str | None:
        if not child.opened:
            if now - child.started < self._feed.open_deadline_seconds:
                return None
            return (
                f"{self._feed.name} did not open in {self._feed.open_deadline_seconds:g} s; check cable, power and address"
            )
        if now - child.last_frame < self._feed.deadline_seconds:
            return None
        return f"{self._feed.name} gave no frame for {self._feed.deadline_seconds:g} s; check cable and power"

    def _measure(self) -> None:
        with self._changed:
            image, self._last_image = self._last_image, None
        if image is None:
            return
        try:
            found = measure(image, self._reference).as_health()
        except (MemoryError, cv2.error) as error:  # health can wait; the pictures cannot
            log.warning("imaging was not measured", extra={"reason": str(error) or type(error).__name__})
            found = {}
        with self._changed:
            self._imaging = found
