"""The hash chain over the journal: append-only entries, each sealing all before it.

    link_n = SHA-256(link_{n-1} || kind || key || digest), link_0 = 32 zero bytes; UTF-8, digests and links as 32 bytes

| kind | key | digest |
|---|---|---|
| `verdict` | row number | of the canonical body as recorded |
| `seal` | row number | of the final body, where it differs; or the same digest again, carried forward before a cut |
| `missed` | how many triggers nobody served | of the key |
| `trim` | `<highest row number deleted>/<anchor>` | link of the anchor: the oldest entry that is still here |

Invariants: an entry is written in the transaction of what it covers; entries are numbered without a gap; each verdict row
names the entry that covers it (`verdicts.n`), and that entry comes after the anchor.

What `verifying.verify` proves: since the anchor nobody changed a body, exchanged id, part or decision, put a row back to
an older body, inserted a row, or removed one newer than the last trim, without recomputing the chain from there on. Not
proven: `state` (it moves with uploads), rows older than the last trim that are gone, and a tail cut off together with its
rows or a whole older file put back; the counters of the ledger and the hub's copy speak against those.
"""

import hashlib
import sqlite3
from enum import StrEnum

GENESIS = bytes(32)


class Kind(StrEnum):
    """What an entry covers."""

    VERDICT = "verdict"
    SEAL = "seal"
    MISSED = "missed"
    TRIM = "trim"


def digest_of(data: bytes) -> bytes:
    """SHA-256 as 32 bytes."""
    return hashlib.sha256(data).digest()


def link_of(previous: bytes, kind: str, key: str, digest: bytes) -> bytes:
    """The link of an entry. A kind has letters only and a key begins with a digit, so they cannot run into each other."""
    return digest_of(previous + kind.encode() + key.encode() + digest)


def append(db: sqlite3.Connection, kind: Kind, key: str, digest: bytes) -> int:
    """Add an entry in the caller's transaction. Returns its number."""
    last = db.execute("SELECT n, link FROM chain ORDER BY n DESC LIMIT 1").fetchone()
    n, previous = (last[0] + 1, last[1]) if last else (1, GENESIS)
    link = link_of(previous, kind, key, digest)
    db.execute("INSERT INTO chain VALUES (?, ?, ?, ?, ?)", (n, kind.value, key, digest, link))
    return int(n)


def note_trim(db: sqlite3.Connection, row: int = 0) -> None:
    """Say that verdict rows up to ``row`` may be gone from now on, and which entry the chain begins with."""
    said = db.execute("SELECT key FROM chain WHERE kind = 'trim' ORDER BY n DESC LIMIT 1").fetchone()
    bound = max(row, int(said[0].partition("/")[0]) if said else 0)
    anchor = db.execute("SELECT n, link FROM chain ORDER BY n LIMIT 1").fetchone()
    if anchor is not None:
        append(db, Kind.TRIM, f"{bound}/{anchor[0]}", anchor[1])


def shorten(db: sqlite3.Connection, most: int) -> None:
    """Drop the ``most`` oldest entries; what they still cover is carried to the head first."""
    oldest = db.execute("SELECT n, kind, key, digest FROM chain ORDER BY n LIMIT ?", (most,)).fetchall()
    for n, kind, key, digest in oldest:
        if kind in (Kind.VERDICT, Kind.SEAL):
            covers = db.execute("SELECT 1 FROM verdicts WHERE row = ? AND n = ?", (int(key), n)).fetchone()
            if covers:
                db.execute("UPDATE verdicts SET n = ? WHERE row = ?", (append(db, Kind.SEAL, key, digest), int(key)))
    db.execute("DELETE FROM chain WHERE n < ?", (oldest[-1][0],))
    note_trim(db)


def cover_old(db: sqlite3.Connection, *, page: int = 1000) -> None:
    """Cover rows that were written before there was a chain; their bodies lie there as they are."""
    last = 0
    while rows := db.execute("SELECT row, body FROM verdicts WHERE row > ? ORDER BY row LIMIT ?", (last, page)).fetchall():
        for row, body in rows:
            n = append(db, Kind.VERDICT, str(row), digest_of(body))
            db.execute("UPDATE verdicts SET n = ? WHERE row = ?", (n, row))
        last = rows[-1][0]
