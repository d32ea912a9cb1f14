"""The outbox: chosen pictures wait here for the hub. Bounded, and it says what it dropped.

Invariants: a picture's bytes are on the disk before its row is, and its row before the verdict is sealed; a file is
deleted only when no row needs it; when space is short pictures go before verdicts, the least telling and oldest first
(`collect` < `near_threshold` < `inconclusive` < `audit` < `ng`), and every one is counted as evicted.
"""

import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from edge_agent.database import Database, count
from edge_agent.files import write_durably
from inspection.contracts import sha256_hex

PRIORITIES = {"collect": 0, "near_threshold": 1, "inconclusive": 2, "audit": 3, "ng": 4}


@dataclass(frozen=True)
class PendingPicture:
    """A picture that waits for its receipt."""

    verdict_id: str
    sha256: str
    why: str
    path: Path


class Outbox:
    """Pictures as files named by their SHA-256, with one row per verdict that wants one."""

    def __init__(self, database: Database, folder: Path, *, max_bytes: int, min_free_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._database = database
        self._folder = folder
        self._max_bytes = max_bytes
        self._min_free = min_free_bytes
        self._files = threading.RLock()  # a file must not be deleted between being found and being named by a row

    def put(self, verdict_id: str, png: bytes, why: str) -> str:
        """Store a picture durably, evicting what matters less when space is short. Returns its SHA-256."""
        digest = sha256_hex(png)
        path = self._path(digest)
        with self._files:
            if not path.exists():
                write_durably(path, png)
            with self._database.write() as db:
                db.execute(
                    "INSERT INTO pictures (verdict_id, sha256, length, why, priority) VALUES (?, ?, ?, ?, ?)",
                    (verdict_id, digest, len(png), why, PRIORITIES[why]),
                )
                count(db, "stored")
            self._make_room()
        return digest

    def pending(self, limit: int) -> list[PendingPicture]:
        """The oldest pictures whose verdict has been uploaded, most telling first."""
        rows = self._database.read(
            "SELECT p.verdict_id, p.sha256, p.why FROM pictures p LEFT JOIN verdicts v ON v.id = p.verdict_id "
            "WHERE p.refused = 0 AND (v.id IS NULL OR v.state = 'uploaded') ORDER BY p.priority DESC, p.row LIMIT ?",
            (limit,),
        )
        return [PendingPicture(str(v), str(s), str(w), self._path(str(s))) for v, s, w in rows]

    def delete_uploaded(self, verdict_id: str) -> None:
        """After a receipt with the right digest: the local copy goes."""
        self._drop(verdict_id, "uploaded")

    def set_aside(self, verdict_id: str) -> None:
        """The hub will never take it, or its file is gone: counted, never sent again, the file left for people."""
        with self._database.write() as db:
            changed = db.execute(
                "UPDATE pictures SET refused = 1 WHERE verdict_id = ? AND refused = 0", (verdict_id,)
            ).rowcount
            count(db, "evicted", changed)
            count(db, "refused", changed)

    def depth(self) -> int:
        """Pictures waiting."""
        return self._database.number("SELECT COUNT(*) FROM pictures WHERE refused = 0")

    def stored_bytes(self) -> int:
        """Bytes of all pictures here (one file counted once)."""
        return self._database.number("SELECT SUM(length) FROM (SELECT DISTINCT sha256, length FROM pictures)")

    def free_disk_bytes(self) -> int:
        """Free bytes on the outbox's disk."""
        return shutil.disk_usage(self._folder).free

    def sweep(self) -> int:
        """At start: files that no row names (a crash between file and row) are deleted. Returns how many."""
        known = {f"{row[0]}.png" for row in self._database.read("SELECT DISTINCT sha256 FROM pictures")}
        strays = [path for path in self._folder.iterdir() if path.name not in known]
        for path in strays:
            path.unlink()
        return len(strays)

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.png"

    def _make_room(self) -> None:
        while self.stored_bytes() > self._max_bytes or self.free_disk_bytes() < self._min_free:
            rows = self._database.read("SELECT verdict_id FROM pictures ORDER BY refused DESC, priority, row LIMIT 1")
            if not rows:
                return
            self._drop(str(rows[0][0]), "evicted")

    def _drop(self, verdict_id: str, counter: str) -> None:
        """Delete a row and, when nobody else needs it, its file. The row goes first: `sweep` finds a stray file."""
        with self._files:
            with self._database.write() as db:
                row = db.execute("SELECT sha256, refused FROM pictures WHERE verdict_id = ?", (verdict_id,)).fetchone()
                if row is None:
                    return
                db.execute("DELETE FROM pictures WHERE verdict_id = ?", (verdict_id,))
                if not row[1]:  # what the hub refused was counted when it was set aside
                    count(db, counter)
                others = db.execute("SELECT COUNT(*) FROM pictures WHERE sha256 = ?", (row[0],)).fetchone()[0]
            if not others:
                self._path(row[0]).unlink(missing_ok=True)
