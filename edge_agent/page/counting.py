"""Counts since the start and since midnight, from the journal's own counters.

Invariants: a count is the difference of two readings of the journal, so it agrees with the ledger and survives a restart;
parts shown as a challenge are counted apart and never in the yield. The reading at the beginning of a day is kept on the
disk; when it is lost, "today" begins anew and says since when.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from edge_agent.errors import DeviceError
from edge_agent.files import write_durably
from inspection.contracts import Decision

DAY_NAME = "page-day.json"
_COUNTED = (*(decision.value for decision in Decision), "missed", "late")


@dataclass(frozen=True)
class Tally:
    """Parts by decision, without those shown as a challenge; ``late`` ones are among the errors."""

    ok: int = 0
    ng: int = 0
    inconclusive: int = 0
    error: int = 0
    missed: int = 0
    late: int = 0
    challenge: int = 0

    @property
    def first_pass_yield(self) -> float | None:
        """OK of all that were judged (an ERROR is no judgement), 0 to 1; None before the first."""
        judged = self.ok + self.ng + self.inconclusive
        return self.ok / judged if judged else None


class _Begin(BaseModel):
    """A reading that counts are differences to."""

    model_config = ConfigDict(frozen=True)

    day: date
    since: datetime
    counters: dict[str, int]
    challenged: dict[str, int] = {}


def _now() -> datetime:
    return datetime.now(UTC).astimezone()


class Counting:
    """Counts of one station. For one thread; ``now`` is local time."""

    def __init__(self, path: Path, counters: Mapping[str, int], *, now: Callable[[], datetime] = _now) -> None:
        """``counters`` as they are before the loop starts."""
        self._path = path
        self._now = now
        self._start = self._beginning(counters)
        self._unwritten = False
        self._day = self._kept(counters) or self._begin_day(counters)
        self._before: dict[str, int] = dict(self._day.challenged)  # today, by earlier processes
        self._told = (Tally(), Tally())

    @property
    def since(self) -> datetime:
        """When "today" began to be counted, local time."""
        return self._day.since.astimezone(self._now().tzinfo)

    def counts(self, counters: Mapping[str, int], challenged: Mapping[Decision, int]) -> tuple[Tally, Tally]:
        """Today and since the start; ``challenged`` counts this process's challenge parts. Without counters (the journal
        could not be read) what was told last."""
        if not counters:
            return self._told
        mine = {decision.value: number for decision, number in challenged.items()}
        if _gone_back(self._start, counters):
            self._start = self._beginning(counters)
        if self._day.day != self._now().date() or _gone_back(self._day, counters):
            self._before = {name: -number for name, number in mine.items()}
            self._day = self._begin_day(counters)
        today = {name: self._before.get(name, 0) + mine.get(name, 0) for name in _COUNTED}
        if {k: v for k, v in today.items() if v} != {k: v for k, v in self._day.challenged.items() if v}:
            self._day, self._unwritten = self._day.model_copy(update={"challenged": today}), True
        self._told = _tally(self._day, counters, today), _tally(self._start, counters, mine)
        return self._told

    def keep(self) -> None:
        """Write the day's beginning down when it changed. DeviceError when the disk refuses: then once more later."""
        if not self._unwritten:
            return
        try:
            write_durably(self._path, self._day.model_dump_json().encode())
        except OSError as error:
            raise DeviceError(f"{self._path} cannot be written: {error.strerror}; is the disk full?") from error
        self._unwritten = False

    def _kept(self, counters: Mapping[str, int]) -> _Begin | None:
        """What an earlier process wrote down, if it is of today and can be true."""
        try:
            kept = _Begin.model_validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return None
        return None if kept.day != self._now().date() or _gone_back(kept, counters) else kept

    def _begin_day(self, counters: Mapping[str, int]) -> _Begin:
        self._unwritten = True
        return self._beginning(counters)

    def _beginning(self, counters: Mapping[str, int]) -> _Begin:
        now = self._now()
        return _Begin(day=now.date(), since=now, counters={name: counters.get(name, 0) for name in _COUNTED})


def _gone_back(begin: _Begin, counters: Mapping[str, int]) -> bool:
    """Another journal: its counters are no continuation of those."""
    return any(counters.get(name, 0) < number for name, number in begin.counters.items())


def _tally(begin: _Begin, counters: Mapping[str, int], challenged: Mapping[str, int]) -> Tally:
    def made(name: str) -> int:
        return max(0, counters.get(name, 0) - begin.counters.get(name, 0) - challenged.get(name, 0))

    return Tally(
        ok=made("OK"),
        ng=made("NG"),
        inconclusive=made("INCONCLUSIVE"),
        error=made("ERROR"),
        missed=made("missed"),
        late=made("late"),
        challenge=sum(challenged.values()),
    )
