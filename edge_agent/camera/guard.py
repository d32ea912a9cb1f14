"""Is this frame fit to be judged? Invariant: a missing, black or frozen frame, or one of another size, never passes."""

import zlib

import numpy as np

from edge_agent.pictures import Image

BLACK_LEVEL = 8
"""A frame whose brightest sample is at or below this (of 255) shows nothing: lamp or lens cap."""
_SAMPLES = 20_000
_HASHED_BYTES = 400_000


def fast_hash(image: Image) -> int:
    """CRC-32 of every n-th row: tells a repeated buffer from a new exposure (a real sensor always has noise)."""
    step = max(1, image.size // _HASHED_BYTES)
    return zlib.crc32(np.ascontiguousarray(image[::step]).data)


def look(image: Image) -> str | None:
    """Why one frame by itself cannot be judged, or None."""
    if image.size == 0 or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        return f"frame of shape {image.shape} {image.dtype} is not a colour picture; check the camera's pixel format"
    step = max(1, int((image.size / 3 / _SAMPLES) ** 0.5))
    if int(image[::step, ::step].max()) <= BLACK_LEVEL:
        return "frame is black; check the lamp, the lens cap and the exposure"
    return None


class StreamGuard:
    """Watches a live stream: the same exposure again and again, or a changed size, is a fault."""

    def __init__(self, frozen_frames: int, size: tuple[int, int] | None = None) -> None:
        self._limit = frozen_frames
        self._size = size
        self._last: int | None = None
        self._same = 0

    def check(self, image: Image) -> str | None:
        """Why this frame cannot be judged, or None. The first frame fixes the size unless one was given."""
        fault = look(image)
        if fault:
            return fault
        found = (image.shape[0], image.shape[1])
        self._size = self._size or found
        if found != self._size:
            return f"frame is {found[1]} x {found[0]}, this camera delivers {self._size[1]} x {self._size[0]}"
        return self._frozen(fast_hash(image))

    def _frozen(self, value: int) -> str | None:
        self._same = self._same + 1 if value == self._last else 1
        self._last = value
        if self._same >= self._limit:
            return f"camera is frozen: {self._same} identical frames; check its cable and power"
        return None
