"""The handshake: one accepted trigger per edge, and an OK only for the very part it is about."""

from edge_agent.plc.handshake import Handshake, Result
from edge_agent.plc.registers import Code, Command, Inputs, Status

LOW = Inputs()
TRIGGER, ACK, CLEAR = (Inputs(bit, "A") for bit in (Command.TRIGGER, Command.RESULTS_ACK, Command.CLEAR_FAULTS))
GOOD, BAD = Result(ok=True, judging=True, part="A"), Result(judging=True, part="A", defect_class="dent")


def ready() -> Handshake:
    """Connected, listened to, nothing under way."""
    line = Handshake()
    line.connect(LOW)
    assert line.take() is None
    return line


def inspecting() -> Handshake:
    """One part in hand."""
    line = ready()
    assert line.step(TRIGGER, 1.0)
    assert line.take() is not None
    return line


def answered(result: Result = GOOD) -> Handshake:
    """One result offered, the trigger low again."""
    line = inspecting()
    assert line.answer(result)
    line.step(LOW, 2.0)
    return line


def status(line: Handshake) -> set[str]:
    """The names of the bits that are up."""
    return {str(bit.name) for bit in Status if bit in line.outputs.status}


def test_a_good_part_goes_through() -> None:
    """Trigger, busy, OK with results ready, ack, ready again: NG whenever OK is down."""
    line = ready()
    assert status(line) == {"TRIGGER_READY", "NG"}
    assert line.step(Inputs(Command.TRIGGER, "A", "L"), 7.0)
    assert status(line) == {"BUSY", "NG"}
    order = line.take()
    assert order is not None
    assert (order.at, order.part, order.lot) == (7.0, "A", "L")
    assert line.answer(GOOD)
    assert status(line) == {"RESULTS_READY", "OK", "JUDGING"}
    assert (line.outputs.data.result_number, line.outputs.data.part_id_echo) == (1, "A")
    line.step(ACK, 8.0)
    assert status(line) == {"NG", "JUDGING"}
    line.step(LOW, 9.0)
    assert status(line) == {"TRIGGER_READY", "NG", "JUDGING"}


def test_what_is_no_clean_ok_is_ng() -> None:
    """NG, INCONCLUSIVE, ERROR with its code, and a station that does not judge."""
    assert status(answered(BAD)) == {"RESULTS_READY", "NG", "JUDGING"}
    assert status(answered(Result(inconclusive=True, judging=True))) == {"RESULTS_READY", "NG", "INCONCLUSIVE", "JUDGING"}
    late = answered(Result(code=Code.LATE, judging=True))
    assert status(late) == {"RESULTS_READY", "NG", "ERROR", "JUDGING"}
    assert late.outputs.data.error_code is Code.LATE
    shadow = answered(Result(code=Code.NOT_JUDGING))
    assert status(shadow) == {"RESULTS_READY", "NG"}
    assert shadow.outputs.data.error_code is Code.NOT_JUDGING


def test_nobody_is_ready_before_the_loop_listens() -> None:
    """From the first connection to the first `take`, and after `safe`: NG, stopped, and a trigger is missed."""
    line = Handshake()
    line.connect(LOW)
    assert status(line) == {"NG", "ERROR"}
    assert line.outputs.data.error_code is Code.STOPPED
    assert not line.step(TRIGGER, 1.0)
    assert line.take_missed() == 1
    line.take()
    line.step(LOW, 2.0)
    assert status(line) == {"NG", "TRIGGER_READY", "MISSED_ACQUISITION"}
    line.safe()
    assert status(line) == {"NG", "ERROR", "MISSED_ACQUISITION"}


def test_a_trigger_that_is_up_when_the_connection_begins_has_not_risen() -> None:
    """It must fall first; so after a restart of the agent or of the controller no part is inspected twice."""
    line = Handshake()
    line.connect(TRIGGER)
    line.take()
    assert not line.step(TRIGGER, 1.0)
    assert status(line) == {"NG", "ERROR"}
    assert line.outputs.data.error_code is Code.LINK_LOST, "whoever waits for its result must hear that none comes"
    assert (line.edges, line.missed) == (0, 0)
    line.step(LOW, 2.0)
    assert line.step(TRIGGER, 3.0)
    assert status(line) == {"NG", "BUSY"}


def test_a_trigger_that_rose_while_the_line_was_away_is_missed_and_counted() -> None:
    """Also when the connection was tried in vain between; one that stayed up all the time has not risen."""
    line = ready()
    line.lost()
    line.lost()
    line.connect(TRIGGER)
    assert (line.edges, line.take_missed()) == (1, 1)
    assert status(line) == {"NG", "ERROR", "MISSED_ACQUISITION"}
    assert line.outputs.data.error_code is Code.LINK_LOST
    assert not line.step(TRIGGER, 1.0)
    line.lost()
    line.connect(TRIGGER)
    assert (line.edges, line.take_missed()) == (1, 0)
    line.step(LOW, 2.0)
    assert line.step(TRIGGER, 3.0)


def test_a_trigger_that_stays_up_is_one() -> None:
    """An edge is accepted once, and the bit must fall before the next."""
    line = inspecting()
    assert not line.step(TRIGGER, 2.0)
    line.answer(BAD)
    line.step(Inputs(Command.TRIGGER | Command.RESULTS_ACK), 3.0)
    assert not line.step(TRIGGER, 4.0)
    assert "TRIGGER_READY" not in status(line)
    assert (line.edges, line.accepted, line.missed) == (1, 1, 0)


def test_a_trigger_while_busy_is_missed_and_latched() -> None:
    """It is counted once for the ledger, the part in hand is answered all the same, and clear faults takes the bit down."""
    line = inspecting()
    line.step(LOW, 2.0)
    assert not line.step(TRIGGER, 3.0)
    assert status(line) == {"BUSY", "NG", "MISSED_ACQUISITION"}
    assert line.answer(GOOD)
    assert status(line) == {"RESULTS_READY", "OK", "JUDGING", "MISSED_ACQUISITION"}
    assert (line.take_missed(), line.take_missed()) == (1, 0)
    line.step(CLEAR, 4.0)
    assert status(line) == {"RESULTS_READY", "OK", "JUDGING"}


def test_a_trigger_before_the_ack_takes_the_ok_back() -> None:
    """Missed and overrun: the OK would be read as the next part's."""
    line = answered()
    assert not line.step(TRIGGER, 3.0)
    assert status(line) == {"NG", "MISSED_ACQUISITION", "RESULTS_OVERRUN", "JUDGING"}
    assert (line.missed, line.overruns) == (1, 1)
    line.step(LOW, 4.0)
    assert "TRIGGER_READY" in status(line)
    line.step(CLEAR, 5.0)
    assert status(line) == {"NG", "TRIGGER_READY", "JUDGING"}


def test_a_trigger_that_rises_with_the_ack_overruns_nothing() -> None:
    """The result was acknowledged; the trigger came without trigger ready, and is missed."""
    line = answered()
    assert not line.step(Inputs(Command.TRIGGER | Command.RESULTS_ACK), 3.0)
    assert (line.missed, line.overruns) == (1, 0)


def test_clear_faults_clears_what_was_there_before_it() -> None:
    """A trigger that is missed at that very moment stays visible; a bit that stays up clears nothing more."""
    line = inspecting()
    line.step(LOW, 2.0)
    line.step(Inputs(Command.TRIGGER | Command.CLEAR_FAULTS), 3.0)
    assert "MISSED_ACQUISITION" in status(line)
    line.step(CLEAR, 4.0)
    assert "MISSED_ACQUISITION" in status(line)


def test_an_ack_that_was_up_before_the_result_acknowledges_nothing() -> None:
    """It must rise after the result."""
    line = inspecting()
    line.step(Inputs(Command.RESULTS_ACK), 2.0)
    line.answer(GOOD)
    line.step(Inputs(Command.RESULTS_ACK), 3.0)
    assert "RESULTS_READY" in status(line)
    line.step(LOW, 4.0)
    line.step(ACK, 5.0)
    assert "RESULTS_READY" not in status(line)


def test_a_part_whose_connection_was_lost_is_never_answered() -> None:
    """Neither while it is away nor after it came back; the next part is, and the reason stands until then."""
    line = inspecting()
    line.lost()
    assert status(line) == {"BUSY", "NG", "ERROR"}
    line.connect(LOW)
    assert not line.answer(GOOD)
    assert status(line) == {"NG", "ERROR", "TRIGGER_READY"}
    assert line.outputs.data.error_code is Code.LINK_LOST
    assert line.step(TRIGGER, 3.0)
    assert status(line) == {"NG", "BUSY"}
    line.take()
    assert line.answer(GOOD)
    assert "OK" in status(line)


def test_an_accepted_trigger_that_was_not_taken_before_the_loss_is_inspected_and_not_answered() -> None:
    """It was counted, so it gets its row; nobody hears it."""
    line = ready()
    line.step(TRIGGER, 1.0)
    line.lost()
    line.connect(LOW)
    assert line.take() is not None
    assert not line.answerable
    assert not line.answer(GOOD)


def test_a_result_that_was_not_acknowledged_is_gone_after_a_loss() -> None:
    """NG, link lost; clear faults ends it."""
    line = answered()
    line.lost()
    line.connect(LOW)
    assert status(line) == {"NG", "ERROR", "TRIGGER_READY", "JUDGING"}
    assert line.outputs.data.error_code is Code.LINK_LOST
    line.step(CLEAR, 3.0)
    assert status(line) == {"NG", "TRIGGER_READY", "JUDGING"}


def test_nothing_is_heard_without_a_connection() -> None:
    """What is read before it is up, or after it was lost, is no edge."""
    line = Handshake()
    line.take()
    assert not line.step(TRIGGER, 1.0)
    assert line.edges == 0


def test_who_waits_in_vain_hears_so_also_when_the_agent_only_starts() -> None:
    """A trigger that was up at the start: stopped first, then link lost, until the next trigger is accepted."""
    line = Handshake()
    line.connect(TRIGGER)
    line.safe()
    codes = [line.outputs.data.error_code]
    line.take()
    codes.append(line.outputs.data.error_code)
    assert codes == [Code.STOPPED, Code.LINK_LOST]
    line.step(CLEAR, 1.0)
    assert status(line) == {"NG", "TRIGGER_READY"}


def test_an_idle_line_loses_nothing_with_its_connection() -> None:
    """No part was in flight: no error."""
    line = ready()
    line.lost()
    line.connect(LOW)
    assert status(line) == {"NG", "TRIGGER_READY"}


def test_safe_leaves_ng_and_an_untaken_trigger_is_missed_after_all() -> None:
    """At the end the loop takes no part any more; the count still closes."""
    line = ready()
    line.step(TRIGGER, 1.0)
    line.safe()
    assert status(line) == {"NG", "ERROR", "MISSED_ACQUISITION"}
    assert (line.edges, line.accepted, line.missed) == (1, 0, 1)
    offered = answered()
    offered.safe()
    assert status(offered) == {"NG", "ERROR"}


def test_a_result_that_did_not_get_through_is_withdrawn() -> None:
    """What the loop was told had failed must not appear later."""
    line = inspecting()
    line.answer(GOOD)
    line.withdraw()
    assert status(line) == {"NG", "ERROR", "JUDGING"}
    assert line.outputs.data.error_code is Code.LINK_LOST


def test_another_trigger_s_part_is_answered_too() -> None:
    """Signal alone: no trigger ready; the next part takes back what was not acknowledged."""
    line = Handshake()
    line.connect(LOW)
    assert line.begin()
    assert status(line) == {"BUSY", "NG"}
    assert line.answer(GOOD)
    assert status(line) == {"RESULTS_READY", "OK", "JUDGING"}
    assert line.begin()
    assert status(line) == {"BUSY", "NG", "RESULTS_OVERRUN", "JUDGING"}
    line.lost()
    assert not line.answer(GOOD)
    assert not line.begin()


def test_the_heart_beats_twice_a_second_and_goes_round() -> None:
    """A register holds it."""
    line = Handshake()
    line.beat(10.0)
    for now, count in ((10.4, 1), (10.5, 2), (10.9, 2), (11.0, 3)):
        line.beat(now)
        assert line.outputs.heartbeat == count
    for more in range(65_535 - 3):
        line.beat(12.0 + more)
    assert line.outputs.heartbeat == 65535
    line.beat(1e6)
    assert line.outputs.heartbeat == 0
