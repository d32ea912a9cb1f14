"""Every test of the store that asks for `place` or `store` runs on SQLite and on a real PostgreSQL."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from inspection.store.session import Store
from tests.store import postgres


@dataclass(frozen=True)
class Place:
    """Where a store is kept."""

    database_url: str
    blob_url: str

    def open(self, *, migrate: bool = True) -> Store:
        return Store.open(self.database_url, self.blob_url, migrate=migrate)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    folder = postgres.programs()
    if folder is None:
        pytest.skip("PostgreSQL's initdb and pg_ctl are not installed")
    with postgres.cluster(folder) as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.service)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    blobs = f"file://{tmp_path / 'blobs'}"
    if request.param == "sqlite":
        yield Place(f"sqlite:///{tmp_path / 'store.db'}", blobs)
        return
    cluster_url = request.getfixturevalue("postgres_url")
    with postgres.fresh_database(cluster_url, f"t{uuid.uuid4().hex}") as url:
        yield Place(url, blobs)


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    with place.open() as opened:
        yield opened
