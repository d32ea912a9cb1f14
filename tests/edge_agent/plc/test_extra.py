"""Without the extra: nothing of it is loaded, and who needs it is told its name."""

import subprocess
import sys

import pytest

from edge_agent.errors import UsageError
from edge_agent.plc.line import modbus_line, opcua_line
from edge_agent.wiring import Modbus, OpcUa


def test_the_line_loads_no_library_before_it_is_needed() -> None:
    """A station without a controller starts as fast as before."""
    code = "import sys, edge_agent.plc.line; print([m for m in ('pymodbus', 'asyncua', 'asyncio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pymodbus" not in done.stdout
    assert "asyncua" not in done.stdout


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, and with the command that installs it."""
    for module in ("pymodbus", "pymodbus.client", "asyncua"):
        monkeypatch.setitem(sys.modules, module, None)
    for module in ("edge_agent.plc.modbus", "edge_agent.plc.opcua"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(UsageError, match=r"pymodbus is not installed; pip install pymodbus"):
        modbus_line(Modbus(host="plc"))
    with pytest.raises(UsageError, match=r"asyncua is not installed; pip install asyncua"):
        opcua_line(OpcUa(url="opc.tcp://plc:4840"))
