"""The PIN that allows changes. Invariants: compared in constant time; guessing gets slower with each wrong try, whoever
tries, and a right PIN is refused too while it must wait; without a PIN nothing can be changed."""

import hmac
import math
import time
from collections.abc import Callable

from edge_agent.errors import AgentError, UsageError

_FREE_TRIES = 3
_LONGEST_SECONDS = 300.0
_MOST_DOUBLINGS = 9  # beyond the longest wait; a power without a bound does not fit a float some day
_LEAST_CHARACTERS = 4


class PinError(AgentError):
    """No change. ``status`` is what HTTP says; ``wait_seconds``: not before."""

    def __init__(self, status: int, words: str, wait_seconds: int | None = None) -> None:
        super().__init__(words)
        self.status = status
        self.wait_seconds = wait_seconds


class Pin:
    """Checks what was typed. For one thread."""

    def __init__(self, pin: str | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """UsageError when the PIN is too short, or cannot be typed into every browser."""
        if pin is not None and not (len(pin) >= _LEAST_CHARACTERS and pin.isascii() and pin.isprintable()):
            raise UsageError(f"the page's PIN must have at least {_LEAST_CHARACTERS} characters, digits and plain letters")
        self._pin = None if pin is None else pin.encode()
        self._clock = clock
        self._wrong = 0
        self._free_at = 0.0

    @property
    def is_set(self) -> bool:
        """False: the page only shows."""
        return self._pin is not None

    @property
    def wait_seconds(self) -> int:
        """So long nobody may try."""
        return max(0, math.ceil(self._free_at - self._clock()))

    def check(self, typed: str | None) -> None:
        """Pass, or PinError."""
        if self._pin is None:
            raise PinError(403, "this page is read only: no PIN is set (pin_file in the page's settings)")
        if wait := self.wait_seconds:
            raise PinError(429, f"too many wrong PINs: wait {wait} s", wait)
        if typed is None:
            raise PinError(401, "type the PIN")
        if hmac.compare_digest(typed.encode(), self._pin):
            self._wrong = 0
            return
        self._wrong += 1
        if self._wrong >= _FREE_TRIES:
            doublings = min(self._wrong - _FREE_TRIES + 1, _MOST_DOUBLINGS)
            self._free_at = self._clock() + min(_LONGEST_SECONDS, 2.0**doublings)
        raise PinError(403, "wrong PIN")
