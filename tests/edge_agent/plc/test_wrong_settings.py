"""Settings of a controller that can never work are said at the start."""

import pytest

from edge_agent.errors import UsageError
from edge_agent.plc.line import modbus_line, opcua_line
from edge_agent.wiring import Modbus, OpcUa

pytest.importorskip("pymodbus", reason="the extra plc is not installed")
pytest.importorskip("asyncua", reason="the extra plc is not installed")


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "http://plc:4840"},
        {"url": "opc.tcp://plc"},
        {"url": "opc.tcp://plc:none"},
        {"url": "opc.tcp://plc:4840", "prefix": "Inspection."},
        {"url": "opc.tcp://plc:4840", "password_file": "/nowhere/password"},
    ],
)
def test_settings_that_can_never_be_right_are_wrong_usage(settings: dict[str, str]) -> None:
    """Said at the start, not tried again for ever."""
    with pytest.raises(UsageError):
        opcua_line(OpcUa(**settings))


@pytest.mark.parametrize(("command", "result"), [(0, 32), (0, 0), (100, 63), (65_504, 0), (0, 65_500)])
def test_blocks_that_overlap_or_do_not_fit_are_wrong_usage(command: int, result: int) -> None:
    """The agent would read its own words as a trigger."""
    with pytest.raises(UsageError, match="must not overlap"):
        modbus_line(Modbus(host="plc", command_address=command, result_address=result))
