"""Controllers that run, and a station's state."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.edge_agent.helpers import FakeHub, bundle
from tests.edge_agent.plc_servers import ModbusController, OpcUaController
from tests.edge_agent.test_loop import Rig


@pytest.fixture
def modbus() -> Iterator[ModbusController]:
    """A controller on Modbus TCP that runs. At its end: nothing it was ever told is what it may never hear."""
    plc = ModbusController()
    plc.start()
    yield plc
    plc.stop()
    assert plc.wrong == []


@pytest.fixture(scope="session")
def opcua_server() -> Iterator[OpcUaController]:
    """One for all tests: to make its address space takes seconds."""
    plc = OpcUaController()
    yield plc
    plc.end()


@pytest.fixture
def opcua(opcua_server: OpcUaController) -> Iterator[OpcUaController]:
    """A controller on OPC UA that runs, as new."""
    opcua_server.reset()
    opcua_server.start()
    yield opcua_server
    opcua_server.stop()


@pytest.fixture(params=["modbus", "opcua"])
def plc(request: pytest.FixtureRequest) -> Any:
    """Each of them."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def rig(tmp_path: Path, hub: FakeHub) -> Rig:
    """An agent's state whose hub assigns a bundle."""
    hub.assign(1, bundle())
    return Rig(tmp_path, hub)
