"""A live camera, stream or video file through OpenCV.

Invariants: `cv2.VideoCapture.read` runs in a thread of its own, because it can block for ever; `next` returns the newest
frame and never the same one twice; frames pass the stream guard; a stuck or failed capture is opened again, with the
stuck thread left behind (it is a daemon and owns nothing else). A video *file* is read frame by frame instead: nothing
in it is skipped, and the camera has ended at its end.
"""

import logging
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np

from edge_agent.camera.guard import StreamGuard
from edge_agent.camera.port import Frame, Health
from edge_agent.errors import DeviceError
from edge_agent.pictures import Image

log = logging.getLogger(__name__)


def _open(source: str) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(int(source) if source.isdecimal() else source)
    if not capture.isOpened():
        capture.release()
        raise DeviceError(f"camera {source!r} did not open; check cable, power, name and that no other program holds it")
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return capture


class VideoFile:
    """Every frame of a video file, in order."""

    patient = True

    def __init__(self, path: str, guard: StreamGuard) -> None:
        self._capture = _open(path)
        self._stem = Path(path).stem
        self._guard = guard
        self._count = 0
        self.ended = False

    def next(self, timeout_seconds: float, *, since: float | None = None) -> Frame | None:  # noqa: ARG002  # never late
        """The next frame, or None at the end."""
        started = time.perf_counter()
        done, image = self._capture.read()
        if not done:
            self.ended = True
            return None
        self._count += 1
        frame: Image = np.asarray(image, dtype=np.uint8)
        took_ms = (time.perf_counter() - started) * 1e3
        return Frame(frame, f"{self._stem}-{self._count:08d}", decode_ms=took_ms, fault=self._guard.check(frame))

    def health(self) -> Health:
        """Kind, state, frames read."""
        return {"kind": "video-file", "ok": True, "delivered": self._count, "ended": self.ended}

    def close(self) -> None:
        """Close the file."""
        self._capture.release()


class _Reader(threading.Thread):
    """Reads one capture until told to stop; keeps only the newest frame."""

    def __init__(self, source: str) -> None:
        super().__init__(name=f"camera-{source}", daemon=True)
        self._source = source
        self.arrived = threading.Condition()
        self.newest: tuple[Image, datetime] | None = None
        self.stopped = threading.Event()
        self.failure: str | None = None
        self.last_seen = time.monotonic()

    def run(self) -> None:
        try:
            capture = _open(self._source)
        except DeviceError as error:
            self._fail(str(error))
            return
        try:
            self._pump(capture)
        finally:
            capture.release()

    def _pump(self, capture: cv2.VideoCapture) -> None:
        while not self.stopped.is_set():
            done, image = capture.read()
            if not done:
                self._fail(f"camera {self._source!r} stopped delivering; check cable and power")
                return
            with self.arrived:
                self.newest = (np.asarray(image, dtype=np.uint8), datetime.now(UTC))
                self.last_seen = time.monotonic()
                self.arrived.notify()

    def _fail(self, reason: str) -> None:
        log.warning("camera failed", extra={"reason": reason})
        with self.arrived:
            self.failure = reason
            self.arrived.notify()

    def take(self, timeout_seconds: float) -> tuple[Image, datetime] | None:
        """The newest frame, once."""
        with self.arrived:
            self.arrived.wait_for(lambda: self.newest is not None or self.failure is not None, timeout_seconds)
            taken, self.newest = self.newest, None
            return taken


class LiveCamera:
    """The newest frame of a device or stream. Opens again by itself after ``deadline_seconds`` of silence."""

    patient = False
    ended = False

    def __init__(self, source: str, guard: StreamGuard, *, deadline_seconds: float) -> None:
        self._source = source
        self._guard = guard
        self._deadline = deadline_seconds
        self._count = 0
        self._restarts = 0
        self._reader = self._start()

    def _start(self) -> _Reader:
        reader = _Reader(self._source)
        reader.start()
        return reader

    def next(self, timeout_seconds: float, *, since: float | None = None) -> Frame | None:  # noqa: ARG002
        """The newest frame not delivered yet, or None when none came in time."""
        taken = self._reader.take(timeout_seconds)
        if taken is None:
            self._revive()
            return None
        image, captured_at = taken
        self._count += 1
        part = f"{captured_at:%Y%m%dT%H%M%S.%f}"
        return Frame(image, part, captured_at=captured_at, fault=self._guard.check(image))

    def _revive(self) -> None:
        silent = time.monotonic() - self._reader.last_seen
        if silent < self._deadline:
            if self._reader.failure is not None:
                time.sleep(0.05)  # a dead reader answers at once: do not spin until its deadline
            return
        self._reader.stopped.set()
        self._restarts += 1
        self._reader = self._start()

    def health(self) -> Health:
        """Kind, state, frames delivered, seconds since the last frame, restarts, the last failure in words."""
        silent = time.monotonic() - self._reader.last_seen
        return {
            "kind": "opencv",
            "ok": self._reader.failure is None and silent < self._deadline,
            "delivered": self._count,
            "silent_seconds": round(silent, 1),
            "restarts": self._restarts,
            "last_fault": self._reader.failure,
        }

    def close(self) -> None:
        """Ask the reader to stop; a reader stuck in the driver is left behind."""
        self._reader.stopped.set()
        self._reader.join(timeout=1.0)
