"""Shared by all tests: where real pictures and stores lie, how long faults are looked for, and that nothing skips in CI.

Whoever asks for `place` (or a `store` made of it) runs twice, on SQLite and as a service test on a real PostgreSQL, except
``ON_SQLITE_ALONE``.
"""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:  # a device's environment, where the agent's tests run too, has no database library
    from tests.store.object_store import ObjectStore
    from tests.store.places import Place

REPOSITORY = Path(__file__).parents[1]
# Modules about files, pages and arithmetic, whose few statements the other modules run on both databases.
ON_SQLITE_ALONE = {
    "tests.data.test_importers",
    "tests.data.test_products",
    "tests.hub.test_enrolment",
    "tests.hub.test_health",
    "tests.monitoring.test_watch",
}


settings.register_profile("any machine", deadline=None)  # a machine that is busy with something else fails no rule
settings.load_profile("any machine")


def faults_are_long() -> bool:
    """Whether `make faults` asked for the long sweeps (ESCAPEMENT_FAULTS=long)."""
    return os.environ.get("ESCAPEMENT_FAULTS") == "long"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real pictures (ESCAPEMENT_REAL_DATA, else ``shared/data`` beside the checkout)."""
    folder = Path(os.environ.get("ESCAPEMENT_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real pictures: {folder} does not exist (set ESCAPEMENT_REAL_DATA)")
    return folder


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the schema and no rows."""
    from tests.store.places import sqlite_template

    return sqlite_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL cluster of the tests' own, one per session."""
    from tests.store.places import postgres_cluster
    from tests.store.postgres import programs

    folder = programs()
    if folder is None:
        pytest.skip("PostgreSQL's initdb and pg_ctl are not installed")
    with postgres_cluster(folder) as url:
        yield url


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """On which databases a test with a store runs; whole sets of real pictures are slow and say nothing about SQL."""
    if "make_place" not in metafunc.fixturenames:
        return
    databases = ["sqlite", pytest.param("postgresql", marks=pytest.mark.service)]
    alone = metafunc.module.__name__ in ON_SQLITE_ALONE or metafunc.definition.get_closest_marker("real_data")
    metafunc.parametrize("make_place", databases[:1] if alone else databases, indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The circle first: with several workers it goes on beside the others, and nobody waits for it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("loop") is None)


@pytest.fixture
def make_place(request: pytest.FixtureRequest, tmp_path: Path) -> "Callable[[bool], AbstractContextManager[Place]]":
    """Makes a place of a store, with the schema (True) or without anything (False), on each database."""
    from tests.store.places import POSTGRES_TEMPLATE, postgres_place, sqlite_place

    if request.param == "sqlite":
        template = request.getfixturevalue("sqlite_template")
        return lambda migrated: sqlite_place(tmp_path, template if migrated else None)
    url = request.getfixturevalue("postgres_url")
    return lambda migrated: postgres_place(tmp_path, url, POSTGRES_TEMPLATE if migrated else None)


@pytest.fixture
def place(make_place: "Callable[[bool], AbstractContextManager[Place]]") -> "Iterator[Place]":
    """Where a store with the schema and no rows is kept, on each database."""
    with make_place(True) as made:
        yield made


@pytest.fixture
def empty_place(make_place: "Callable[[bool], AbstractContextManager[Place]]") -> "Iterator[Place]":
    """Where no store has been opened yet, on each database."""
    with make_place(False) as made:
        yield made


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[ObjectStore]":
    """An S3 of the tests' own, one per session; `s3` makes it reachable."""
    from tests.store.object_store import running

    with running(tmp_path_factory.mktemp("object-store")) as server:
        yield server


@pytest.fixture
def s3(object_store: "ObjectStore", monkeypatch: pytest.MonkeyPatch) -> "Iterator[ObjectStore]":
    """A real S3, reached by the environment of this process and of those it starts."""
    from fsspec import get_filesystem_class

    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    yield object_store
    get_filesystem_class("s3").clear_instance_cache()  # they keep the address and the credentials they began with


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With ESCAPEMENT_NO_SKIPS a skip is a failure, except for what no package installs: real pictures, the right to
    mount."""
    report = yield
    may_skip = {"real_data", "mounts"} & set(item.keywords)
    if os.environ.get("ESCAPEMENT_NO_SKIPS") and report.skipped and not may_skip:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped where nothing may skip: {report.longrepr}"
    return report
