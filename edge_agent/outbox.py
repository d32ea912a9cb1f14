"""The outbox: chosen pictures wait here for the hub, and stay as long as there is room. Bounded; says what it dropped.

Invariants:
* A picture's bytes are on the disk before its row is, and its row before the verdict is sealed.
* Room is made before anything is written: the least telling and oldest go first (`ranks.py`), never for something less
  telling than they are, each counted. What is left free belongs to the journal and to updates.
* `pending` becomes `sent` after a receipt only; a sent picture stays for `replay` until its room is needed. `refused` ones
  are set aside for people and count as evicted.
* A file goes before its row: on a full disk there may be no room to write down that it goes. `sweep` settles what a crash
  between the two leaves.
"""

import functools
import shutil
import sqlite3
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from edge_agent.database import Database, count
from edge_agent.errors import DeviceError
from edge_agent.files import write_durably
from edge_agent.ranks import HIGHEST, SENT, SET_ASIDE, rank_of
from inspection.contracts import sha256_hex

_GONE_AS = {"pending": "evicted", "refused": "evicted", "sent": "gone_uploaded"}


@dataclass(frozen=True)
class PendingPicture:
    """A picture that waits for its receipt."""

    verdict_id: str
    sha256: str
    why: str
    path: Path

    @property
    def key(self) -> str:
        """Its name in a lane."""
        return self.verdict_id


class Outbox:
    """Pictures as files named by their SHA-256, with one row per verdict that wants one."""

    def __init__(
        self, database: Database, folder: Path, *, max_bytes: int, min_free_bytes: int, reserve_bytes: int = 0
    ) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DeviceError(f"{folder} cannot be made: {error.strerror}; is the disk full or read-only?") from error
        self._database = database
        self._folder = folder
        self._max_bytes = max_bytes
        self._leave_free = min_free_bytes + reserve_bytes
        self._files = threading.RLock()  # a file must not be deleted between being found and being named by a row
        self._bytes: int | None = None

    def put(self, verdict_id: str, png: bytes, why: str) -> str:
        """Store a picture durably. Returns its SHA-256. DeviceError when there is no room, or the disk refuses."""
        digest = sha256_hex(png)
        path = self._path(digest)
        with self._files:
            known = path.exists()
            if not known:
                self._write(path, png, rank_of(why))
            try:
                self._database.commit(lambda db: _add(db, verdict_id, digest, len(png), why))
            except BaseException:
                if not known:
                    path.unlink(missing_ok=True)
                raise
            self._bytes = self.stored_bytes() if known else self.stored_bytes() + len(png)
        return digest

    def _write(self, path: Path, png: bytes, rank: int) -> None:
        if not self.make_room(len(png), rank):
            raise DeviceError(f"no room for a picture of {len(png)} bytes: {self.free_disk_bytes()} bytes are free")
        try:
            write_durably(path, png)
        except OSError as error:
            raise DeviceError(f"picture cannot be written to {self._folder}: {error.strerror}") from error

    def pending(self, limit: int, without: Collection[str] = ()) -> list[PendingPicture]:
        """The oldest pictures whose verdict has been uploaded, most telling first; not those of verdicts ``without``."""
        rows = self._database.read(
            "SELECT p.verdict_id, p.sha256, p.why FROM pictures p LEFT JOIN verdicts v ON v.id = p.verdict_id "
            "WHERE p.state = 'pending' AND (v.id IS NULL OR v.state = 'uploaded') ORDER BY p.rank DESC, p.row LIMIT ?",
            (limit + len(without),),
        )
        found = [PendingPicture(str(v), str(s), str(w), self._path(str(s))) for v, s, w in rows if str(v) not in without]
        return found[:limit]

    def mark_sent(self, verdict_id: str) -> None:
        """After a receipt with the right digest: the local copy may go when its room is needed."""
        with self._database.write(durable=False) as db:  # a mark that a power cut takes is sent again, and is not new there
            db.execute(
                "UPDATE pictures SET state = 'sent', rank = ? WHERE verdict_id = ? AND state = 'pending'",
                (SENT, verdict_id),
            )

    def set_aside(self, verdict_id: str) -> None:
        """The hub will not take it, or its file is damaged: not sent before `Journal.requeue`, the file left for people."""
        with self._database.write() as db:
            changed = db.execute(
                "UPDATE pictures SET state = 'refused', rank = ? WHERE verdict_id = ? AND state = 'pending'",
                (SET_ASIDE, verdict_id),
            ).rowcount
            count(db, "refused", changed)

    def picture_of(self, verdict_id: str) -> Path | None:
        """The file of a verdict's picture, waiting or sent, or None when it is not here any more."""
        rows = self._database.read("SELECT sha256 FROM pictures WHERE verdict_id = ?", (verdict_id,))
        path = self._path(str(rows[0][0])) if rows else None
        return path if path is not None and path.exists() else None

    def depth(self) -> int:
        """Pictures waiting."""
        return self._database.number("SELECT COUNT(*) FROM pictures WHERE state = 'pending'")

    def stored_bytes(self) -> int:
        """Bytes of all pictures here (one file counted once)."""
        if self._bytes is None:
            self._bytes = self._database.number("SELECT SUM(length) FROM (SELECT DISTINCT sha256, length FROM pictures)")
        return self._bytes

    def free_disk_bytes(self) -> int:
        """Free bytes on the outbox's disk."""
        return shutil.disk_usage(self._folder).free

    def make_room(self, length: int, rank: int) -> bool:
        """Evict pictures of at most ``rank`` until a picture of ``length`` bytes fits within the bounds.

        False when it does not, and then nothing was evicted in vain.
        """
        return self._evict_while(lambda: self._lacking(length), rank)

    def make_disk_room(self, length: int) -> bool:
        """Evict pictures until ``length`` bytes that are no picture's fit on the disk. False as above."""
        return self._evict_while(lambda: self._lacking_on_disk(length), HIGHEST)

    def _evict_while(self, lacking: Callable[[], int], rank: int) -> bool:
        first = lacking()
        if first > 0 and first > self._evictable(rank):
            return False
        while lacking() > 0:
            if not self._evict_one(rank):
                return False
        return True

    def shed(self, length: int) -> bool:
        """Evict pictures until ``length`` bytes are gone, whatever the bounds: the journal needs them. False: none left."""
        before = self.stored_bytes()
        while before - self.stored_bytes() < length and self._evict_one(HIGHEST):
            pass
        return self.stored_bytes() < before

    def sweep(self) -> int:
        """At start: files without a row and rows without a file (a crash between the two) are dropped. Returns how many."""
        rows = self._database.read("SELECT verdict_id, sha256 FROM pictures")
        names = {f"{sha256}.png" for _, sha256 in rows}
        here = {path.name for path in self._folder.iterdir()}
        for name in here - names:
            (self._folder / name).unlink()
        lost = [str(verdict_id) for verdict_id, sha256 in rows if f"{sha256}.png" not in here]
        for verdict_id in lost:
            self._database.commit(functools.partial(_forget, verdict_id))
        self._bytes = None
        return len(here - names) + len(lost)

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.png"

    def _lacking(self, length: int) -> int:
        """How many bytes must go so that ``length`` more fit; not above 0: none."""
        return max(length + self.stored_bytes() - self._max_bytes, self._lacking_on_disk(length))

    def _lacking_on_disk(self, length: int) -> int:
        return length + self._leave_free - self.free_disk_bytes()

    def _evictable(self, rank: int) -> int:
        return self._database.number("SELECT SUM(length) FROM pictures WHERE rank <= ?", (rank,))

    def _evict_one(self, rank: int) -> bool:
        """Drop the least telling picture, if it ranks no higher than ``rank``. False when there is none."""
        rows = self._database.read("SELECT verdict_id FROM pictures WHERE rank <= ? ORDER BY rank, row LIMIT 1", (rank,))
        if rows:
            self._drop(str(rows[0][0]))
        return bool(rows)

    def _drop(self, verdict_id: str) -> None:
        """Delete a picture's file, unless another row needs it, and its row, counted as what it was."""
        with self._files:
            rows = self._database.read(
                "SELECT sha256, length, (SELECT COUNT(*) FROM pictures o WHERE o.sha256 = p.sha256) FROM pictures p "
                "WHERE verdict_id = ?",
                (verdict_id,),
            )
            if not rows:
                return
            digest, length, needed_by = str(rows[0][0]), int(str(rows[0][1])), rows[0][2]
            left = self.stored_bytes() - (length if needed_by == 1 else 0)
            self._bytes = None  # counted anew, if the row stays
            if needed_by == 1:
                self._path(digest).unlink(missing_ok=True)
            with self._database.write(durable=False) as db:  # no `commit`: this is what makes room for one
                _forget(verdict_id, db)
            self._bytes = left


def _forget(verdict_id: str, db: sqlite3.Connection) -> None:
    """A picture's row goes, if it is still here, counted as what it was."""
    for (state,) in db.execute("SELECT state FROM pictures WHERE verdict_id = ?", (verdict_id,)).fetchall():
        db.execute("DELETE FROM pictures WHERE verdict_id = ?", (verdict_id,))
        count(db, _GONE_AS[state])


def _add(db: sqlite3.Connection, verdict_id: str, digest: str, length: int, why: str) -> None:
    db.execute(
        "INSERT INTO pictures (verdict_id, sha256, length, why, rank, state) VALUES (?, ?, ?, ?, ?, 'pending')",
        (verdict_id, digest, length, why, rank_of(why)),
    )
    count(db, "stored")
