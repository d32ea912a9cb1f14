"""What the camera's child process reads from, and how it is described to it. Nothing here is imported by the parent."""

import os
from collections.abc import Callable, Mapping
from typing import Protocol

import cv2
import numpy as np

from edge_agent.camera.identity import find
from edge_agent.errors import DeviceError, UsageError
from edge_agent.pictures import Image

PROPERTIES = {
    "width": cv2.CAP_PROP_FRAME_WIDTH,
    "height": cv2.CAP_PROP_FRAME_HEIGHT,
    "fps": cv2.CAP_PROP_FPS,
    "auto_exposure": cv2.CAP_PROP_AUTO_EXPOSURE,
    "exposure": cv2.CAP_PROP_EXPOSURE,
    "gain": cv2.CAP_PROP_GAIN,
    "auto_focus": cv2.CAP_PROP_AUTOFOCUS,
    "focus": cv2.CAP_PROP_FOCUS,
    "auto_white_balance": cv2.CAP_PROP_AUTO_WB,
    "white_balance": cv2.CAP_PROP_WB_TEMPERATURE,
}
"""Settings by name, in the order they must be set: the size before the rate, automatic control off before the value."""

_HTTP_SECONDS = 5.0  # beyond the parent's deadline: it decides


class Source(Protocol):
    """A camera as the child sees it: every call may block for as long as the driver likes."""

    def open(self, settings: Mapping[str, float]) -> Mapping[str, float]:
        """Open with the settings wanted; returns what it says it has now. DeviceError."""

    def read(self) -> Image | None:
        """The next frame uint8 ``[H, W, 3]`` BGR; None when it stopped delivering."""

    def close(self) -> None:
        """Let go of the device."""


class OpenCvSource:
    """A device by any of its names, or an address, through `cv2.VideoCapture`."""

    def __init__(self, where: str, name: str) -> None:
        self._where = where
        self._name = name
        self._capture: cv2.VideoCapture | None = None

    def open(self, settings: Mapping[str, float]) -> Mapping[str, float]:
        """See the port."""
        if self._where.startswith("rtsp"):  # datagrams get lost on a loaded network, and torn pictures look like defects
            os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
        found = find(self._where)  # at each opening: the node may be another after the camera was plugged in again
        capture = cv2.VideoCapture(int(found) if found.isdecimal() else found)
        if not capture.isOpened():
            capture.release()
            raise DeviceError(f"{self._name} did not open; check cable, power, name and that no other program holds it")
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        for name, number in PROPERTIES.items():
            if name in settings:
                capture.set(number, settings[name])
        self._capture = capture
        return {name: capture.get(PROPERTIES[name]) for name in settings}

    def read(self) -> Image | None:
        """See the port."""
        if self._capture is None:
            return None
        done, image = self._capture.read()
        return np.asarray(image, dtype=np.uint8) if done else None

    def close(self) -> None:
        """See the port."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def make_source(kind: str, where: str, name: str, *, max_pixels: int, damaged: Callable[[str], None]) -> Source:
    """``opencv`` (an http address is read by `mjpeg`) or ``genicam``. UsageError for another kind."""
    if kind == "opencv" and where.startswith(("http://", "https://")):
        from edge_agent.camera.mjpeg import MjpegSource

        return MjpegSource(where, name, timeout_seconds=_HTTP_SECONDS, max_pixels=max_pixels, damaged=damaged)
    if kind == "opencv":
        return OpenCvSource(where, name)
    if kind == "genicam":
        from edge_agent.camera.genicam import GenicamSource

        return GenicamSource(where)
    raise UsageError(f"no camera of kind {kind!r}; there are opencv and genicam")
