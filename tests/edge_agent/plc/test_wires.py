"""What a controller refuses is said in words, and asked for again."""

import socket
from pathlib import Path

import pytest

from edge_agent.errors import DeviceError
from edge_agent.plc.line import modbus_line, opcua_line
from edge_agent.wiring import Modbus, OpcUa
from tests.edge_agent.plc.helpers import connected, wait, wired
from tests.edge_agent.plc_servers import PATIENCE_SECONDS, ModbusController, OpcUaController

pytest.importorskip("pymodbus", reason="the extra plc is not installed")
pytest.importorskip("asyncua", reason="the extra plc is not installed")


def test_a_controller_that_refuses_says_what_and_is_asked_again(modbus: ModbusController) -> None:
    """A wrong address or a wrong unit is a reason in words, not a silent line."""
    modbus.refuse = True
    with wired(modbus) as line:
        wait(lambda: line.worker.failure, "a reason")
        assert "refused writing 1 registers from 100: device failure" in str(line.worker.failure)
        modbus.refuse = False
        wait(lambda: connected(line), "it comes back")
        assert line.worker.failure is None
    far = Modbus(host="127.0.0.1", port=modbus.port, result_address=5000)
    line = modbus_line(far)
    wait(lambda: line.worker.failure, "a reason")
    assert "no such register" in str(line.worker.failure)
    line.close()


def test_a_connection_that_broke_is_not_mended(modbus: ModbusController) -> None:
    """The library would connect again by itself; then the handshake would go on where it must begin anew."""
    from edge_agent.plc.modbus import ModbusLink

    link = ModbusLink(Modbus(host="127.0.0.1", port=modbus.port))
    assert link.read_status() == 0
    modbus.stop()
    with pytest.raises(DeviceError):
        link.read()
    modbus.start()
    with pytest.raises(DeviceError, match="closed the connection"):
        link.read()
    link.close()


def test_a_request_is_sent_once() -> None:
    """No answer, no second try on the same connection: the time-out is what was set, not a multiple."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = modbus_line(Modbus(host="127.0.0.1", port=server.getsockname()[1], timeout_seconds=0.2))
        connection, _ = server.accept()
        connection.settimeout(PATIENCE_SECONDS)
        heard = b""
        while data := connection.recv(1000):
            heard += data
        connection.close()
        line.close()
    assert heard.hex(" ") == "00 01 00 00 00 09 01 10 00 64 00 01 02 00 10", "write 1 register from 100: NG"


def test_nodes_that_are_missing_or_of_the_wrong_type_are_named(opcua: OpcUaController) -> None:
    """Whoever wires the controller reads which one, not a number."""
    line = opcua_line(OpcUa(url=opcua.url, prefix="ns=2;s=Elsewhere."))
    wait(lambda: line.worker.failure, "a reason")
    assert "ns=2;s=Elsewhere.command (BadNodeIdUnknown)" in str(line.worker.failure)
    line.close()


def test_a_node_of_the_wrong_type_is_named_and_a_wider_number_does(opcua: OpcUaController) -> None:
    """Boolean cannot hold the status word; a DINT can hold a register."""
    line = opcua_line(OpcUa(url=opcua.url, prefix="ns=2;s=Wrong."))
    wait(lambda: line.worker.failure, "a reason")
    assert "ns=2;s=Wrong.status is Boolean" in str(line.worker.failure)
    assert "heartbeat" not in str(line.worker.failure)
    line.close()


def test_a_controller_lets_in_who_knows_the_password(opcua: OpcUaController, tmp_path: Path) -> None:
    """From a file; with a wrong one the report says that it was refused, and not the password."""
    secret = tmp_path / "password"
    opcua.user = ("agent", "s3cret")
    for password, comes_in in (("wrong", False), ("s3cret", True)):
        secret.write_text(password + "\n")
        line = opcua_line(OpcUa(url=opcua.url, user="agent", password_file=str(secret)))
        wait(lambda line=line: connected(line) or line.worker.failure, "an answer")  # type: ignore[misc]
        assert connected(line) is comes_in
        assert password not in str(line.worker.failure)
        line.close()
