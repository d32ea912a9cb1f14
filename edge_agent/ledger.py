"""The ledger as one line, checked every minute: green when both identities hold, red when one does not.

Invariant: what is compared was counted in two ways (`Journal.ledger`), so the line can be red.
"""

import logging
from dataclasses import dataclass

from edge_agent.database import Database, count
from edge_agent.journal import Journal
from edge_agent.supervise import Worker
from inspection.contracts import Ledger

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LedgerLine:
    """What a person reads."""

    closes: bool
    text: str


def line_of(ledger: Ledger) -> LedgerLine:
    """The ledger in words."""
    decided = ledger.ok + ledger.ng + ledger.inconclusive + ledger.error + ledger.missed
    kept = ledger.uploaded + ledger.pending + ledger.evicted
    first = _sum(
        "triggers",
        ledger.triggers,
        decided,
        {
            "OK": ledger.ok,
            "NG": ledger.ng,
            "inconclusive": ledger.inconclusive,
            "error": ledger.error,
            "missed": ledger.missed,
        },
    )
    second = _sum(
        "stored",
        ledger.stored,
        kept,
        {"uploaded": ledger.uploaded, "pending": ledger.pending, "evicted": ledger.evicted},
    )
    begin = "ledger closes" if ledger.closes else "ledger does not close"
    return LedgerLine(ledger.closes, f"{begin}: {first}; {second}")


def _sum(what: str, total: int, found: int, parts: dict[str, int]) -> str:
    words = " + ".join(f"{number:,} {name}" for name, number in parts.items())
    if total == found:
        return f"{total:,} {what} = {words}"
    return (
        f"{total:,} {what}, but {words} are {found:,} ({abs(total - found):,} {'missing' if found < total else 'too many'})"
    )


class LedgerWatch:
    """Checks now and then; a break is logged, counted once (`ledger_breaks`) and noted for the report."""

    def __init__(self, database: Database, journal: Journal, *, every_seconds: float) -> None:
        self._database = database
        self._journal = journal
        self._every = every_seconds
        self.line = LedgerLine(True, "ledger not checked yet")
        self.worker = Worker("ledger", self._step)

    def check(self) -> LedgerLine:
        """Check now."""
        line = line_of(self._journal.ledger())
        if self.line.closes and not line.closes:
            log.error(line.text)
            with self._database.write() as db:
                count(db, "ledger_breaks")
        self.line = line
        self.worker.note(None if line.closes else line.text)
        return line

    def _step(self) -> float:
        self.check()
        return self._every
