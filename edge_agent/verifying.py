"""Checking the hash chain of a journal (`chain.py` says what it proves), one entry at a time.

Invariants: reads one snapshot of the file over a connection of its own, so a running agent is not held up; memory does not
grow with the file.
"""

import json
import sqlite3
from dataclasses import dataclass, field

from edge_agent.chain import GENESIS, Kind, digest_of, link_of
from edge_agent.database import Database
from edge_agent.errors import DeviceError
from edge_agent.packing import unpack


@dataclass(frozen=True)
class ChainCheck:
    """What a check of the whole chain found. ``first_bad`` is the number of the first entry that does not fit."""

    ok: bool
    checked: int
    first_bad: int | None = None
    reason: str | None = None


def verify(database: Database) -> ChainCheck:
    """Check every entry and every row, one at a time, on one snapshot of the file. Takes about 20 us per entry."""
    with database.apart() as db:
        walk = _Walk(db)
        try:
            walk.entries()
            walk.end()
        except _BadError as bad:
            return ChainCheck(False, walk.checked, bad.n, str(bad))
        return ChainCheck(True, walk.checked)


class _BadError(Exception):
    def __init__(self, n: int | None, reason: str) -> None:
        super().__init__(reason)
        self.n = n


@dataclass
class _Walk:
    """One check. Constant memory: rows are looked up, not collected."""

    db: sqlite3.Connection
    checked: int = 0
    covered: int = 0
    gone: tuple[int, int] = (0, 0)  # highest row that an entry covers and that is not here, and that entry
    bound: int = 0  # rows up to here may be gone
    anchor: tuple[int, bytes] = (1, GENESIS)
    named: tuple[int, bytes] | None = None  # the anchor that the last trim names
    samples: dict[int, bytes] = field(default_factory=lambda: {0: b""})

    def entries(self) -> None:
        """All entries in their order."""
        expected, previous = 1, GENESIS
        for n, kind, key, digest, link in self.db.execute("SELECT n, kind, key, digest, link FROM chain ORDER BY n"):
            if not self.checked and n > 1:  # an anchor: its own link is given, not computed, and it covers no row
                self.anchor = (n, link)
            elif n != expected:
                raise _BadError(n, f"entries {expected} to {n - 1} are missing")
            elif link != link_of(previous, kind, key, digest):
                raise _BadError(n, f"the link of entry {n} ({kind} {key}) does not follow from the one before")
            else:
                self._content(n, kind, key, digest)
            expected, previous = n + 1, link
            self.checked += 1

    def _content(self, n: int, kind: str, key: str, digest: bytes) -> None:
        if kind in (Kind.VERDICT, Kind.SEAL):
            self._row(n, int(key), digest)
        elif kind == Kind.TRIM:
            bound, _, anchor = key.partition("/")
            self.bound, self.named = int(bound), (int(anchor), digest)
        elif digest != digest_of(key.encode()):
            raise _BadError(n, f"entry {n} covers another number than {key}")

    def _row(self, n: int, row: int, digest: bytes) -> None:
        query = "SELECT id, part, decision, CAST(body AS BLOB), sample, n FROM verdicts WHERE row = ?"
        found = self.db.execute(query, (row,)).fetchone()
        if found is None:
            self.gone = max(self.gone, (row, n))
            return
        if found[5] < n:
            raise _BadError(n, f"row {row} ({found[0]}) was put back to an older body")
        if found[5] == n:
            self.covered += 1
            self._body(n, row, found, digest)

    def _body(self, n: int, row: int, found: tuple[str, str, str, bytes, int, int], digest: bytes) -> None:
        try:
            body = unpack(found[3], self._sample(found[4]))
        except DeviceError as error:
            raise _BadError(n, f"row {row} ({found[0]}): {error}") from error
        if digest_of(body) != digest:
            raise _BadError(n, f"the body of row {row} ({found[0]}) was changed")
        said = json.loads(body)
        if [said["id"], said["part"], said["decision"]] != list(found[:3]):
            raise _BadError(n, f"row {row} names {found[:3]}, its body another id, part or decision")

    def _sample(self, number: int) -> bytes:
        if number not in self.samples:
            row = self.db.execute("SELECT body FROM samples WHERE id = ?", (number,)).fetchone()
            self.samples = {0: b"", number: row[0] if row else b"\0"}  # one at a time: they come in order
        return self.samples[number]

    def end(self) -> None:
        """What can only be said at the end."""
        if self.gone[0] > self.bound:
            raise _BadError(self.gone[1], f"row {self.gone[0]} is gone, but only rows up to {self.bound} were trimmed")
        if self.anchor[0] > 1 and self.named != self.anchor:
            raise _BadError(self.anchor[0], f"the chain begins at entry {self.anchor[0]}, which no trim names")
        rows = self.db.execute("SELECT COUNT(*) FROM verdicts").fetchone()[0]
        if rows != self.covered:
            raise _BadError(None, f"{rows - self.covered} of {rows} rows are covered by no entry")
