"""The challenge that runs now: started by a person, fed by the loop, watched so that none runs on unnoticed.

Invariants: the loop waits for nobody here, and for a lock only while a challenge runs; only a part whose inspection began
inside the challenge counts; a challenge ends by itself when no part counted for ten minutes, also when the page is down.
"""

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

from edge_agent.errors import AgentError
from edge_agent.inspecting import Active
from edge_agent.page.trial import Outcome, Plan, Step, Trial
from inspection.contracts import Mode, Purpose, Verdict

IDLE_SECONDS = 600.0


class ChallengeError(AgentError):
    """The challenge cannot be started, or there is none."""


class Challenges:
    """At most one runs. ``latest`` is the newest that ended in this process, or was set from the disk."""

    def __init__(self, *, idle_seconds: float = IDLE_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._idle = idle_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._trial: Trial | None = None
        self._touched = 0.0  # when a part last counted, or a person did something
        self._armed = False
        self._marked: str | None = None  # written and read by the loop alone: the challenge the part in hand belongs to
        self.latest: Trial | None = None
        self.unwritten: deque[Trial] = deque()

    @property
    def running(self) -> Trial | None:
        """The one that runs."""
        return self._trial

    @property
    def armed(self) -> bool:
        """True when the next part counts."""
        trial = self._trial
        return trial is not None and (self._armed or not trial.confirm)

    @property
    def seconds_left(self) -> float:
        """Until it ends by itself if no part comes."""
        return max(0.0, self._touched + self._idle - self._clock())

    # -- people -------------------------------------------------------------------------------------------------------

    def start(self, plan: Plan, station: str, active: Active) -> Trial:
        """Begin. ChallengeError while another runs, or when no bundle judges."""
        if active.loaded is None:
            raise ChallengeError("the station is in HOLD: without a bundle there is nothing to challenge")
        if active.mode is Mode.COLLECT:
            raise ChallengeError("the station only collects pictures: nothing is judged, so nothing can be proved")
        manifest = active.loaded.bundle.manifest
        trial = Trial(
            id=str(uuid.uuid4()),
            station=station,
            started_at=datetime.now(UTC),
            mode=active.mode,
            bundle_digest=active.loaded.digest,
            recipe_digest=active.loaded.recipe_digest,
            model=f"{manifest.name} {manifest.version}",
            confirm=plan.confirm,
            steps=tuple(Step(expected=part.expected, name=part.name) for part in plan.parts),
        )
        with self._lock:
            if self._trial is not None:
                raise ChallengeError("a challenge is running already; finish or cancel it first")
            self._touched, self._armed, self._trial = self._clock(), False, trial
        return trial

    def show(self) -> None:
        """The known part lies there: the next one counts. ChallengeError when none runs."""
        with self._lock:
            if self._trial is None:
                raise ChallengeError("no challenge is running")
            self._touched, self._armed = self._clock(), True

    def cancel(self, why: str) -> None:
        """End it now. ChallengeError when none runs."""
        with self._lock:
            if self._trial is None:
                raise ChallengeError("no challenge is running")
            self._settle(self._trial.ended(datetime.now(UTC), why))

    def expire(self) -> None:
        """End it when nothing came for too long."""
        with self._lock:
            if self._trial is not None and self.seconds_left == 0:
                minutes = f"{self._idle / 60:g} minutes"
                self._settle(self._trial.ended(datetime.now(UTC), f"no part was shown for {minutes}"))

    # -- the loop -----------------------------------------------------------------------------------------------------

    def mark(self) -> Purpose:
        """Why the part that is about to be inspected is shown. For the loop only: `take` gets the verdict on that part."""
        self._marked = None
        if self._trial is None:
            return Purpose.PRODUCTION
        self.expire()
        with self._lock:
            if self._trial is None:
                return Purpose.PRODUCTION
            if self._armed or not self._trial.confirm:
                self._marked = self._trial.id
            return Purpose.CHALLENGE

    def take(self, verdict: Verdict) -> None:
        """The verdict on the part that was marked."""
        marked = self._marked
        if marked is None or verdict.purpose is not Purpose.CHALLENGE:
            return
        with self._lock:
            if self._trial is None or self._trial.id != marked:
                return  # it was cancelled, or another one begun, while this part was inspected
            self._touched, self._armed = self._clock(), False
            self._settle(self._trial.taken(verdict, datetime.now(UTC)))

    def _settle(self, trial: Trial) -> None:
        if trial.outcome is Outcome.RUNNING:
            self._trial = trial
            return
        self._trial, self.latest = None, trial
        self.unwritten.append(trial)
