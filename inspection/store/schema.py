"""The schema's version: bring a database to this program's, safely when several processes start together.

Invariant: a database made by a newer program is refused, never touched.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from inspection.errors import EnvironmentTroubleError
from inspection.store.engine import read_only

_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK_KEY = 0x65736361  # of PostgreSQL's advisory lock: "esca"


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, with the connection the migrations shall run on."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def check(engine: Engine) -> bool:
    """True when the database is at this program's revision, False when it is empty or older.

    Raises EnvironmentTroubleError when a newer program made it.
    """
    scripts = ScriptDirectory.from_config(alembic_config())
    with read_only(engine).connect() as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in scripts.walk_revisions()}
    if revision is not None and revision not in known:
        raise EnvironmentTroubleError(
            f"the database {engine.url.render_as_string()} is at revision {revision!r}, "
            "which this program does not know: a newer version made it; update this program"
        )
    return revision == scripts.get_current_head()


def upgrade(engine: Engine) -> None:
    """Bring the database to this program's revision, in one transaction; a second process waits and finds it done."""
    with _sqlite_start(engine), engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})")
        command.upgrade(alembic_config(connection), "head")


@contextmanager
def _sqlite_start(engine: Engine) -> Iterator[None]:
    """Under a file lock, switch an SQLite file to WAL: unlike BEGIN, that switch does not wait for others."""
    if engine.dialect.name != "sqlite":
        yield
        return
    file = Path(str(engine.url.database)).absolute()
    with file.with_name(file.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        raw = engine.raw_connection()
        raw.cursor().execute("PRAGMA journal_mode=WAL")
        raw.close()
        yield
