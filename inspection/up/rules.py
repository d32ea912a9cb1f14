"""The rules of supervision: from what is known of one program and what was just seen of it, the next thing to do.

Pure: times are seconds of one monotonic clock handed in, nothing is read or started here. Invariants: a program is
started only while everything it depends on is healthy; between two starts lies a back-off that doubles from one to
thirty seconds; a program that once was healthy is given up only after ten quick deaths in a row, one that never was
after three or when its time to become ready is over.
"""

from dataclasses import dataclass, replace
from enum import StrEnum


@dataclass(frozen=True)
class Limits:
    """Limits of supervision; all times in seconds."""

    stable_seconds: float = 60.0
    hang_seconds: float = 60.0
    backoff_first_seconds: float = 1.0
    backoff_max_seconds: float = 30.0
    give_up_deaths: int = 10
    give_up_first_deaths: int = 3
    stop_seconds: float = 10.0
    health_seconds: float = 2.0
    health_first_seconds: float = 0.25
    health_timeout_seconds: float = 10.0
    tick_seconds: float = 0.1
    log_bytes: int = 10 * 1024 * 1024


class Phase(StrEnum):
    """Where a supervised program stands."""

    WAITING = "waiting"  # for what it depends on, never started yet
    STARTING = "starting"  # runs, has not answered yet
    HEALTHY = "healthy"
    BACK_OFF = "backing off"  # dead, until retry_at
    GIVEN_UP = "given up"


class Action(StrEnum):
    """What the supervisor must do now."""

    NOTHING = "nothing"
    START = "start"
    END = "end"  # what is left of it must be stopped: it died, hangs or is given up


@dataclass(frozen=True)
class Watch:
    """What is known of one program. ``deaths`` counts quick deaths in a row; ``starts`` all starts."""

    phase: Phase = Phase.WAITING
    starts: int = 0
    deaths: int = 0
    first_start: float = 0.0
    started: float = 0.0
    last_good: float = 0.0
    retry_at: float = 0.0
    was_healthy: bool = False
    reason: str = ""


class Answer(StrEnum):
    """What came of a health check."""

    WELL = "well"
    UNWELL = "unwell"  # it answers, and says that something it needs is missing: starting it again would not help
    SILENT = "silent"


@dataclass(frozen=True)
class Seen:
    """One look. ``ended`` says in words how the program ended, None while it runs; ``answer`` is None before the first
    health check of this life is over."""

    ended: str | None
    answer: Answer | None
    dependencies_healthy: bool


def step(watch: Watch, seen: Seen, now: float, ready_seconds: float, limits: Limits) -> tuple[Watch, Action]:
    """The next state of one program and what to do. ``ready_seconds`` is its own time to become ready."""
    match watch.phase:
        case Phase.WAITING | Phase.BACK_OFF:
            if now < watch.retry_at or not seen.dependencies_healthy:
                return watch, Action.NOTHING
            return _started(watch, now), Action.START
        case Phase.STARTING:
            return _while_starting(watch, seen, now, ready_seconds, limits)
        case Phase.HEALTHY:
            return _while_healthy(watch, seen, now, limits)
        case Phase.GIVEN_UP:
            return watch, Action.NOTHING


def _started(watch: Watch, now: float) -> Watch:
    first = now if watch.starts == 0 else watch.first_start
    return replace(watch, phase=Phase.STARTING, starts=watch.starts + 1, first_start=first, started=now, reason="")


def _while_starting(watch: Watch, seen: Seen, now: float, ready_seconds: float, limits: Limits) -> tuple[Watch, Action]:
    since = watch.started if watch.was_healthy else watch.first_start
    late = now - since > ready_seconds
    if seen.ended is None and seen.answer is Answer.WELL:
        return replace(watch, phase=Phase.HEALTHY, last_good=now, was_healthy=True), Action.NOTHING
    if seen.ended is None and not late:
        return watch, Action.NOTHING
    reason = seen.ended or f"did not become ready within {ready_seconds:g} s"
    if late and not watch.was_healthy:
        return replace(watch, phase=Phase.GIVEN_UP, deaths=watch.deaths + 1, reason=reason), Action.END
    return _died(watch, reason, now, limits, quick=True)


def _while_healthy(watch: Watch, seen: Seen, now: float, limits: Limits) -> tuple[Watch, Action]:
    quick = now - watch.started <= limits.stable_seconds
    if seen.ended is not None:
        return _died(watch, seen.ended, now, limits, quick=quick)
    if seen.answer in {Answer.WELL, Answer.UNWELL}:
        return replace(watch, last_good=now, deaths=watch.deaths if quick else 0), Action.NOTHING
    if now - watch.last_good > limits.hang_seconds:
        return _died(watch, f"gave no answer for {limits.hang_seconds:g} s", now, limits, quick=quick)
    return watch, Action.NOTHING


def _died(watch: Watch, reason: str, now: float, limits: Limits, *, quick: bool) -> tuple[Watch, Action]:
    deaths = watch.deaths + 1 if quick else 1
    allowed = limits.give_up_deaths if watch.was_healthy else limits.give_up_first_deaths
    if deaths >= allowed:
        return replace(watch, phase=Phase.GIVEN_UP, deaths=deaths, reason=reason), Action.END
    wait = back_off(deaths, limits)
    return replace(watch, phase=Phase.BACK_OFF, deaths=deaths, retry_at=now + wait, reason=reason), Action.END


def back_off(deaths: int, limits: Limits) -> float:
    """Seconds to wait after the ``deaths``-th quick death in a row: 1, 2, 4 ... at most 30."""
    return min(limits.backoff_max_seconds, limits.backoff_first_seconds * 2.0 ** min(deaths - 1, 30))
