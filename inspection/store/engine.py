"""Engines: how a connection to SQLite or PostgreSQL behaves. One place, so that every program behaves the same.

Invariants on SQLite: WAL, synchronous=FULL, foreign keys on, 30 s of patience, and a transaction that may write begins
IMMEDIATE, so that two writers queue instead of failing half-way with "database is locked".
"""

import re
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from inspection.errors import UsageError

BUSY_TIMEOUT_MS = 30_000
_PRAGMAS = (
    f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}",
    "PRAGMA foreign_keys=ON",
    "PRAGMA synchronous=FULL",
    "PRAGMA recursive_triggers=ON",  # else INSERT OR REPLACE deletes rows behind the append-only triggers' back
)


def database_url(text: str) -> URL:
    """The URL of a database as SQLAlchemy wants it; ``postgresql://`` means psycopg 3.

    Raises UsageError when it is not the URL of an SQLite file or a PostgreSQL database.
    """
    shown = re.sub(r"//([^:/@]*):[^@]*@", r"//\1:***@", text)
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise UsageError(f"{shown!r} is not a database URL: use sqlite:///FILE or postgresql://USER@HOST/NAME") from error
    if url.get_backend_name() == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() != "sqlite":
        raise UsageError(f"{shown!r}: the store keeps its rows in SQLite or PostgreSQL only")
    if not url.database or url.database == ":memory:":
        raise UsageError(f"{shown!r}: the store needs a file, several processes share it: use sqlite:///FILE")
    return url


def make_engine(text: str) -> Engine:
    """An engine on ``text`` (see `database_url`); makes the folder of an SQLite file."""
    url = database_url(text)
    if url.get_backend_name() == "postgresql":
        return create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=20)
    assert url.database is not None  # noqa: S101 - `database_url` has refused it
    Path(url.database).absolute().parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, pool_size=10, max_overflow=20)
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def read_only(engine: Engine) -> Engine:
    """The same engine, whose transactions refuse to write and so need no write lock; each sees one moment."""
    if engine.dialect.name == "postgresql":
        return engine.execution_options(postgresql_readonly=True, isolation_level="REPEATABLE READ")
    return engine.execution_options(postgresql_readonly=True)


def _on_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver shall not begin transactions of its own
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _on_begin(connection: Connection) -> None:
    only_read = bool(connection.get_execution_options().get("postgresql_readonly"))
    connection.exec_driver_sql(f"PRAGMA query_only={'ON' if only_read else 'OFF'}")
    connection.exec_driver_sql("BEGIN" if only_read else "BEGIN IMMEDIATE")
