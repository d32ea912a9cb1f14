"""Free-running: the camera's delivery is the trigger."""

import time

from edge_agent.camera import Camera
from edge_agent.capturing import no_frame
from edge_agent.trigger.port import Request

_WAIT_SECONDS = 0.25


class FreeRunning:
    """Inspects whatever the camera delivers. An outage of a live camera is one ERROR trigger, not one per second."""

    def __init__(self, camera: Camera, *, deadline_seconds: float) -> None:
        self._camera = camera
        self._deadline = deadline_seconds
        self._last = time.monotonic()
        self._lost = False

    def next(self) -> Request | None:
        """The next frame; a fault frame once per outage."""
        frame = self._camera.next(_WAIT_SECONDS)
        if frame is not None:
            self._last, self._lost = time.monotonic(), False
            return Request(at=frame.stamp or self._last, frame=frame)
        if self._camera.patient or self._lost or time.monotonic() - self._last < self._deadline:
            return None
        self._lost = True
        return Request(frame=no_frame(self._deadline))

    def take_missed(self) -> int:
        """Always 0: without a trigger of its own nothing can be missed."""
        return 0

    def close(self) -> None:
        """Nothing is held open."""
