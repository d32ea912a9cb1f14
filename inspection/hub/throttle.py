"""Slow down guessing: after a few wrong secrets an address, and after many all addresses together, must wait.

A right secret from a blocked address is refused too (otherwise guessing would go on unhindered). Memory is bounded:
only wrong tries inside the window are kept, and never more than the limit for all.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Throttle:
    """Counts wrong secrets. Thread-safe; ``clock`` gives seconds and never goes back."""

    per_address: int = 5
    for_all: int = 60
    window_seconds: float = 60.0
    clock: Callable[[], float] = time.monotonic
    _wrong: deque[tuple[float, str]] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait_seconds(self, address: str) -> int:
        """Whole seconds ``address`` must wait before the next try; 0 when it may try now."""
        now = self.clock()
        with self._lock:
            while self._wrong and self._wrong[0][0] <= now - self.window_seconds:
                self._wrong.popleft()
            own = [at for at, who in self._wrong if who == address]
            if len(own) < self.per_address and len(self._wrong) < self.for_all:
                return 0
            oldest = own[0] if len(own) >= self.per_address else self._wrong[0][0]
            return max(1, math.ceil(oldest + self.window_seconds - now))

    def note_wrong(self, address: str) -> None:
        """Remember a wrong secret."""
        with self._lock:
            self._wrong.append((self.clock(), address))
            while len(self._wrong) > self.for_all:
                self._wrong.popleft()
