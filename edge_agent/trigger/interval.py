"""Interval: a clock is the trigger, on a fixed grid that does not drift."""

import time

from edge_agent.camera import Camera, Frame

_NAP_SECONDS = 0.25


class Interval:
    """One trigger every ``seconds``. Slots that pass while an inspection still runs are counted as missed."""

    def __init__(self, camera: Camera, *, seconds: float, deadline_seconds: float) -> None:
        self._camera = camera
        self._seconds = seconds
        self._deadline = deadline_seconds
        self._due = time.monotonic()
        self._missed = 0

    def next(self) -> Frame | None:
        """The frame for the next slot. A live camera that gives none in time is an ERROR trigger."""
        wait = self._due - time.monotonic()
        if wait > _NAP_SECONDS:
            time.sleep(_NAP_SECONDS)
            return None
        time.sleep(max(0.0, wait))
        frame = self._camera.next(min(self._deadline, _NAP_SECONDS) if self._camera.patient else self._deadline)
        self._advance()
        if frame is not None or self._camera.patient:
            return frame
        return Frame(None, "no-frame", fault=f"camera gave no frame within {self._deadline:g} s; check cable and power")

    def _advance(self) -> None:
        late = max(0.0, time.monotonic() - self._due)
        slots = 1 if self._camera.patient else 1 + int(late // self._seconds)  # files wait: nothing passes by
        self._missed += slots - 1
        self._due += slots * self._seconds
        if self._camera.patient:
            self._due = max(self._due, time.monotonic())

    def take_missed(self) -> int:
        """Slots missed since the last call."""
        missed, self._missed = self._missed, 0
        return missed
