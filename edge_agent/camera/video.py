"""A video file as a camera: every frame in order, nothing skipped, and it has ended at its end."""

import time
from pathlib import Path

import cv2
import numpy as np

from edge_agent.camera.guard import StreamGuard
from edge_agent.camera.port import Frame, Health
from edge_agent.errors import UsageError
from edge_agent.pictures import Image


class VideoFile:
    """Every frame of a video file."""

    patient = True

    def __init__(self, path: Path, guard: StreamGuard) -> None:
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise UsageError(f"{path} is no video file that can be read here; convert it to MJPEG or H.264")
        self._stem = path.stem
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
