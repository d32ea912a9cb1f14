"""MQTT on a real Mosquitto: the line reads NG whenever no clean OK stands, and nothing that is heard breaks the agent."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from edge_agent.broker import Broker
from edge_agent.lanes import Backoff
from edge_agent.signals.mqtt import MqttSignal
from edge_agent.trigger import Request
from edge_agent.wiring import Mqtt
from inspection.contracts import Decision, Mode, Purpose, Verdict
from tests.edge_agent.helpers import DEVICE, STATION
from tests.edge_agent.mosquitto import Listener, Mosquitto, eventually, listener
from tests.edge_agent.test_asked import PATIENCE_SECONDS
from tests.edge_agent.test_journal import verdict

BASE = f"escapement/{STATION}"
TRIGGER_TOPIC, STATUS_TOPIC, VERDICT_TOPIC = f"{BASE}/trigger", f"{BASE}/status", f"{BASE}/verdict"
FOR_EVER = 3600.0


class Held(Backoff):
    """A pause that lasts until the test lets go: what happens while a broker is away can be said beforehand."""

    def __init__(self) -> None:
        super().__init__(0.01, 0.01)
        self.go = threading.Event()

    def next_seconds(self) -> float:
        """Wait, then dial at once."""
        self.go.wait(PATIENCE_SECONDS)
        return 0.05


def settings(port: int, **values: Any) -> Mqtt:
    return Mqtt(host="127.0.0.1", port=port, **values)


def wait_failure(broker: Broker) -> str:
    """Wait until something is wrong with the connection; what."""
    seen: list[str] = []

    def is_wrong() -> bool:
        seen.extend([failure] if (failure := broker.failure) else [])
        return bool(seen)

    eventually(is_wrong, "a failure")
    return seen[0]


@contextmanager
def dialling(port: int, *, start: bool = True, mqtt: Mqtt | None = None, **values: Any) -> Iterator[Broker]:
    """A broker connection that is being made; closed with the block."""
    made = Broker(mqtt or settings(port), device=DEVICE, station=STATION, **values)
    if start:
        made.start()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def connected(port: int, **values: Any) -> Iterator[Broker]:
    """A connection that stands."""
    with dialling(port, **values) as broker:
        eventually(lambda: broker.connected, "connected")
        yield broker


def another(sequence: int = 1, **values: Any) -> Verdict:
    return verdict(sequence).model_copy(update=values)


@pytest.mark.service
def test_a_verdict_is_said_once_and_the_output_stands(server: Mosquitto, ear: Listener) -> None:
    """The whole of both documents; who comes later reads the output, but no verdict."""
    told = another(scores={"good": 0.9, "dent": 0.1}, lot="L3", timings_ms={"infer": 2.0, "total": 3.5})
    with connected(server.port) as broker:
        MqttSignal(broker).tell(told)
        found = ear.wait_status(output="OK")
        assert found.pop("at")
        assert found == {"state": "online", "output": "OK", "reason": None, "id": told.id, "device": DEVICE}
        assert ear.said("/verdict") == [
            {
                "id": told.id,
                "part": "p1",
                "lot": "L3",
                "output": "OK",
                "decision": "OK",
                "defect_class": None,
                "reason": None,
                "error_code": None,
                "scores": {"good": 0.9, "dent": 0.1},
                "captured_at": "2025-01-02T03:04:05Z",
                "ms": 3.5,
                "sequence": 1,
            }
        ]
        (heard,) = [one for one in ear.heard if one.topic == VERDICT_TOPIC]
        assert heard.left_seconds is not None
        assert 0 < heard.left_seconds <= 10
        with listener(server.port) as late:
            assert late.wait_status(output="OK")["id"] == told.id
            assert [(one.topic, one.retained) for one in late.heard] == [(STATUS_TOPIC, True)]


@pytest.mark.service
def test_the_output_is_ng_before_between_and_after_clean_oks(server: Mosquitto, ear: Listener) -> None:
    """From each trigger to its verdict, and with the last word; every change that is not overtaken is said, in order."""
    with connected(server.port) as broker:
        signal = MqttSignal(broker)
        for number in (1, 2):
            signal.begin(Request())
            signal.tell(another(number))
            ear.wait_status(output="OK", id=another(number).id)
        signal.safe("stopped")
        signal.close()
    ear.wait_status(state="offline")
    found = [(one["output"], one["reason"]) for one in ear.said("/status")]
    assert found == [
        ("NG", "starting"),
        ("NG", "inspecting"),
        ("OK", None),
        ("NG", "inspecting"),
        ("OK", None),
        ("NG", "stopped"),
        ("NG", "stopped"),
    ]
    assert [one["state"] for one in ear.said("/status")] == ["online"] * 6 + ["offline"]
    ids = [another(number).id for number in (1, 2)]
    spoken = [(one.topic, one.document["id"]) for one in ear.heard if one.document["id"]]
    assert spoken == [(topic, i) for i in ids for topic in (VERDICT_TOPIC, STATUS_TOPIC)]


@pytest.mark.service
@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"decision": Decision.NG, "defect_class": "dent"}, "dent"),
        ({"decision": Decision.INCONCLUSIVE}, "INCONCLUSIVE"),
        ({"mode": Mode.SHADOW}, "OK, but the station is in mode shadow"),
        ({"purpose": Purpose.CHALLENGE}, "OK, but the part was shown as a challenge"),
    ],
)
def test_everything_but_a_clean_ok_is_ng(server: Mosquitto, ear: Listener, values: dict[str, Any], reason: str) -> None:
    """With the reason in words, on both topics."""
    with connected(server.port) as broker:
        signal = MqttSignal(broker)
        signal.tell(another(1))
        ear.wait_status(output="OK")
        signal.tell(another(2, **values))
        found = ear.wait_status(output="NG", id=another(2).id)
    assert found["reason"] == reason
    assert [one["output"] for one in ear.said("/verdict")] == ["OK", "NG"]


AGENT = """
import sys, time
from edge_agent.broker import Broker, Status
from edge_agent.wiring import Mqtt
broker = Broker(Mqtt(host="127.0.0.1", port=int(sys.argv[1])), device="cam1", station="press1")
broker.start()
broker.stand(Status("OK", None, "v1"))
time.sleep(600)
"""


@pytest.mark.service
def test_the_line_reads_ng_when_the_process_is_killed(server: Mosquitto, ear: Listener) -> None:
    """kill -9 while an OK stands: the broker itself says offline and NG, and keeps it for who comes later."""
    with subprocess.Popen([sys.executable, "-c", AGENT, str(server.port)]) as process:
        try:
            ear.wait_status(output="OK", id="v1")
        finally:
            process.kill()
    found = ear.wait_status(state="offline")
    assert found == {
        "state": "offline",
        "output": "NG",
        "reason": "the connection was lost",
        "id": None,
        "device": DEVICE,
        "at": None,
    }
    with listener(server.port) as late:
        late.wait_status(state="offline", output="NG")


@pytest.mark.service
def test_a_clean_stop_leaves_offline_and_ng_behind(server: Mosquitto, ear: Listener) -> None:
    """With its own reason, not the last will's, and after everything that was said before; closing twice is nothing."""
    with connected(server.port) as broker:
        for number in range(1, 60):
            MqttSignal(broker).tell(another(number))
        broker.close()
        broker.close()
        found = ear.wait_status(state="offline")
    assert (found["output"], found["reason"]) == ("NG", "stopped")
    assert [one["sequence"] for one in ear.said("/verdict")] == list(range(1, 60))
    with listener(server.port) as late:
        late.wait_status(state="offline", reason="stopped")
