"""A whole station on a real controller: every trigger is answered about its own part, or counted, or NG."""

import random
import threading
import time
from typing import Any

import pytest

from edge_agent.camera import Frame
from edge_agent.trigger.free import FreeRunning
from inspection.contracts import Decision
from tests.edge_agent.helpers import picture
from tests.edge_agent.plc.helpers import Station, asked_again, connected, frames, good, wait, wired
from tests.edge_agent.plc_servers import (
    ACK,
    BUSY,
    CLEAR,
    ERROR,
    INCONCLUSIVE,
    JUDGING,
    LINK_LOST,
    MISSED,
    NG,
    OK,
    OVERRUN,
    PATIENCE_SECONDS,
    RESULTS_READY,
    STOPPED,
    TRIGGER,
    TRIGGER_READY,
    Controller,
    ModbusController,
    OpcUaController,
    Program,
    Seen,
)
from tests.edge_agent.test_loop import Paced, Rig

pytest.importorskip("pymodbus", reason="the extra plc is not installed")
pytest.importorskip("asyncua", reason="the extra plc is not installed")

KINDS = [(OK, "", 0), (NG, "scratch", 0), (NG | INCONCLUSIVE, "scratch", 0), (NG | ERROR, "", 1)]


def check_parts(plc: Controller, rig: Rig, count: int) -> None:
    """Inspect so many parts of all kinds and compare what the controller, the journal and the ledger say."""
    program = Program(plc)
    with wired(plc) as line, Station(rig, line, frames(count)):
        for number in range(count):
            program.inspect(f"part-{number}", f"lot-{number // 10}")
    for number, seen in enumerate(program.seen):
        bits, defect, code = KINDS[number % 4]
        assert seen.status == bits | RESULTS_READY | JUDGING, seen
        assert (seen.number, seen.echo, seen.error_code) == (number + 1, seen.part, code)
        assert seen.defect_class == defect or code
    found = rig.by_part
    assert [found[f"part-{n}"].sequence for n in range(count)] == list(range(1, count + 1))
    assert {v.lot for v in found.values()} == {f"lot-{n}" for n in range(count // 10)}
    ledger = rig.ledger()
    assert (ledger.closes, ledger.missed) == (True, 0)
    assert (ledger.ok, ledger.ng, ledger.inconclusive, ledger.error) == (count // 4,) * 4


def test_two_hundred_parts_in_order_over_modbus(modbus: ModbusController, rig: Rig) -> None:
    """Each gets its own decision under its own name, and no write ever shows a status beside other data than its own."""
    check_parts(modbus, rig, 200)
    assert modbus.wrong == []


def test_parts_in_order_over_opcua(opcua: OpcUaController, rig: Rig) -> None:
    """The same words over the other wire."""
    check_parts(opcua, rig, 20)


def test_a_missed_trigger_is_seen_by_both_sides(plc: Any, rig: Rig) -> None:
    """While a part is inspected: the bit and the count for the controller, the ledger for us; clear faults clears."""
    program = Program(plc)
    with wired(plc) as line, Station(rig, line, good(2)) as station:
        program.wait(lambda: program.up(TRIGGER_READY))
        station.gate.hold()
        program.trigger("first")
        assert station.gate.inside.wait(PATIENCE_SECONDS)
        plc.put("command", 0)
        asked_again(line)
        plc.put("command", TRIGGER)
        program.wait(lambda: program.up(MISSED | BUSY), "missed")
        assert plc.get("missed_count") == 1
        station.gate.go.set()
        assert program.read("first").status == OK | RESULTS_READY | MISSED | JUDGING
        program.acknowledge()
        plc.put("command", CLEAR)
        program.wait(lambda: program.down(MISSED), "cleared")
        plc.put("command", 0)
        assert program.inspect("second").status == OK | RESULTS_READY | JUDGING
    ledger = rig.ledger()
    assert (ledger.triggers, ledger.ok, ledger.missed, ledger.closes) == (3, 2, 1, True)


def test_a_trigger_before_the_ack_takes_the_ok_back(plc: Any, rig: Rig) -> None:
    """NG, missed and overrun; nobody can read the OK as the next part's."""
    program = Program(plc)
    with wired(plc) as line, Station(rig, line, good(2)):
        program.trigger("first")
        assert program.read("first").status & OK
        plc.put("command", 0)
        asked_again(line)
        plc.put("command", TRIGGER)
        program.wait(lambda: program.up(NG | MISSED | OVERRUN), "overrun")
        assert program.down(OK | RESULTS_READY)
        plc.put("command", CLEAR)
        program.wait(lambda: program.down(MISSED | OVERRUN), "cleared")
        assert program.inspect("next").status & OK
        assert line.health()["overruns"] == 1
    assert (rig.ledger().triggers, rig.ledger().missed) == (3, 1)


def test_a_controller_that_dies_between_trigger_and_result_hears_no_ok(plc: Any, rig: Rig) -> None:
    """It comes back to NG and link lost; the verdict stands in the journal, nobody hears it, and the next part goes."""
    program = Program(plc)
    with wired(plc) as line, Station(rig, line, good(3)) as station:
        program.inspect("before")
        station.gate.hold()
        program.trigger("hit")
        assert station.gate.inside.wait(PATIENCE_SECONDS)
        plc.stop()
        wait(lambda: not connected(line), "the loss is noticed")
        assert "PLC 127.0.0.1" in str(line.worker.failure)
        plc.start()
        program.wait(lambda: program.up(NG | ERROR | BUSY) and plc.get("error_code") == LINK_LOST, "link lost")
        station.gate.go.set()
        program.wait(lambda: program.down(BUSY), "the part in hand is done")
        assert program.down(RESULTS_READY | OK)
        assert plc.get("result_number") == 1
        assert program.down(TRIGGER_READY), "the trigger is still up from before"
        plc.put("command", 0)
        assert program.inspect("after").status == OK | RESULTS_READY | JUDGING
        assert line.worker.failure is None
    assert {v.decision for v in rig.by_part.values()} == {Decision.OK}
    assert set(rig.by_part) == {"before", "hit", "after"}
    assert rig.ledger().closes


def test_an_agent_that_stops_leaves_ng(plc: Any, rig: Rig) -> None:
    """With a part in hand: its row is written, the line stays at NG with the reason, and the heart stands still."""
    program = Program(plc)
    with wired(plc) as line, Station(rig, line, good(2)) as station:
        program.inspect("first")
        station.gate.hold()
        program.trigger("last")
        assert station.gate.inside.wait(PATIENCE_SECONDS)
        station.stop.set()
    assert plc.get("status") == NG | ERROR
    assert plc.get("error_code") == STOPPED
    beats = plc.get("heartbeat")
    time.sleep(0.7)
    assert plc.get("heartbeat") == beats
    assert set(rig.by_part) == {"first", "last"}
    assert rig.ledger().closes


def test_a_trigger_that_is_up_at_the_start_is_none(plc: Any, rig: Rig) -> None:
    """The part before it may be long gone: the bit must fall and rise."""
    program = Program(plc)
    plc.put("command", TRIGGER)
    with wired(plc) as line, Station(rig, line, good(1)):
        program.wait(lambda: program.up(NG | ERROR) and plc.get("error_code") == LINK_LOST, "told that none comes")
        asked_again(line)
        assert program.down(TRIGGER_READY | BUSY | RESULTS_READY)
        plc.put("command", 0)
        assert program.inspect("one").status & OK
    assert list(rig.by_part) == ["one"]
    assert rig.ledger().triggers == 1


def test_garbage_in_the_id_registers_is_shown_and_stops_nothing(modbus: ModbusController, rig: Rig) -> None:
    """The row carries what can be seen of it; the echo is what fits a register."""
    program = Program(modbus)
    with wired(modbus) as line, Station(rig, line, good(2)):
        program.trigger("\xff\xfe\x01\x7fAB", "\x80\x00rest")
        seen = program.read("garbage")
        program.acknowledge()
        program.inspect("tidy")
    assert seen.status & OK
    assert seen.echo == "\\xff\\xfe\\x01\\x7fAB"
    assert {(v.part, v.lot) for v in rig.by_part.values()} == {("\\xff\\xfe\\x01\\x7fAB", "\\x80"), ("tidy", None)}


def test_a_controller_that_names_no_part_gets_the_camera_s_name(modbus: ModbusController, rig: Rig) -> None:
    """An empty id is no id."""
    with wired(modbus) as line, Station(rig, line, good(1)):
        assert Program(modbus).inspect("").echo == "camera's name"
    assert list(rig.by_part) == ["camera's name"]


def test_a_line_that_is_only_told_offers_what_another_trigger_asked_for(modbus: ModbusController, rig: Rig) -> None:
    """Free-running: never trigger ready; each result is offered, and the next part takes back what nobody acknowledged."""
    program = Program(modbus)
    with wired(modbus) as line:
        camera = Paced(good(1), 0.0)
        with Station(rig, line, [], trigger=FreeRunning(camera, deadline_seconds=60)):
            seen = program.read("camera's name")
            assert seen.status == OK | RESULTS_READY | JUDGING
            assert seen.echo == "camera's name"
            camera._frames.append(Frame(picture(2, scratch=255), "second"))
            program.wait(lambda: program.up(RESULTS_READY | NG | OVERRUN), "the second part")
            assert modbus.get("part_id_echo") == "second"
            program.acknowledge()
            assert program.down(TRIGGER_READY)
    assert rig.ledger().triggers == 2


def attempt(program: Program, part: str) -> Seen | None:
    """One part as a controller does it that does not wait for ever: None when no result came."""
    plc = program.plc
    until = time.monotonic() + 5.0
    while not program.up(TRIGGER_READY) and time.monotonic() < until:
        time.sleep(0.001)
    plc.put("part_id", part)
    plc.put("command", TRIGGER)
    until, seen = time.monotonic() + 1.0, None
    while time.monotonic() < until and seen is None:
        if program.down(TRIGGER_READY) and program.up(RESULTS_READY):
            seen = program.read(part)
    plc.put("command", ACK)
    program.wait(lambda: program.down(RESULTS_READY), "results ready down")
    plc.put("command", 0)
    return seen


@pytest.mark.slow
def test_thirty_deaths_of_the_controller_at_any_moment(modbus: ModbusController, rig: Rig) -> None:
    """Whatever was read as OK was that very part's OK; one row a part; the ledger closes; at the end all goes on."""
    program, done, rng = Program(modbus), threading.Event(), random.Random(1)
    half_bad = [Frame(picture(1, scratch=rng.choice((0, 255))), "camera's name") for _ in range(5000)]

    def deaths() -> None:
        for _ in range(30):
            time.sleep(rng.uniform(0.05, 0.6))
            modbus.stop()
            time.sleep(rng.uniform(0.0, 0.1))
            modbus.start()
        done.set()

    killer = threading.Thread(target=deaths)
    with wired(modbus) as line, Station(rig, line, half_bad):
        killer.start()
        number = 0
        while not done.is_set():
            number += 1
            attempt(program, f"p{number}")
        killer.join()
        assert attempt(program, "one before") or attempt(program, "last"), "at most the first was still cut off"
        counts = line.health()
    assert int(counts["losses"] or 0) > 10
    rows = rig.by_part
    assert len(rows) == rig.ledger().triggers - rig.ledger().missed == counts["accepted"]
    assert {seen.echo for seen in program.seen} <= set(rows)
    for seen in program.seen:
        assert seen.echo == seen.part
        assert bool(seen.status & OK) == (rows[seen.part].decision is Decision.OK), seen
    assert rig.ledger().closes
