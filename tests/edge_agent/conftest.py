"""Fixtures of the agent's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.database import Database
from edge_agent.journal import Journal
from edge_agent.outbox import Outbox
from tests.edge_agent.helpers import Authority, FakeHub
from tests.edge_agent.mosquitto import Listener, Mosquitto, listener, mosquitto


@pytest.fixture(scope="session")
def authority() -> Authority:
    """A hub's keys."""
    return Authority()


@pytest.fixture
def hub(authority: Authority) -> FakeHub:
    """A fresh fake hub."""
    return FakeHub(authority)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An open journal file."""
    opened = Database(tmp_path / "journal.db")
    yield opened
    opened.close()


@pytest.fixture
def journal(database: Database) -> Journal:
    """A journal with generous bounds."""
    return Journal(database, max_pending=1000, keep_rows=1000)


@pytest.fixture
def outbox(database: Database, tmp_path: Path) -> Outbox:
    """An outbox with generous bounds."""
    return Outbox(database, tmp_path / "outbox", max_bytes=10**9, min_free_bytes=0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker where everybody may do everything."""
    with mosquitto(tmp_path) as running:
        yield running


@pytest.fixture
def ear(server: Mosquitto) -> Iterator[Listener]:
    """Somebody who listens there from the beginning."""
    with listener(server.port) as listening:
        yield listening
