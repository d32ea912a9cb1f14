"""One stream of things to send, with a pause of its own: nothing in it, and nothing in another, is held up for ever.

Invariants: nothing is given up; while the hub is away one thing or batch is tried at a time, ever slower. A batch that
fails is tried again at half the size, so a bad thing ends up alone. Who failed alone is passed by until another passes,
then tried once more; who fails right after another passed is a suspect: tried again alone, ever more rarely. That another
passed is the evidence: without it the hub is to blame.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Generic, Protocol, TypeVar

from edge_agent.errors import HubError

log = logging.getLogger(__name__)

_PASSED_BY = 8  # how far ahead somebody is sought who passes
_MAX_SUSPECTS = 1000  # with more, the hub is what is wrong
_SUSPECT_BASE_SECONDS = 30.0
_SUSPECT_CAP_SECONDS = 900.0


@dataclass
class Backoff:
    """Capped exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", AWS 2015)."""

    base_seconds: float
    cap_seconds: float
    failures: int = 0
    jitter: Random = field(default_factory=Random)

    def next_seconds(self) -> float:
        """The pause after one more failure."""
        ceiling = min(self.cap_seconds, self.base_seconds * 2 ** min(self.failures, 30))
        self.failures += 1
        return self.jitter.uniform(0.0, ceiling)

    def reset(self) -> None:
        """After a success."""
        self.failures = 0


class Keyed(Protocol):
    """Something with a name of its own."""

    @property
    def key(self) -> str:
        """The name."""


T = TypeVar("T", bound=Keyed)


@dataclass
class _Suspect(Generic[T]):
    thing: T
    failures: int
    due: float


class Lane(Generic[T]):
    """``fetch(limit, without)`` gives what is next, ``send`` sends it and returns how many left, or raises HubError."""

    def __init__(
        self,
        fetch: Callable[[int, Collection[str]], Sequence[T]],
        send: Callable[[Sequence[T]], int],
        *,
        most: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._send = send
        self._most = most
        self._size = most
        self._clock = clock
        self._failed: dict[str, T] = {}  # alone, and not tried since somebody passed
        self._suspects: dict[str, _Suspect[T]] = {}
        self._one_at_a_time = threading.Lock()

    @property
    def suspects(self) -> int:
        """How many are passed by."""
        return len(self._suspects)

    def once(self) -> int:
        """A suspect that is due, and what is next. Returns how many left this device. HubError: try later."""
        with self._one_at_a_time:
            return self._try_suspect() + self._try_next()

    def _try_next(self) -> int:
        batch = self._next()
        if not batch and self._failed:  # nobody else to ask: begin again with those that failed
            self._failed.clear()
            batch = self._next()
        if not batch:
            return 0
        try:
            moved = self._send(batch)
        except HubError:
            self._note_failure(batch)
            raise
        self._size = min(self._most, self._size * 2)
        return moved + self._retry_failed()

    def _next(self) -> Sequence[T]:
        return self._fetch(self._size, self._failed.keys() | self._suspects.keys())

    def _note_failure(self, batch: Sequence[T]) -> None:
        if len(batch) > 1:
            self._size = len(batch) // 2
            return
        if len(self._failed) >= _PASSED_BY:
            self._failed.clear()
        self._size = 1
        self._failed[batch[0].key] = batch[0]

    def _retry_failed(self) -> int:
        """Somebody passed: who failed alone before, perhaps for an outage, is tried again, until one fails now too."""
        moved = 0
        while self._failed:
            thing = self._failed.pop(next(iter(self._failed)))
            try:
                moved += self._send([thing])
            except HubError as error:
                self._suspect(thing, error)
                break  # the others wait for the next that passes: the hub may just have gone away again
        return moved

    def _suspect(self, thing: T, error: HubError) -> None:
        if len(self._suspects) >= _MAX_SUSPECTS:
            return
        log.error("the hub fails on one item; it is tried again later", extra={"item": thing.key, "reason": str(error)})
        self._suspects[thing.key] = _Suspect(thing, 1, self._clock() + _SUSPECT_BASE_SECONDS)

    def _try_suspect(self) -> int:
        now = self._clock()
        suspect = min(self._suspects.values(), key=lambda s: s.due, default=None)
        if suspect is None or suspect.due > now:
            return 0
        try:
            moved = self._send([suspect.thing])
        except HubError as error:
            pause = min(_SUSPECT_CAP_SECONDS, _SUSPECT_BASE_SECONDS * 2**suspect.failures)
            suspect.failures, suspect.due = min(suspect.failures + 1, 10), now + pause
            log.warning("the hub fails on it again", extra={"item": suspect.thing.key, "reason": str(error)})
            return 0
        del self._suspects[suspect.thing.key]
        return moved
