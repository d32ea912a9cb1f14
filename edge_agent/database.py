"""The agent's one SQLite file: connections and transactions (`migrations.py` has the schema).

Invariants: WAL with `synchronous=FULL`, so a committed transaction survives a power cut; one writing connection behind one
lock, so a transaction of one thread never holds another's half; counters change in the transaction that changes their
rows. Readers have a connection of their own and never wait for a writer. What may be lost in a power cut because it would
only be done again (a mark that something was sent) is written with `durable=False`: still whole, but nobody waits for the
disk. The write-ahead log is folded back by `checkpoint`, on a background thread, not by whoever commits. Who only looks
(`read_only`) makes, migrates and changes nothing.
"""

import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TypeVar

from edge_agent.errors import DeviceError, UsageError
from edge_agent.migrations import check_version, migrate

DATABASE_NAME = "journal.db"

_WAIT_SECONDS = 10.0
_LONGEST_LOG_PAGES = 20_000  # 80 MB: only where nobody calls `checkpoint`
_LONG_LOG_PAGES = 2_000  # 8 MB: from here on writers are held up for a moment, else a busy one never lets it begin anew
_FULL_BELOW_BYTES = 1024 * 1024
_NO_ROOM_TO_OPEN = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})
T = TypeVar("T")


class _FullError(DeviceError):
    """There was no room for a transaction: worth another try when there is."""


class Database:
    """An open journal file. Close it. ``relief`` makes room on a full disk and says whether it could."""

    def __init__(self, path: Path, *, relief: Callable[[], bool] = lambda: False, read_only: bool = False) -> None:
        """DeviceError when it cannot be opened though ``relief`` was asked. Unless ``read_only``, a missing one is made."""
        self._path = path
        self._looking = read_only
        self._lock = threading.RLock()
        self._reading = threading.RLock()
        self._checkpointing = threading.Lock()
        self.relief = relief
        try:
            if not read_only and _free_bytes(path) < _FULL_BELOW_BYTES:
                relief()  # opening writes too
            self._open(read_only=read_only)
        except _FullError:
            if not relief():
                raise
            self._open(read_only=read_only)

    def _open(self, *, read_only: bool) -> None:
        with ExitStack() as opened:
            try:
                self._connection, self._reader, self._checkpointer = (
                    opened.enter_context(closing(self._connect(read_only=read_only))) for _ in range(3)
                )
                if read_only:
                    check_version(self._reader)
                else:
                    self._prepare()
            except sqlite3.Error as error:
                kind = _FullError if _code(error) in _NO_ROOM_TO_OPEN else DeviceError
                raise kind(
                    f"journal {self._path} cannot be opened: {error}; is the disk full, read-only or broken? "
                    "Otherwise move the file away to begin a new one"
                ) from error
            opened.pop_all()

    def _connect(self, *, read_only: bool) -> sqlite3.Connection:
        """Who only looks makes no log either: where none lies nobody writes, and the file is taken as it is."""
        alone = self._looking and not Path(f"{self._path}-wal").exists()
        mode = "rwc" if not read_only else "ro&immutable=1" if alone else "ro"
        address = f"{self._path.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=_WAIT_SECONDS)

    def _prepare(self) -> None:
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute(f"PRAGMA wal_autocheckpoint={_LONGEST_LOG_PAGES}")
        migrate(self._connection)
        self._reader.execute("PRAGMA query_only=ON")
        self._reader.execute("SELECT COUNT(*) FROM counters").fetchone()

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction: committed on success, undone on error. DeviceError when the disk refuses."""
        with self._lock:
            try:
                if not durable:
                    self._connection.execute("PRAGMA synchronous=NORMAL")
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.IntegrityError:
                self._undo()
                raise
            except sqlite3.Error as error:
                self._undo()
                kind = _FullError if self._is_full(error) else DeviceError
                raise kind(f"journal cannot be written: {error}; is the disk full or read-only?") from error
            except BaseException:
                self._undo()
                raise
            finally:
                if not durable:
                    self._connection.execute("PRAGMA synchronous=FULL")

    def commit(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """``work`` in one durable transaction; when the disk is full, room is made and it is tried once more.

        DeviceError when that did not help either.
        """
        try:
            return self._once(work)
        except _FullError:
            if not self.relief():  # outside the lock: it writes too, and may wait for another thread that does
                raise
            return self._once(work)

    def _once(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self.write() as db:
            return work(db)

    def _undo(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _is_full(self, error: sqlite3.Error) -> bool:
        if _code(error) == sqlite3.SQLITE_IOERR:  # what growing the shared index file gives on a full disk
            return _free_bytes(self._path) < _FULL_BELOW_BYTES
        return _code(error) == sqlite3.SQLITE_FULL

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Several short queries on one state of the file. DeviceError when it cannot be read."""
        with self._reading, self._understood():
            self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                self._reader.execute("COMMIT")

    @contextmanager
    def apart(self) -> Iterator[sqlite3.Connection]:
        """One state of the file over a connection of its own, for what takes long. DeviceError when it cannot be read."""
        with self._understood(), closing(self._connect(read_only=True)) as db:
            db.execute("BEGIN")
            yield db

    def read(self, sql: str, parameters: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        """All rows of a query. DeviceError when the file cannot be read."""
        with self._reading, self._understood():
            return self._reader.execute(sql, parameters).fetchall()

    @contextmanager
    def _understood(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise DeviceError(
                f"journal {self._path} cannot be read: {error}; check the disk, then move the file away to begin a new one"
            ) from error

    def number(self, sql: str, parameters: tuple[object, ...] = ()) -> int:
        """The single integer of a query (0 for NULL or no row)."""
        rows = self.read(sql, parameters)
        return int(str(rows[0][0])) if rows and rows[0][0] is not None else 0

    def checkpoint(self) -> None:
        """Fold the write-ahead log back into the file, where nobody is in the way. DeviceError when the disk refuses.

        The log begins anew at the first write that finds all of it folded back. Where writes never pause, the last few
        pages are folded back while no write goes on.
        """
        with self._checkpointing:
            if self._fold() > _LONG_LOG_PAGES:
                with self._lock:
                    self._fold()

    def _fold(self) -> int:
        """Returns how many pages the log had as this began."""
        try:
            _, pages, _ = self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            raise DeviceError(f"journal cannot be folded back: {error}; is the disk full?") from error
        return int(pages)

    def close(self) -> None:
        """Close the file."""
        with self._checkpointing, self._lock, self._reading:  # in the order in which `checkpoint` takes them
            self._checkpointer.close()
            self._reader.close()
            self._connection.close()


@contextmanager
def looking_into(path: Path) -> Iterator[Database]:
    """The journal for whoever only looks; the agent may be running. UsageError when there is none, or an older agent's."""
    if not path.exists():
        raise UsageError(f"{path} does not exist: no agent has judged anything there yet; start `edge-agent run`")
    database = Database(path, read_only=True)
    try:
        yield database
    finally:
        database.close()


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _free_bytes(path: Path) -> int:
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:  # no such folder: opening says so in words
        return _FULL_BELOW_BYTES


def count(connection: sqlite3.Connection, name: str, by: int = 1) -> None:
    """Raise a counter, inside the caller's transaction."""
    connection.execute(
        "INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value", (name, by)
    )
