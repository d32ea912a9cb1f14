"""Fixtures of the fault tests."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.edge_agent.helpers import Authority, FakeHub
from tests.faults.hubs import HubServer
from tests.faults.rig import Device, ending


@pytest.fixture(scope="session")
def authority() -> Authority:
    """A hub's keys."""
    return Authority()


@pytest.fixture
def server(authority: Authority) -> Iterator[HubServer]:
    """A hub on a real socket, which has assigned the first bundle."""
    hub = HubServer(FakeHub(authority))
    hub.assign(1, 1)
    yield hub
    hub.down()


@pytest.fixture
def device(tmp_path: Path, authority: Authority, server: HubServer) -> Iterator[Device]:
    """An agent enrolled there."""
    with ending(Device(tmp_path, authority, server.address)) as made:
        yield made


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Says a measured figure aloud, also when the test passes."""

    def aloud(words: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n    {request.node.name}: {words}\n")

    return aloud
