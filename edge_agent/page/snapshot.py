"""Every fact, asked once, as one value that cannot change under whoever shows it.

Invariants: a question that fails never fails the page: it is answered with the worst that could be true, and why it failed
is said in words. What costs the journal something is asked seldom.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from edge_agent.errors import AgentError
from edge_agent.inspecting import Active
from edge_agent.ledger import LedgerLine, line_of
from edge_agent.page.facts import Facts, Health
from inspection.contracts import AgentState, Ledger

T = TypeVar("T")

_SELDOM_SECONDS = 5.0
_SHARE = 50.0  # and at least so many times as long as the answer took


@dataclass(frozen=True)
class Snapshot:
    """The facts at ``at`` (`time.monotonic`). ``troubles``: what does not work, in words."""

    at: float
    counters: Mapping[str, int]
    ledger: Ledger | None
    line: LedgerLine
    camera: Health
    active: Active
    state: AgentState
    serial: int
    pictures_waiting: int | None
    free_disk_bytes: int | None
    connections: Mapping[str, Health]
    hub_contact: float | None
    troubles: tuple[str, ...]


class Seldom(Generic[T]):
    """A question that costs something. Not for several threads at once."""

    def __init__(self, ask: Callable[[], T], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._next: float | None = None
        self._known: T

    def __call__(self) -> T:
        """The answer, at most a few seconds old; older where asking takes long."""
        began = self._clock()
        if self._next is None or began >= self._next:
            self._known = self._ask()
            ended = self._clock()
            self._next = ended + max(_SELDOM_SECONDS, _SHARE * (ended - began))
        return self._known


class Asker:
    """Asks. For one thread."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._ledger = Seldom(facts.ledger)
        self._waiting = Seldom(facts.pictures_waiting)

    def snapshot(self) -> Snapshot:
        """All of it now."""
        facts, failed = self._facts, list[str]()
        camera = _answer(facts.camera, failed)
        ledger = _answer(self._ledger, failed)
        line = _newest(_answer(facts.ledger_line, failed), ledger)
        taken = Snapshot(
            at=time.monotonic(),
            counters=_answer(facts.counters, failed) or {},
            ledger=ledger,
            line=line,
            camera=camera if camera is not None else {"ok": False, "last_fault": "the camera's state cannot be read"},
            active=facts.active(),
            state=facts.state(),
            serial=facts.installed().seen_serial,
            pictures_waiting=_answer(self._waiting, failed),
            free_disk_bytes=_answer(facts.free_disk_bytes, failed),
            connections=_answer(facts.connections, failed) or {},
            hub_contact=facts.hub_contact(),
            troubles=(),
        )
        said = [*([facts.problem()]), *facts.failures(), *failed]
        return _with_troubles(taken, said)


def _newest(checked: LedgerLine | None, ledger: Ledger | None) -> LedgerLine:
    """The line as it is now; red also when it was at the last check of every minute, or cannot be read."""
    if checked is None:
        return LedgerLine(False, "the ledger cannot be read")
    return line_of(ledger) if checked.closes and ledger is not None else checked


def _answer(ask: Callable[[], T], failed: list[str]) -> T | None:
    try:
        return ask()
    except (AgentError, OSError) as error:
        failed.append(str(error))
        return None


def _with_troubles(taken: Snapshot, said: list[str | None]) -> Snapshot:
    told = tuple(dict.fromkeys(words for words in said if words))  # each once, in order
    return Snapshot(**{**vars(taken), "troubles": told})
