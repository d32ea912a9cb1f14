"""The agent's one SQLite file: schema, connection, transactions.

Invariants: WAL with `synchronous=FULL`, so a committed transaction survives a power cut; one connection behind one lock,
so a transaction of one thread never holds another's half; counters change in the transaction that changes their rows.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_agent.errors import DeviceError

DATABASE_NAME = "journal.db"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS verdicts (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    part TEXT NOT NULL,
    decision TEXT NOT NULL,
    body BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'sealed', 'uploaded', 'refused', 'evicted'))
);
CREATE INDEX IF NOT EXISTS verdicts_by_state ON verdicts (state, row);
CREATE TABLE IF NOT EXISTS pictures (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    verdict_id TEXT NOT NULL UNIQUE,
    sha256 TEXT NOT NULL,
    length INTEGER NOT NULL,
    why TEXT NOT NULL,
    priority INTEGER NOT NULL,
    refused INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS pictures_by_sha256 ON pictures (sha256);
CREATE TABLE IF NOT EXISTS delivered (
    source TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (source, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS by_digest (digest TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""


class Database:
    """An open journal file. Close it."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise DeviceError(
                f"journal {path} cannot be opened: {error}; check the disk, or move the file away to begin a new one"
            ) from error

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction: committed on success, undone on error. DeviceError when the disk refuses."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.IntegrityError:
                self._undo()
                raise
            except sqlite3.Error as error:
                self._undo()
                raise DeviceError(f"journal cannot be written: {error}; is the disk full or read-only?") from error
            except BaseException:
                self._undo()
                raise

    def _undo(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def read(self, sql: str, parameters: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        """All rows of a query."""
        with self._lock:
            return self._connection.execute(sql, parameters).fetchall()

    def number(self, sql: str, parameters: tuple[object, ...] = ()) -> int:
        """The single integer of a query (0 for NULL or no row)."""
        rows = self.read(sql, parameters)
        return int(str(rows[0][0])) if rows and rows[0][0] is not None else 0

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


def count(connection: sqlite3.Connection, name: str, by: int = 1) -> None:
    """Raise a counter, inside the caller's transaction."""
    connection.execute(
        "INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value", (name, by)
    )
