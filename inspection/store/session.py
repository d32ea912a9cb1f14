"""The store: rows in a database, bytes in a blob store, and the unit of work over them.

Invariants: `begin` commits all or nothing; a store opens only on a schema this program knows; the database's refusals
become our own errors here and nowhere else.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Engine, func, inspect, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from inspection.errors import AppendOnlyError, EnvironmentTroubleError, EscapementError, ServerError
from inspection.store import schema
from inspection.store.blobs import Blobs
from inspection.store.engine import make_engine, read_only
from inspection.store.tables import Base


class Store:
    """Rows and blobs of one installation. Safe to share between threads; one per process."""

    def __init__(self, engine: Engine, blobs: Blobs) -> None:
        self.engine = engine
        self.blobs = blobs
        self._reader = read_only(engine)

    @classmethod
    def open(cls, database_url: str, blob_url: str, *, migrate: bool = True) -> Self:
        """Open, and with ``migrate`` bring the schema to this program's revision.

        Raises UsageError on a URL nobody can use, ServerError when the database does not answer,
        EnvironmentTroubleError when its schema is newer (or, without ``migrate``, older) than this program.
        """
        engine = make_engine(database_url)
        try:
            with _own_errors(engine):
                _prepare(engine, migrate)
            return cls(engine, Blobs(blob_url))
        except BaseException:
            engine.dispose()
            raise

    @contextmanager
    def begin(self, *, read_only: bool = False) -> Iterator[Session]:
        """The unit of work: commits on success, rolls back on error. Rows stay readable afterwards.

        On SQLite it waits up to 30 s for the write lock; ``read_only`` needs none and refuses to write.
        """
        bind = self._reader if read_only else self.engine
        with _own_errors(self.engine), Session(bind, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def insert_new(session: Session, row: type[Base], **values: Any) -> bool:
    """Insert a row unless a unique key holds it already; True when it is new. Keys are the mapped attribute names."""
    return bool(insert_all_new(session, row, [values]))


def insert_all_new(session: Session, row: type[Base], rows: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """Insert the rows that no unique key holds yet, in one statement; the primary keys of the new ones.

    All rows name the same attributes, by their mapped names. They go in by their primary key, whatever the caller's order:
    transactions that bring the same rows then wait for one another, and never in a circle.
    """
    if not rows:
        return []
    session.flush()
    make = postgresql.insert if is_postgresql(session) else sqlite.insert
    mapper = inspect(row)
    keys = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    if all(key in rows[0] for key in keys):
        rows = sorted(rows, key=lambda values: [values[key] for key in keys])
    # By attribute, not by column name: `group` is kept in a column `group_key`.
    columns = [{mapper.columns[name].key: value for name, value in values.items()} for values in rows]
    statement = make(row).on_conflict_do_nothing().returning(*mapper.primary_key)
    # Core, not ORM: no object is made, and the statement is compiled once for all rows.
    return [tuple(key) for key in session.connection().execute(statement, columns)]


def exclusive(session: Session, name: str) -> None:
    """Until the end of this transaction no other one passes here with the same name (SQLite has one writer anyway)."""
    if is_postgresql(session):
        session.execute(select(func.pg_advisory_xact_lock(zlib.crc32(name.encode()))))


def is_postgresql(session: Session) -> bool:
    """Whether the session speaks to PostgreSQL, else to SQLite."""
    return session.get_bind().dialect.name == "postgresql"


def _prepare(engine: Engine, migrate: bool) -> None:
    if schema.check(engine):
        return
    if not migrate:
        raise EnvironmentTroubleError(
            f"the database {engine.url.render_as_string()} is older than this program: "
            "start `inspection up` once, or open it with migrate=True"
        )
    schema.upgrade(engine)


@contextmanager
def _own_errors(engine: Engine) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        own = _translate(engine, error)
        if own is None:
            raise
        raise own from error


def _translate(engine: Engine, error: DBAPIError) -> EscapementError | None:
    """Our own error for what the database refused, or None for a mistake of this program."""
    said = str(error.orig)
    if "append-only" in said:
        return AppendOnlyError(f"{said.splitlines()[0]}: history is not changed; append a row that supersedes it")
    if not isinstance(error, OperationalError):
        return None
    where = engine.url.render_as_string()
    if engine.dialect.name == "postgresql":
        if getattr(error.orig, "sqlstate", None) is None:  # it was the driver that said so
            return ServerError(
                f"the database {where} does not answer: {said.strip()}; is it running, is the address right?"
            )
        return ServerError(f"the database {where} gave up: {said.strip()}; look at that server, or try again")
    if any(words in said for words in ("disk is full", "disk I/O", "locked", "unable to open", "readonly database")):
        return EnvironmentTroubleError(f"the database {where}: {said}; look at the disk and at who else has it open")
    return None
