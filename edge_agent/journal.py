"""The journal: every trigger ends in exactly one durable row, and the ledger that proves it.

Invariants:
* `record` returns only when the row is on the disk; the part's delivery is remembered in the same transaction.
* A row is `open` until its picture is settled, then `sealed` (its body final), then `uploaded`, `refused` or `evicted`.
* Counters never go down: triggers = ok + ng + inconclusive + error + missed; stored = uploaded + pending + evicted,
  where stored counts verdicts and pictures, pending what still lies here, and what the hub refused counts as evicted.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge_agent.database import Database, count
from inspection.contracts import Decision, Ledger, Verdict, sha256_hex


@dataclass(frozen=True)
class Pending:
    """A sealed verdict that waits for its receipt."""

    id: str
    body: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes: what the receipt must say."""
        return sha256_hex(self.body)


class Journal:
    """Verdict rows and counters."""

    def __init__(self, database: Database, *, max_pending: int, keep_rows: int) -> None:
        self._database = database
        self._max_pending = max_pending
        self._keep_rows = keep_rows

    def record(self, verdict: Verdict, *, source: tuple[str, str] | None, sealed: bool, late: bool = False) -> None:
        """Write the one row of a trigger, durably. sqlite3.IntegrityError on a second row of the same trigger."""
        state = "sealed" if sealed else "open"
        with self._database.write() as db:
            db.execute(
                "INSERT INTO verdicts (id, part, decision, body, state) VALUES (?, ?, ?, ?, ?)",
                (verdict.id, verdict.part, verdict.decision.value, verdict.canonical(), state),
            )
            if source is not None:
                db.execute("INSERT OR IGNORE INTO delivered VALUES (?, ?)", source)
            for name in ("triggers", verdict.decision.value, "stored", *(["late"] if late else [])):
                count(db, name)
            if verdict.bundle_digest is not None:
                db.execute(
                    "INSERT INTO by_digest VALUES (?, 1) ON CONFLICT (digest) DO UPDATE SET value = value + 1",
                    (verdict.bundle_digest,),
                )

    def count_missed(self, missed: int) -> None:
        """Count triggers nobody could serve."""
        with self._database.write() as db:
            count(db, "triggers", missed)
            count(db, "missed", missed)

    def seal(self, verdict: Verdict) -> None:
        """Make a row's body final, with or without ``frame_sha256``."""
        with self._database.write() as db:
            db.execute(
                "UPDATE verdicts SET body = ?, state = 'sealed' WHERE id = ? AND state = 'open'",
                (verdict.canonical(), verdict.id),
            )

    def seal_orphans(self) -> int:
        """At start: rows whose picture a crash took are sealed without it. Returns how many."""
        with self._database.write() as db:
            return db.execute("UPDATE verdicts SET state = 'sealed' WHERE state = 'open'").rowcount

    def pending(self, limit: int) -> list[Pending]:
        """The oldest sealed verdicts that have no receipt."""
        rows = self._database.read("SELECT id, body FROM verdicts WHERE state = 'sealed' ORDER BY row LIMIT ?", (limit,))
        return [Pending(str(row[0]), _bytes(row[1])) for row in rows]

    def mark_uploaded(self, ids: Sequence[str]) -> None:
        """After receipts with the right digests."""
        with self._database.write() as db:
            done = sum(_move(db, i, "uploaded") for i in ids)
            count(db, "uploaded", done)

    def mark_refused(self, verdict_id: str) -> None:
        """The hub will never take this one: kept here for people to look at, never sent again."""
        with self._database.write() as db:
            moved = _move(db, verdict_id, "refused")
            count(db, "evicted", moved)
            count(db, "refused", moved)

    def trim(self) -> int:
        """Keep the file bounded: forget old uploaded rows, evict the oldest beyond the bound. Returns evictions."""
        with self._database.write() as db:
            db.execute(
                "DELETE FROM verdicts WHERE state IN ('uploaded', 'evicted') AND row <= "
                "(SELECT COALESCE(MAX(row), 0) - ? FROM verdicts)",
                (self._keep_rows,),
            )
            pending = db.execute("SELECT COUNT(*) FROM verdicts WHERE state = 'sealed'").fetchone()[0]
            excess = max(0, int(pending) - self._max_pending)
            if excess:
                db.execute(
                    "UPDATE verdicts SET state = 'evicted' WHERE row IN "
                    "(SELECT row FROM verdicts WHERE state = 'sealed' ORDER BY row LIMIT ?)",
                    (excess,),
                )
                lost = db.execute(
                    "UPDATE pictures SET refused = 1 WHERE refused = 0 AND verdict_id IN "
                    "(SELECT id FROM verdicts WHERE state = 'evicted')"
                ).rowcount  # the hub takes no picture of a verdict it never got
                count(db, "evicted", excess + lost)
            return excess

    def delivered(self, source: str, present: Iterable[str]) -> set[str]:
        """Names of ``source`` delivered before; those no longer ``present`` are forgotten, so the table stays small."""
        here = set(present)
        known = {str(row[0]) for row in self._database.read("SELECT name FROM delivered WHERE source = ?", (source,))}
        with self._database.write() as db:
            gone = [(source, name) for name in known - here]
            db.executemany("DELETE FROM delivered WHERE source = ? AND name = ?", gone)
        return known & here

    def ledger(self) -> Ledger:
        """The counters, with what is pending counted afresh from the rows."""
        counters = self.counters()
        pending = self._database.number(
            "SELECT (SELECT COUNT(*) FROM verdicts WHERE state IN ('open', 'sealed'))"
            " + (SELECT COUNT(*) FROM pictures WHERE refused = 0)"
        )
        decisions = {d.value.lower(): counters.get(d.value, 0) for d in Decision}
        others = {name: counters.get(name, 0) for name in ("triggers", "missed", "stored", "uploaded", "evicted")}
        return Ledger(pending=pending, **decisions, **others)

    def counters(self) -> dict[str, int]:
        """All counters by name."""
        return {str(name): int(str(value)) for name, value in self._database.read("SELECT name, value FROM counters")}

    def verdicts_by_digest(self) -> dict[str, int]:
        """How many verdicts each bundle has made on this device, over all restarts."""
        return {str(d): int(str(n)) for d, n in self._database.read("SELECT digest, value FROM by_digest")}


def _move(db: sqlite3.Connection, verdict_id: str, state: str) -> int:
    return db.execute("UPDATE verdicts SET state = ? WHERE id = ? AND state = 'sealed'", (state, verdict_id)).rowcount


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"journal row holds {type(value).__name__} where bytes belong")
    return value
