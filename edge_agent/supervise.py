"""Background threads that must outlive their own errors: the one place that catches everything, and records it.

A step that fails is written to the log with its traceback and to `failure` (which the report and `status` show), and is
tried again after a pause. Nothing on the verdict path runs here.
"""

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

_PAUSE_AFTER_ERROR_SECONDS = 1.0


class Worker:
    """Calls ``step`` again and again in a thread; it returns how many seconds to wait before the next call."""

    def __init__(self, name: str, step: Callable[[], float]) -> None:
        self._step = step
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.failure: str | None = None
        self.went_once = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """End after the current step; do not wait for it."""
        self._stopping.set()

    @property
    def alive(self) -> bool:
        """Whether a step still goes on."""
        return self._thread.is_alive()

    def stop(self, timeout_seconds: float | None = None) -> None:
        """End after the current step; waits at most ``timeout_seconds`` for it."""
        self.ask_to_stop()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    def note(self, failure: str | None) -> None:
        """Record what is wrong (or None: all is well again)."""
        self.failure = failure

    def attempt(self) -> float:
        """One step now, on the caller's thread, whatever comes of it. Returns how long to wait before the next."""
        try:
            return self._step()
        except Exception as error:  # the one supervised place: recorded, reported, tried again
            self.failure = f"{self._thread.name}: {type(error).__name__}: {error}"
            log.exception("background step failed", extra={"worker": self._thread.name})
            return _PAUSE_AFTER_ERROR_SECONDS
        finally:
            self.went_once = True

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._stopping.wait(self.attempt())
