"""Interval: a clock is the trigger, on a fixed grid that does not drift."""

import time

from edge_agent.camera import Camera
from edge_agent.trigger.port import Request

_NAP_SECONDS = 0.25


class Interval:
    """One trigger every ``seconds``, from the first call of `next` on. Slots that pass while an inspection still runs are
    counted as missed.

    A patient camera (files) is asked here, so that a slot without a file is no trigger, and no slot passes files by.
    """

    def __init__(self, camera: Camera, *, seconds: float) -> None:
        self._camera = camera
        self._seconds = seconds
        self._due: float | None = None  # the grid begins when somebody asks: the station may wait for its bundle before
        self._missed = 0

    def next(self) -> Request | None:
        """The next slot, or None while it is far."""
        due = time.monotonic() if self._due is None else self._due
        wait = due - time.monotonic()
        if wait > _NAP_SECONDS:
            time.sleep(_NAP_SECONDS)
            return None
        time.sleep(max(0.0, wait))
        if self._camera.patient:
            return self._patient(due)
        at, late = time.monotonic(), max(0.0, time.monotonic() - due)
        slots = 1 + int(late // self._seconds)
        self._missed += slots - 1
        self._due = due + slots * self._seconds
        return Request(at=at)

    def _patient(self, due: float) -> Request | None:
        frame = self._camera.next(_NAP_SECONDS)
        self._due = max(due + self._seconds, time.monotonic())
        return None if frame is None else Request(frame=frame)

    def take_missed(self) -> int:
        """Slots missed since the last call."""
        missed, self._missed = self._missed, 0
        return missed

    def close(self) -> None:
        """Nothing is held open."""
