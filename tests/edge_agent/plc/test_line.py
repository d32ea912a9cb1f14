"""The line by itself, on real controllers: nobody waits for a dead one, and no OK outlives its connection."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import DeviceError
from edge_agent.plc.line import PlcLine, modbus_line, opcua_line
from edge_agent.plc.registers import Command, Data, Inputs, Status
from edge_agent.trigger import Request
from edge_agent.wiring import Modbus, OpcUa
from inspection.contracts import Decision, Mode, Purpose
from tests.edge_agent.plc.helpers import connected, request_of, verdict, wait, wired
from tests.edge_agent.plc_servers import (
    ACK,
    ERROR,
    INCONCLUSIVE,
    JUDGING,
    LINK_LOST,
    NG,
    NOT_JUDGING,
    OK,
    PATIENCE_SECONDS,
    RESULTS_READY,
    STOPPED,
    TRIGGER_READY,
    ModbusController,
    Program,
    deaf_server,
)

pytest.importorskip("pymodbus", reason="the extra plc is not installed")
pytest.importorskip("asyncua", reason="the extra plc is not installed")


def test_an_ok_that_a_dead_controller_still_holds_falls_first(plc: Any) -> None:
    """It was not acknowledged: after the restart the first thing that is written takes it down."""
    program = Program(plc)
    with wired(plc) as line:
        line.next()
        program.trigger("A")
        line.begin(request_of(line))
        line.tell(verdict())
        assert program.up(OK | RESULTS_READY)
        plc.stop()
        assert plc.get("status") & OK
        wait(lambda: not connected(line), "the loss is noticed")
        plc.start()
        program.wait(lambda: program.down(OK | RESULTS_READY) and program.up(NG | ERROR), "safe")
        program.wait(lambda: plc.get("error_code") == LINK_LOST, "said why")


def test_whoever_takes_connections_and_never_answers_holds_nobody_up() -> None:
    """Each call ends with an error or empty hands, and the report says why."""
    with deaf_server() as port:
        for line in (
            modbus_line(Modbus(host="127.0.0.1", port=port, timeout_seconds=0.2)),
            opcua_line(OpcUa(url=f"opc.tcp://127.0.0.1:{port}", timeout_seconds=0.1)),
        ):
            began = time.monotonic()
            with pytest.raises(DeviceError, match="must watch the heartbeat"):
                line.safe("starting")
            assert line.next() is None
            with pytest.raises(DeviceError):
                line.begin(Request())
            with pytest.raises(DeviceError, match="was not offered"):
                line.tell(verdict())
            assert time.monotonic() - began < 30
            wait(lambda line=line: line.worker.failure, "a reason")  # type: ignore[misc]
            assert not connected(line)
            line.close()
            assert line.next() is None


def test_a_controller_that_falls_silent_is_not_waited_for(modbus: ModbusController) -> None:
    """The verdict did not get through: `tell` says so after the time-out, and it never appears later."""
    program = Program(modbus)
    with wired(modbus, timeout_seconds=0.5) as line:
        line.next()
        program.trigger("A")
        request = request_of(line)
        line.begin(request)
        modbus.silent = True
        with pytest.raises(DeviceError, match="A"):
            line.tell(verdict())
        modbus.silent = False
        program.wait(lambda: modbus.get("error_code") == LINK_LOST and program.up(NG | ERROR), "link lost")
        assert program.down(OK | RESULTS_READY)
        modbus.put("command", 0)
        program.trigger("B")
        line.begin(request_of(line))
        line.tell(verdict("B"))
        assert program.read("B").status & OK


class Held:
    """A link whose data go out only when they are let go; remembers every status that was written."""

    def __init__(self) -> None:
        self.command = Command(0)
        self.go, self.statuses = threading.Event(), [Status(0)]
        self.go.set()

    def read(self) -> Inputs:
        """What the test says."""
        return Inputs(self.command, "A")

    def read_status(self) -> int:
        """As written."""
        return self.statuses[-1]

    def write_status(self, status: Status) -> None:
        """Remember."""
        self.statuses.append(status)

    def write_data(self, data: Data) -> None:
        """Wait until it may."""
        assert self.go.wait(PATIENCE_SECONDS)

    def write_heartbeat(self, count: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing is held open."""


def test_a_verdict_that_was_given_up_never_rises() -> None:
    """A controller that answers, but too slowly: `tell` said that it failed, so the OK is not written after that."""
    held = Held()
    line = PlcLine("PLC", lambda: held, poll_seconds=0.002, timeout_seconds=0.1)
    line.next()
    wait(lambda: Status.TRIGGER_READY in held.statuses[-1], "ready")
    held.command = Command.TRIGGER
    line.begin(request_of(line))
    wait(lambda: Status.BUSY in held.statuses[-1], "busy")
    held.go.clear()
    with pytest.raises(DeviceError, match="in time, and it is withdrawn"):
        line.tell(verdict())
    held.go.set()
    wait(lambda: Status.ERROR in held.statuses[-1], "the reason")
    line.close()
    assert not any(Status.OK in status or Status.RESULTS_READY in status for status in held.statuses)


def test_closing_tells_the_controller_even_between_two_polls() -> None:
    """The last thing that is written is NG."""
    held = Held()
    line = PlcLine("PLC", lambda: held, poll_seconds=60.0, timeout_seconds=5.0)
    line.next()
    wait(lambda: Status.TRIGGER_READY in held.statuses[-1], "ready")
    line.close()
    assert held.statuses[-1] == Status.NG | Status.ERROR


def test_closing_leaves_ng(plc: Any) -> None:
    """Also where nobody said that the line is to be safe: an OK that waits for its ack falls."""
    program = Program(plc)
    with wired(plc) as line:
        line.next()
        program.trigger("A")
        line.begin(request_of(line))
        line.tell(verdict())
        assert program.up(OK)
    assert (plc.get("status"), plc.get("error_code")) == (NG | ERROR, STOPPED)


def test_the_time_of_a_request_is_when_its_edge_was_read(modbus: ModbusController) -> None:
    """The takt runs from there, and a live camera's older frames show another part."""
    with wired(modbus) as line:
        line.next()
        before = time.monotonic()
        Program(modbus).trigger("A", "L")
        request = request_of(line)
        assert before <= request.at <= time.monotonic()
        assert (request.part, request.lot, request.frame) == ("A", "L", None)


def test_the_heart_beats_while_nothing_happens(plc: Any) -> None:
    """That is what the controller must watch."""
    with wired(plc):
        for count in (1, 2):
            wait(lambda count=count: plc.get("heartbeat") >= count, "a beat")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "bits", "code"),
    [
        ({"mode": Mode.SHADOW}, NG, NOT_JUDGING),
        ({"mode": Mode.COLLECT, "decision": Decision.INCONCLUSIVE}, NG | INCONCLUSIVE, NOT_JUDGING),
        ({"purpose": Purpose.CHALLENGE}, NG, NOT_JUDGING),
        ({"decision": Decision.ERROR, "error_code": "late"}, NG | ERROR | JUDGING, 6),
        ({"decision": Decision.ERROR, "error_code": "of a later version"}, NG | ERROR | JUDGING, 99),
        ({"decision": Decision.NG, "defect_class": "Lötfehler" * 9}, NG | JUDGING, 0),
    ],
)
def test_only_a_clean_ok_of_mode_judge_is_ok(
    modbus: ModbusController, changes: dict[str, Any], bits: int, code: int
) -> None:
    """Everything else is NG, and the controller is told why."""
    program = Program(modbus)
    with wired(modbus) as line:
        line.next()
        program.trigger("A")
        line.begin(request_of(line))
        line.tell(verdict("A", **changes))
        seen = program.read("A")
        assert (seen.status, seen.error_code) == (bits | RESULTS_READY, code)
        assert seen.defect_class == ("L?tfehler" * 9)[:32] * ("defect_class" in changes)


def test_the_status_page_hears_how_the_line_is(modbus: ModbusController) -> None:
    """Counts, heartbeat and round trips; and why, when it is not."""
    program = Program(modbus)
    with wired(modbus) as line:
        line.next()
        program.trigger("A")
        line.begin(request_of(line))
        line.tell(verdict())
        found = line.health()
        assert (found["ok"], found["failure"]) == (True, None)
        assert (found["connected"], found["accepted"], found["results"], found["missed"]) == (True, 1, 1, 0)
        assert 0 < float(found["round_trip_ms_p50"] or 0) <= float(found["round_trip_ms_p99"] or 0)
        modbus.stop()
        wait(lambda: not connected(line), "the loss is noticed")
        assert "PLC 127.0.0.1" in str(line.health()["failure"])
        assert line.health()["losses"] == 1
        assert line.health()["ok"] is False


def test_closing_twice_or_without_a_controller_is_an_end() -> None:
    """No thread stays, and nothing waits for ever."""
    line = modbus_line(Modbus(host="127.0.0.1", port=1, timeout_seconds=0.2))
    line.close()
    line.close()
    assert not line.worker._thread.is_alive()
    with pytest.raises(DeviceError, match="was ended"):
        line.safe("stopped")


def test_a_connection_that_comes_and_goes_leaves_nothing_behind(modbus: ModbusController) -> None:
    """Five losses: the same threads and descriptors as before, and the line still works."""
    program = Program(modbus)
    with wired(modbus) as line:
        line.next()
        wait(lambda: connected(line), "connected")
        threads, descriptors = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(5):
            modbus.stop()
            wait(lambda: not connected(line), "lost")
            modbus.start()
            wait(lambda: connected(line), "connected")
        assert threading.active_count() == threads
        assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors + 2
        program.trigger("A")
        line.begin(request_of(line))
        line.tell(verdict())
        assert program.read("A").status & OK
        modbus.put("command", ACK)


def test_a_controller_that_begins_anew_behind_its_server_is_noticed(plc: Any) -> None:
    """Its registers are empty and the connection stands: the line begins anew too, safe, and goes on."""
    program = Program(plc)
    with wired(plc) as line:
        line.next()
        program.trigger("A")
        line.begin(request_of(line))
        line.tell(verdict())
        assert program.up(OK)
        plc.put("command", 0)
        plc.put("status", 0)
        program.wait(lambda: program.up(NG | ERROR | TRIGGER_READY), "it is said anew")
        assert plc.get("error_code") == LINK_LOST
        assert line.health()["losses"] == 1
        program.trigger("B")
        line.begin(request_of(line))
        line.tell(verdict("B"))
        assert program.read("B").status & OK
