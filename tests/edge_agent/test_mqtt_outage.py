"""Outages of a real Mosquitto: the loop goes on, nothing old is said as if it were live, and what is lost is counted."""

import time
from pathlib import Path

import pytest

from edge_agent.errors import DeviceError
from edge_agent.lanes import Backoff
from edge_agent.signals.mqtt import MqttSignal
from edge_agent.signals.several import Several
from edge_agent.trigger import Request
from edge_agent.trigger.asked import Asked
from inspection.contracts import Decision
from tests.edge_agent.helpers import FakeHub
from tests.edge_agent.mosquitto import Listener, Mosquitto, eventually, listener
from tests.edge_agent.test_asked import PATIENCE_SECONDS, Looking, station
from tests.edge_agent.test_mqtt import (
    FOR_EVER,
    STATUS_TOPIC,
    VERDICT_TOPIC,
    Held,
    another,
    connected,
    dialling,
    wait_failure,
)


@pytest.mark.service
def test_the_agent_starts_and_judges_without_a_broker(
    tmp_path: Path, hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    """The parts have their rows, the log says that the line was not told, the report says why; then the broker comes."""
    away, asked = Mosquitto(tmp_path), Asked()
    with dialling(away.port, backoff=Backoff(0.05, 0.2)) as broker:
        signal = Several([asked, MqttSignal(broker)])
        with station(tmp_path, hub, Looking(), asked, signal) as running:
            wait_failure(broker)
            running.start()
            for number in range(3):
                assert asked.ask(f"p{number}").result(PATIENCE_SECONDS).decision is Decision.OK
            running.end()
            assert running.ledger().ok == 3
        assert f"broker 127.0.0.1:{away.port} cannot be reached" in str(broker.failure)
        assert "Connection refused" in str(broker.failure)
        untold = [one.reason for one in caplog.records if one.message == "line was not told"]  # type: ignore[attr-defined]
        assert len(untold) >= 6
        assert all("cannot be reached" in reason for reason in untold)
        assert [one.message for one in caplog.records].count("broker trouble") == 1
        away.start()
        try:
            eventually(lambda: broker.connected, "connected")
            assert broker.failure is None
            with listener(away.port) as ear:
                ear.wait_status(state="online", output="NG", reason="stopped")
            assert broker.health()["ok"] is True
        finally:
            away.kill()


@pytest.mark.service
def test_a_broker_killed_and_restarted_during_a_part(server: Mosquitto) -> None:
    """The loop is not held up, hears that the line was not told, and status and verdict come with the broker."""
    held = Held()
    with connected(server.port, backoff=held, expiry_seconds=FOR_EVER) as broker:
        signal = MqttSignal(broker)
        signal.tell(another(1))
        eventually(lambda: broker.health()["sent"] == 3, "the OK was told")
        signal.begin(Request())
        eventually(lambda: broker.health()["sent"] == 4, "all was told")
        server.kill()
        wait_failure(broker)
        for number in (2, 3):
            with pytest.raises(DeviceError, match="the line was not told over MQTT"):
                signal.tell(another(number))
            with pytest.raises(DeviceError):
                signal.begin(Request())
        with pytest.raises(DeviceError):
            signal.tell(another(4))
        server.start()
        with listener(server.port) as ear:
            held.go.set()
            ear.wait_said("/verdict", 3)
            assert [one["sequence"] for one in ear.said("/verdict")] == [2, 3, 4]
            assert [(one["output"], one["id"]) for one in ear.said("/status")] == [("OK", another(4).id)]
            signal.tell(another(5))
            ear.wait_status(id=another(5).id)
        held.go.set()


@pytest.mark.service
def test_what_was_on_its_way_when_the_broker_died(server: Mosquitto) -> None:
    """Sent and not acknowledged: verdicts are said again, before what came later; an OK that was taken back is not."""
    held = Held()
    with connected(server.port, backoff=held, expiry_seconds=FOR_EVER) as broker:
        eventually(lambda: broker.health()["sent"] == 1, "the first status was told")
        server.hang()
        signal = MqttSignal(broker)
        for number in range(1, 41):
            signal.tell(another(number))
            signal.begin(Request())
        eventually(lambda: int(str(broker.health()["waiting"])) < 120, "some are on their way")
        server.kill()
        wait_failure(broker)
        server.start()
        with listener(server.port) as ear:
            held.go.set()
            said = ear.wait_said("/verdict", 40)
            assert [one["sequence"] for one in said] == list(range(1, 41))
            assert [one.topic for one in ear.heard] == [STATUS_TOPIC] + 40 * [VERDICT_TOPIC]
            assert ear.said("/status")[0]["reason"] == "inspecting"


@pytest.mark.service
def test_an_ok_that_could_not_be_told_in_time_is_ng_when_the_broker_is_back(server: Mosquitto) -> None:
    """Minutes later the part has gone: neither its verdict nor its OK is said as if it were live."""
    held = Held()
    with connected(server.port, backoff=held, expiry_seconds=0.2) as broker:
        signal = MqttSignal(broker)
        server.kill()
        wait_failure(broker)
        with pytest.raises(DeviceError):
            signal.tell(another(1))
        time.sleep(0.3)  # longer than it may wait
        server.start()
        with listener(server.port) as ear:
            held.go.set()
            found = ear.wait_status(state="online")
            assert (found["output"], found["reason"]) == ("NG", "the last OK could not be told in time")
            eventually(lambda: broker.health()["expired"] == 1, "the verdict grew too old")
            signal.begin(Request())
            signal.tell(another(2))
            ear.wait_status(output="OK", id=another(2).id)
            assert [one["sequence"] for one in ear.said("/verdict")] == [2]


@pytest.mark.service
def test_an_ok_that_stands_is_said_again_only_while_it_is_fresh(server: Mosquitto) -> None:
    """The broker came back without its memory: the same OK, with the time and the part it was given for."""
    held = Held()
    with connected(server.port, backoff=held, expiry_seconds=FOR_EVER) as broker:
        with listener(server.port) as before:
            MqttSignal(broker).tell(another(1))
            told = before.wait_status(output="OK")
        server.kill()
        wait_failure(broker)
        server.start()
        with listener(server.port) as after:
            held.go.set()
            assert after.wait_status(output="OK") == told
            assert after.said("/verdict") == []


@pytest.mark.service
def test_what_waits_is_bounded_and_what_is_dropped_is_counted(server: Mosquitto) -> None:
    """The newest are kept: the journal has them all."""
    held = Held()
    with connected(server.port, backoff=held, expiry_seconds=FOR_EVER, max_waiting=3) as broker:
        server.kill()
        wait_failure(broker)
        for number in range(1, 9):
            with pytest.raises(DeviceError):
                MqttSignal(broker).tell(another(number))
        assert (broker.health()["waiting"], broker.health()["dropped"]) == (3, 5)
        server.start()
        with listener(server.port) as ear:
            held.go.set()
            ear.wait_said("/verdict", 3)
            assert [one["sequence"] for one in ear.said("/verdict")] == [6, 7, 8]
        eventually(lambda: broker.health()["waiting"] == 0, "nothing waits")


@pytest.mark.service
def test_a_broker_that_hangs_holds_nobody_up(server: Mosquitto, ear: Listener) -> None:
    """Its silence is noticed without waiting for the keepalive; the output is NG when it wakes up again."""
    with connected(server.port, expiry_seconds=1.0, backoff=Backoff(0.05, 0.2)) as broker:
        signal = MqttSignal(broker)
        server.hang()
        try:
            for number in range(1, 100):
                signal.begin(Request())  # into the queue: nobody knows yet
                signal.tell(another(number))
            wait_failure(broker)
            assert "acknowledged nothing" in str(broker.failure) or "does not answer" in str(broker.failure)
            with pytest.raises(DeviceError):
                signal.tell(another(100))
            time.sleep(1.1)  # longer than an OK may wait
        finally:
            server.go_on()
        ear.wait_status(state="online", output="NG", reason="the last OK could not be told in time")
        signal.tell(another(101))
        ear.wait_status(output="OK", id=another(101).id)
