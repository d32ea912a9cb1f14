"""What the loop shows the page: the last part, the last one that was not OK, the pulse.

Invariants: one writer, the loop; `seen` and `alive` keep references and count, in microseconds: they copy, encode and wait
for nothing, whatever readers do. Two frames are held, never more.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.camera import Frame
from edge_agent.inspecting import Inspected
from edge_agent.page.challenge import Challenges
from edge_agent.page.timing import CycleTimes
from inspection.contracts import Decision, Mode, Purpose, Verdict

_HISTORY = 24


@dataclass(frozen=True)
class Sight:
    """One part as it was seen. ``at``: `time.monotonic` when the line had been told."""

    frame: Frame
    inspected: Inspected
    at: float

    @property
    def verdict(self) -> Verdict:
        """What was decided."""
        return self.inspected.verdict


def _is_reject(verdict: Verdict) -> bool:
    """A part made here that was judged not OK: neither a known one, nor one that was only collected."""
    made_here = verdict.purpose is Purpose.PRODUCTION and verdict.mode is not Mode.COLLECT
    return made_here and verdict.decision is not Decision.OK


class Board:
    """A watcher. ``version`` rises with each part."""

    def __init__(
        self,
        *,
        silent_after_seconds: float = 5.0,
        challenges: Challenges | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A loop that has not gone round for ``silent_after_seconds`` has stopped, as far as the page is concerned."""
        self._clock = clock
        self.silent_after_seconds = silent_after_seconds
        self.challenges = challenges or Challenges(clock=clock)
        self.cycle = CycleTimes()
        self.version = 0
        self.last: Sight | None = None
        self.reject: Sight | None = None
        self.history: tuple[Verdict, ...] = ()
        self.challenged = dict.fromkeys(Decision, 0)
        self._pulse: float | None = None

    @property
    def purpose(self) -> Purpose:
        """Why the part that is about to be inspected is shown; asked by the loop, once for each."""
        return self.challenges.mark()

    @property
    def silent_seconds(self) -> float | None:
        """Seconds since the loop went round, or None: it never did."""
        return None if self._pulse is None else max(0.0, self._clock() - self._pulse)

    @property
    def moves(self) -> bool:
        """True while the loop goes round."""
        silent = self.silent_seconds
        return silent is not None and silent < self.silent_after_seconds

    def alive(self) -> None:
        """The loop went round."""
        self._pulse = self._clock()

    def seen(self, frame: Frame, inspected: Inspected) -> None:
        """One part, after the line was told."""
        verdict = inspected.verdict
        sight = Sight(frame, inspected, self._clock())
        if _is_reject(verdict) and frame.image is not None:
            self.reject = sight
        if (spent := verdict.timings_ms.get("total")) is not None:
            self.cycle.note(spent / 1e3)
        if verdict.purpose is Purpose.CHALLENGE:
            self.challenged[verdict.decision] += 1
            self.challenges.take(verdict)
        self.history = (*self.history[1 - _HISTORY :], verdict)
        self.last, self._pulse = sight, sight.at
        self.version += 1
