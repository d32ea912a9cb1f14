"""The journal: every trigger ends in exactly one durable row, and the ledger that proves it.

Invariants:
* `record` returns only when the row is on the disk; the part's delivery is remembered in the same transaction.
* A row is `open` until its picture is settled, then `sealed` (its body final), then `uploaded`, or `refused` (set aside).
* Each row is covered by the hash chain (`chain.py`) in the transaction that writes it.
* What goes is counted as it goes (`gone_<decision>`, `gone_uploaded`, `evicted`), so the ledger compares two independent
  things: `triggers` and `stored`, counted when they happened, and the rows that are here with those counted as gone.
  What is set aside counts as evicted until `requeue` takes it up again.
* Whatever sets a verdict aside takes its picture along, in the same transaction: the hub would not have it.
"""

import functools
import json
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from edge_agent import chain
from edge_agent.chain import Kind, digest_of
from edge_agent.database import Database, count
from edge_agent.errors import DeviceError
from edge_agent.packing import pack, unpack
from edge_agent.ranks import SET_ASIDE, rank_of
from inspection.contracts import Decision, Ledger, Purpose, Verdict, sha256_hex

log = logging.getLogger(__name__)

_BUSY_SECONDS = 1.0
_BOOTS_KEPT = 1000
_EVICT_BEFORE_RECOUNT = 1000
_ROTTEN = (DeviceError, ValidationError, TypeError)  # what reading a row gives whose bytes are not what they were


@dataclass(frozen=True)
class Pending:
    """A sealed verdict that waits for its receipt."""

    id: str
    body: bytes

    @property
    def key(self) -> str:
        """Its name in a lane."""
        return self.id

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes: what the receipt must say."""
        return sha256_hex(self.body)


@dataclass(frozen=True)
class Boot:
    """One start of the agent: what its verdicts were made on."""

    boot: str
    started_at: datetime
    agent_version: str
    machine: dict[str, str]


@dataclass(frozen=True)
class _Sample:
    """The body that the bodies of one boot and bundle are packed against."""

    key: tuple[str, str | None, str | None]
    number: int
    body: bytes


class Journal:
    """Verdict rows and counters."""

    def __init__(self, database: Database, *, max_pending: int, keep_rows: int, chain_slack: int = 10_000) -> None:
        """``chain_slack``: so many entries may cover no row any more before the chain is shortened."""
        self._database = database
        self._max_pending = max_pending
        self._keep_rows = keep_rows
        self._chain_slack = chain_slack
        self._sample: _Sample | None = None
        self._samples: dict[int, bytes] = {0: b""}
        self._recorded_at = -_BUSY_SECONDS
        self._excess = 0

    @property
    def busy(self) -> bool:
        """True while the loop writes rows: whoever drains takes a breath between two batches."""
        return time.monotonic() - self._recorded_at < _BUSY_SECONDS

    def record(self, verdict: Verdict, *, source: tuple[str, str] | None, sealed: bool, late: bool = False) -> None:
        """Write the one row of a trigger, durably. sqlite3.IntegrityError on a second row of the same trigger."""
        body = verdict.canonical()

        def write(db: sqlite3.Connection) -> _Sample:
            sample = self._sample_for(db, verdict, body)
            _insert(db, verdict, body, sample, "sealed" if sealed else "open")
            if source is not None:
                db.execute("INSERT OR IGNORE INTO delivered VALUES (?, ?)", source)
            for name in ("triggers", verdict.decision.value, "stored", *(["late"] if late else [])):
                count(db, name)
            if verdict.bundle_digest is not None and verdict.purpose is Purpose.PRODUCTION:
                db.execute(
                    "INSERT INTO by_digest VALUES (?, 1) ON CONFLICT (digest) DO UPDATE SET value = value + 1",
                    (verdict.bundle_digest,),
                )
            return sample

        self._sample = self._database.commit(write)  # known only now that it is on the disk
        self._recorded_at = time.monotonic()

    def _sample_for(self, db: sqlite3.Connection, verdict: Verdict, body: bytes) -> _Sample:
        """The sample in force; a new one when the boot or what judges has changed. Their numbers rise with the rows."""
        known, key = self._sample, (verdict.boot, verdict.bundle_digest, verdict.recipe_digest)
        if known is not None and (known.key == key or (known.key[0] == verdict.boot and verdict.bundle_digest is None)):
            return known
        number = db.execute("INSERT INTO samples (body) VALUES (?)", (body,)).lastrowid
        return _Sample(key, int(number or 0), body)

    def count_missed(self, missed: int) -> None:
        """Count triggers nobody could serve."""

        def write(db: sqlite3.Connection) -> None:
            count(db, "triggers", missed)
            count(db, "missed", missed)
            chain.append(db, Kind.MISSED, str(missed), digest_of(str(missed).encode()))

        self._database.commit(write)

    def count_told_late(self) -> None:
        """Count a verdict that was in time, but not on the disk in time: the line heard an ERROR instead of it."""
        with self._database.write(durable=False) as db:
            count(db, "told_late")

    def seal(self, verdict: Verdict) -> None:
        """Make a row's body final, with or without ``frame_sha256``. Nothing changes in a row that is sealed already."""
        body = verdict.canonical()
        # After a power cut an open row is sealed again, to the same body; only a challenger's view is nowhere else: the hub
        # must not get a body that this device forgets.
        with self._database.write(durable=verdict.challenger is not None) as db:
            self._seal(db, verdict.id, body)

    def _seal(self, db: sqlite3.Connection, verdict_id: str, body: bytes) -> int:
        found = db.execute(
            "SELECT v.row, v.sample, c.digest FROM verdicts v JOIN chain c ON c.n = v.n "
            "WHERE v.id = ? AND v.state = 'open'",
            (verdict_id,),
        ).fetchone()
        if found is None:
            return 0
        row, sample, digest = found
        if digest_of(body) != digest:
            n = chain.append(db, Kind.SEAL, str(row), digest_of(body))
            packed = pack(body, self._sample_body(db, sample))
            db.execute("UPDATE verdicts SET body = ?, n = ? WHERE row = ?", (packed, n, row))
        return db.execute("UPDATE verdicts SET state = 'sealed' WHERE row = ?", (row,)).rowcount

    def open_ids(self) -> set[str]:
        """Verdicts whose picture is not settled yet."""
        return {str(row[0]) for row in self._database.read("SELECT id FROM verdicts WHERE state = 'open'")}

    def seal_open(self, ids: Iterable[str]) -> int:
        """Seal rows that nobody will seal any more: with their picture when it is in the outbox, else without.

        One whose body rotted on the disk is set aside: it must not keep the others, or a start, waiting.
        """
        return sum(self._database.commit(functools.partial(self._seal_open, verdict_id)) for verdict_id in ids)

    def _seal_open(self, verdict_id: str, db: sqlite3.Connection) -> int:
        try:
            body = self._final_body(db, verdict_id)
        except _ROTTEN as error:
            log.error("verdict set aside", extra={"id": verdict_id, "reason": str(error)})  # noqa: TRY400  # no traceback
            _set_aside(db, verdict_id, "open")
            return 0
        return self._seal(db, verdict_id, body)

    def _final_body(self, db: sqlite3.Connection, verdict_id: str) -> bytes:
        body, sample, sha256 = db.execute(
            "SELECT v.body, v.sample, p.sha256 FROM verdicts v LEFT JOIN pictures p ON p.verdict_id = v.id WHERE v.id = ?",
            (verdict_id,),
        ).fetchone() or (b"", 0, None)  # gone since: there is nothing to seal
        recorded = unpack(_bytes(body), self._sample_body(db, sample))
        if sha256 is None:
            return recorded
        return Verdict.parse(recorded).model_copy(update={"frame_sha256": sha256}).canonical()

    def seal_orphans(self) -> int:
        """At start: rows that a crash left open. Returns how many."""
        return self.seal_open(self.open_ids())

    def pending(self, limit: int, without: Collection[str] = ()) -> list[Pending]:
        """The oldest sealed verdicts that have no receipt; what cannot be read any more is set aside."""
        rows = self._database.read(
            "SELECT id, body, sample FROM verdicts WHERE state = 'sealed' "
            "AND id NOT IN (SELECT value FROM json_each(?)) ORDER BY row LIMIT ?",
            (json.dumps(list(without)), limit),
        )
        found = []
        for verdict_id, packed, sample in rows:
            try:
                found.append(Pending(str(verdict_id), self._unpacked(packed, sample)))
            except DeviceError as error:
                log.error("verdict set aside", extra={"id": verdict_id, "reason": str(error)})  # noqa: TRY400  # no traceback
                self.mark_refused(str(verdict_id))
        return found

    def mark_uploaded(self, ids: Sequence[str]) -> None:
        """After receipts with the right digests."""
        with self._database.write(durable=False) as db:  # a mark that a power cut takes is sent again, and is not new there
            db.executemany("UPDATE verdicts SET state = 'uploaded' WHERE id = ? AND state = 'sealed'", [(i,) for i in ids])

    def mark_refused(self, verdict_id: str) -> None:
        """The hub will not take this one, nor its picture: kept here for people, not sent again before `requeue`."""
        with self._database.write() as db:
            _set_aside(db, verdict_id, "sealed")

    def resend(self, verdict_id: str) -> bool:
        """The hub says that it does not hold this one: it waits again. False when it cannot be sent."""
        with self._database.write() as db:
            back = db.execute("UPDATE verdicts SET state = 'sealed' WHERE id = ? AND state = 'uploaded'", (verdict_id,))
            count(db, "resent", back.rowcount)
            waits = "SELECT 1 FROM verdicts WHERE id = ? AND state = 'sealed'"
            return db.execute(waits, (verdict_id,)).fetchone() is not None

    def requeue(self) -> int:
        """Everything that was set aside is sent again, pictures too where their verdict is here. Returns how many."""
        with self._database.write() as db:
            moved = db.execute("UPDATE verdicts SET state = 'sealed' WHERE state = 'refused'").rowcount
            again = db.execute(
                "SELECT verdict_id, why FROM pictures WHERE state = 'refused' "
                "AND verdict_id IN (SELECT id FROM verdicts WHERE state != 'refused')"
            ).fetchall()
            db.executemany(
                "UPDATE pictures SET state = 'pending', rank = ? WHERE verdict_id = ?",
                [(rank_of(why), verdict_id) for verdict_id, why in again],
            )
            return moved + len(again)

    def trim(self, most: int = 250) -> int:
        """One small step towards the bounds: how many rows or chain entries it worked on; 0 when all is within them.

        What is set aside goes first, then the oldest that waits; uploaded rows are forgotten when ``keep_rows`` newer ones
        are here and no picture of theirs waits.
        """
        if self._excess <= 0:
            self._excess = self._over()
        if self._excess > 0:
            evicted = self._evict(min(most, self._excess))
            self._excess = self._excess - evicted if evicted else 0
            return evicted
        return self._forget(most) or self._shorten(most)

    def _over(self) -> int:
        """How many rows wait or are set aside beyond the bound; counted only when there may be any."""
        if self._here() <= self._max_pending:
            return 0
        held = self._database.number("SELECT COUNT(*) FROM verdicts WHERE state IN ('sealed', 'refused')")
        return min(held - self._max_pending, _EVICT_BEFORE_RECOUNT)

    def _here(self) -> int:
        """How many rows are here, from the counters."""
        counters = self.counters()
        return sum(counters.get(d.value, 0) - counters.get(f"gone_{d.value}", 0) for d in Decision)

    def _evict(self, most: int) -> int:
        with self._database.write(durable=False) as db:
            chosen: list[tuple[int, str, str]] = []
            for state in ("refused", "sealed"):
                oldest = "SELECT row, id, decision FROM verdicts WHERE state = ? ORDER BY row LIMIT ?"
                chosen += db.execute(oldest, (state, most - len(chosen)))
            _set_pictures_aside(db, [verdict_id for _, verdict_id, _ in chosen])
            _delete(db, [(row, decision) for row, _, decision in chosen], "evicted")
            return len(chosen)

    def _forget(self, most: int) -> int:
        with self._database.write(durable=False) as db:
            chosen = db.execute(
                "SELECT row, decision FROM verdicts v WHERE state = 'uploaded' "
                "AND row <= (SELECT COALESCE(MAX(row), 0) FROM verdicts) - ? "
                "AND NOT EXISTS (SELECT 1 FROM pictures p WHERE p.verdict_id = v.id AND p.state = 'pending') "
                "ORDER BY row LIMIT ?",
                (self._keep_rows, most),
            ).fetchall()
            _delete(db, chosen, "gone_uploaded")
            if chosen:
                db.execute("DELETE FROM samples WHERE id < (SELECT sample FROM verdicts ORDER BY row LIMIT 1)")
            return len(chosen)

    def _shorten(self, most: int) -> int:
        before = self._span()
        if before <= 2 * self._here() + self._chain_slack:
            return 0
        with self._database.write(durable=False) as db:
            chain.shorten(db, most)
        return max(0, before - self._span())

    def _span(self) -> int:
        return self._database.number("SELECT MAX(n) - MIN(n) + 1 FROM chain")

    def delivered(self, source: str, present: Iterable[str]) -> set[str]:
        """Names of ``source`` delivered before; those no longer ``present`` are forgotten, so the table stays small."""
        here = set(present)
        known = {str(row[0]) for row in self._database.read("SELECT name FROM delivered WHERE source = ?", (source,))}
        gone = [(source, name) for name in known - here]
        if gone:
            self._database.commit(lambda db: db.executemany("DELETE FROM delivered WHERE source = ? AND name = ?", gone))
        return known & here

    def begin_boot(self, boot: str, agent_version: str, machine: dict[str, str]) -> None:
        """Remember what the verdicts of this start are made on."""
        row = (boot, datetime.now(UTC).isoformat(), agent_version, json.dumps(machine, sort_keys=True))

        def write(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO boots (boot, started_at, agent_version, machine) VALUES (?, ?, ?, ?)", row)
            db.execute("DELETE FROM boots WHERE row <= (SELECT MAX(row) FROM boots) - ?", (_BOOTS_KEPT,))

        self._database.commit(write)

    def boot(self, boot: str) -> Boot | None:
        """What is known of a start, or None: too long ago."""
        rows = self._database.read("SELECT started_at, agent_version, machine FROM boots WHERE boot = ?", (boot,))
        if not rows:
            return None
        started_at, version, machine = map(str, rows[0])
        return Boot(boot, datetime.fromisoformat(started_at), version, json.loads(machine))

    def machine_of(self, boot: str) -> dict[str, str]:
        """What the verdicts of a start were made on; empty when it is too long ago."""
        known = self.boot(boot)
        return {} if known is None else {**known.machine, "agent": known.agent_version}

    def find(self, part: str) -> list[Verdict]:
        """The verdicts on a part that are still here, newest first. DeviceError when one rotted on the disk."""
        rows = self._database.read("SELECT body, sample FROM verdicts WHERE part = ? ORDER BY row DESC", (part,))
        return [Verdict.parse(self._unpacked(body, sample)) for body, sample in rows]

    def ledger(self) -> Ledger:
        """Both identities from one state of the file: ``triggers``, ``stored`` and ``missed`` as counted when they
        happened, everything else from the rows that are here and those counted as gone."""
        with self._database.snapshot() as db:
            counters = dict(db.execute("SELECT name, value FROM counters").fetchall())
            rows = db.execute("SELECT decision, state, COUNT(*) FROM verdicts GROUP BY decision, state").fetchall()
            pictures = db.execute("SELECT state, COUNT(*) FROM pictures GROUP BY state").fetchall()
        return _ledger(counters, rows, pictures)

    def counters(self) -> dict[str, int]:
        """All counters by name."""
        return {str(name): int(str(value)) for name, value in self._database.read("SELECT name, value FROM counters")}

    def verdicts_by_digest(self) -> dict[str, int]:
        """How many verdicts each bundle has made on this device, over all restarts, without known parts of a challenge."""
        return {str(d): int(str(n)) for d, n in self._database.read("SELECT digest, value FROM by_digest")}

    def _unpacked(self, packed: object, sample: object) -> bytes:
        number, known = int(str(sample)), self._samples
        if number not in known:
            rows = self._database.read("SELECT body FROM samples WHERE id = ?", (number,))
            known = self._samples = {
                0: b"",
                number: _bytes(rows[0][0]) if rows else b"\0",
            }  # of one boot: they lie together
        return unpack(_bytes(packed), known[number])

    def _sample_body(self, db: sqlite3.Connection, number: int) -> bytes:
        """Inside a transaction: the sample may be of this very transaction."""
        if self._sample is not None and self._sample.number == number:
            return self._sample.body
        row = db.execute("SELECT body FROM samples WHERE id = ?", (number,)).fetchone()
        if row is None:
            return b"\0" if number else b""  # number 0 is no sample; another that is gone unpacks nothing
        return _bytes(row[0])


def _insert(db: sqlite3.Connection, verdict: Verdict, body: bytes, sample: _Sample, state: str) -> None:
    row = db.execute(
        "INSERT INTO verdicts (id, part, decision, body, sample, state) VALUES (?, ?, ?, ?, ?, ?)",
        (verdict.id, verdict.part, verdict.decision.value, pack(body, sample.body), sample.number, state),
    ).lastrowid
    n = chain.append(db, Kind.VERDICT, str(row), digest_of(body))
    db.execute("UPDATE verdicts SET n = ? WHERE row = ?", (n, row))


def _set_aside(db: sqlite3.Connection, verdict_id: str, state: str) -> None:
    """A verdict in this ``state``, and its picture: each counted."""
    moved = db.execute("UPDATE verdicts SET state = 'refused' WHERE id = ? AND state = ?", (verdict_id, state)).rowcount
    count(db, "refused", moved + (_set_pictures_aside(db, [verdict_id]) if moved else 0))


def _set_pictures_aside(db: sqlite3.Connection, verdict_ids: Sequence[str]) -> int:
    """The hub takes no picture of a verdict it never got. Returns how many waited."""
    return db.executemany(
        "UPDATE pictures SET state = 'refused', rank = ? WHERE verdict_id = ? AND state = 'pending'",
        [(SET_ASIDE, verdict_id) for verdict_id in verdict_ids],
    ).rowcount


def _delete(db: sqlite3.Connection, chosen: Sequence[tuple[int, str]], counter: str) -> None:
    """Rows go, counted, and the chain says that they did."""
    if not chosen:
        return
    db.executemany("DELETE FROM verdicts WHERE row = ?", [(row,) for row, _ in chosen])
    count(db, counter, len(chosen))
    for _, decision in chosen:
        count(db, f"gone_{decision}")
    chain.note_trim(db, max(row for row, _ in chosen))


def _ledger(counters: dict[str, int], rows: Sequence[tuple[str, str, int]], pictures: Sequence[tuple[str, int]]) -> Ledger:
    here: Counter[str] = Counter()
    states: Counter[str] = Counter()
    for decision, state, number in rows:
        here[decision] += number
        states[state] += number
    for state, number in pictures:
        states[state] += number
    decisions = {d.value.lower(): here[d.value] + counters.get(f"gone_{d.value}", 0) for d in Decision}
    return Ledger(
        **decisions,
        triggers=counters.get("triggers", 0),
        missed=counters.get("missed", 0),
        stored=counters.get("stored", 0),
        uploaded=states["uploaded"] + states["sent"] + counters.get("gone_uploaded", 0),
        pending=states["open"] + states["sealed"] + states["pending"],
        evicted=states["refused"] + counters.get("evicted", 0),
    )


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"journal row holds {type(value).__name__} where bytes belong")
    return value
