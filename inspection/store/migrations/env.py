"""Alembic's environment: runs on the connection that the program hands over, or on ``-x database=URL`` by hand.

It configures no logging and reads no environment variable.
"""

from alembic import context
from sqlalchemy import Connection

from inspection.store.engine import make_engine
from inspection.store.render import render_item
from inspection.store.tables import Base


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        transactional_ddl=True,  # SQLite too: our connections begin transactions themselves
        render_item=render_item,
    )
    with context.begin_transaction():
        context.run_migrations()


def _main() -> None:
    given = context.config.attributes.get("connection")
    if given is not None:
        _run(given)
        return
    engine = make_engine(context.get_x_argument(as_dictionary=True)["database"])
    with engine.begin() as connection:
        _run(connection)
    engine.dispose()


_main()
