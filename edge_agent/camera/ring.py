"""Frames from a child process to this one: a ring of slots in anonymous shared memory, the newest frame wins.

Invariants: the memory has no name, so nothing is left behind however either side dies; a frame that is overwritten while
it is copied is noticed (each slot says which frame was begun and which is done) and never handed out; one writer.
"""

import mmap
import os
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import DeviceError
from edge_agent.pictures import Image

SLOTS = 4
_HEADER = np.dtype(
    [("begun", "<u8"), ("done", "<u8"), ("stamp", "<f8"), ("wall", "<f8"), ("height", "<u4"), ("width", "<u4")]
)
_PAGE = mmap.PAGESIZE


@dataclass(frozen=True)
class Taken:
    """A copied frame uint8 ``[H, W, 3]``: its number, `time.monotonic` and `time.time` when it was handed over."""

    image: Image
    number: int
    stamp: float
    wall: float


class Ring:
    """Both ends of the ring. ``slot_bytes`` bounds one frame."""

    def __init__(self, descriptor: int, slot_bytes: int) -> None:
        self.descriptor = descriptor
        self.slot_bytes = slot_bytes
        self._memory = mmap.mmap(descriptor, _PAGE + SLOTS * slot_bytes)
        self._headers: NDArray[np.void] = np.frombuffer(self._memory, _HEADER, SLOTS)
        self._bytes: NDArray[np.uint8] = np.frombuffer(self._memory, np.uint8, offset=_PAGE)

    @classmethod
    def create(cls, slot_bytes: int) -> Self:
        """New memory; the descriptor is for `subprocess.Popen(pass_fds=...)`."""
        descriptor = os.memfd_create("edge-agent-camera")
        try:
            os.ftruncate(descriptor, _PAGE + SLOTS * slot_bytes)
            return cls(descriptor, slot_bytes)
        except BaseException:
            os.close(descriptor)
            raise

    def write(self, number: int, image: Image, stamp: float, wall: float) -> None:
        """Put frame ``number`` (from 1, rising) over the oldest. DeviceError when it is larger than a slot."""
        if image.nbytes > self.slot_bytes:
            raise DeviceError(f"frame of {image.shape[1]} x {image.shape[0]} is larger than the ring's slots")
        slot = number % SLOTS
        header = self._headers[slot]
        header["begun"] = number
        self._slot(slot, image.shape[0], image.shape[1])[...] = image
        header["stamp"], header["wall"] = stamp, wall
        header["height"], header["width"] = image.shape[:2]
        header["done"] = number

    def newest(self, after: int, not_before: float = 0.0) -> Taken | None:
        """A copy of the newest whole frame, if its number is above ``after`` and its stamp not before ``not_before``."""
        for _ in range(SLOTS):
            number = int(self._headers["done"].max())
            if number <= after or float(self._headers[number % SLOTS]["stamp"]) < not_before:
                return None
            taken = self._copied(number)
            if taken is not None:
                return taken  # else the writer came round while it was copied: there is a newer one
        return None

    def _copied(self, number: int) -> Taken | None:
        header = self._headers[number % SLOTS]
        height, width = int(header["height"]), int(header["width"])
        if height * width * 3 > self.slot_bytes:
            return None
        image = self._slot(number % SLOTS, height, width).copy()
        stamp, wall = float(header["stamp"]), float(header["wall"])
        whole = int(header["begun"]) == int(header["done"]) == number
        return Taken(image, number, stamp, wall) if whole else None

    def _slot(self, slot: int, height: int, width: int) -> Image:
        start = slot * self.slot_bytes
        return self._bytes[start : start + height * width * 3].reshape(height, width, 3)

    def close(self) -> None:
        """Let go of the memory; may be called twice."""
        if self.descriptor >= 0:
            del self._headers, self._bytes
            self._memory.close()
            os.close(self.descriptor)
            self.descriptor = -1
