"""Where the stores of the tests are kept: an SQLite file, or a database of a private PostgreSQL cluster.

A place with the schema is a copy of one that was migrated once: that takes milliseconds where migrating takes longer than
most tests.
"""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inspection.store.session import Store
from tests.store import postgres

POSTGRES_TEMPLATE = "migrated"


@dataclass(frozen=True)
class Place:
    """Where a store is kept."""

    database_url: str
    blob_url: str

    def open(self, *, migrate: bool = True) -> Store:
        """The store there."""
        return Store.open(self.database_url, self.blob_url, migrate=migrate)


def sqlite_template(folder: Path) -> Path:
    """A migrated SQLite file that nobody has open."""
    file = folder / "migrated.db"
    Store.open(f"sqlite:///{file}", f"file://{folder}").close()
    return file


@contextmanager
def sqlite_place(folder: Path, template: Path | None) -> Iterator[Place]:
    """A file in ``folder``: a copy of ``template``, or nothing yet."""
    file = folder / "store.db"
    if template is not None:
        shutil.copyfile(template, file)
    yield Place(f"sqlite:///{file}", f"file://{folder / 'blobs'}")


@contextmanager
def postgres_cluster(bin_folder: Path) -> Iterator[str]:
    """The URL of a running cluster that holds a migrated database under the name ``POSTGRES_TEMPLATE``."""
    with postgres.cluster(bin_folder) as url, postgres.fresh_database(url, POSTGRES_TEMPLATE) as template_url:
        Store.open(template_url, "memory://").close()
        yield url


@contextmanager
def postgres_place(folder: Path, cluster_url: str, template: str | None) -> Iterator[Place]:
    """A database of its own: a copy of ``template``, or empty; dropped afterwards."""
    with postgres.fresh_database(cluster_url, f"t{uuid.uuid4().hex}", template) as url:
        yield Place(url, f"file://{folder / 'blobs'}")
