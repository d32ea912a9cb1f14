"""A trigger by MQTT on a real Mosquitto: what is heard is inspected, or said to have come to nothing."""

import json
import time
from pathlib import Path

import pytest

from edge_agent.signals.mqtt import MqttSignal
from edge_agent.signals.several import Several
from edge_agent.trigger import Request
from edge_agent.trigger.asked import Asked
from edge_agent.trigger.mqtt import MAX_TRIGGER_BYTES, MqttTrigger, UnreadableTriggerError, read_trigger
from tests.edge_agent.helpers import FakeHub
from tests.edge_agent.mosquitto import Listener, Mosquitto
from tests.edge_agent.test_asked import PATIENCE_SECONDS, Looking, going_round, station
from tests.edge_agent.test_mqtt import (
    TRIGGER_TOPIC,
    another,
    dialling,
)


def taken(trigger: MqttTrigger) -> Request:
    """What the trigger gives the loop next."""
    until = time.monotonic() + PATIENCE_SECONDS
    while (found := trigger.next()) is None:
        assert time.monotonic() < until, "no trigger"
    return found


@pytest.mark.service
def test_a_trigger_message_names_part_and_lot(server: Mosquitto, ear: Listener) -> None:
    """Both, one, or nothing at all; what else it says is ignored."""
    asked = going_round()
    with dialling(server.port, start=False) as broker:
        trigger = MqttTrigger(broker, asked)
        broker.start()
        ear.wait_status(state="online")
        for payload, part, lot in (
            ('{"part": "A-17", "lot": "L3", "colour": "red"}', "A-17", "L3"),
            ('{"part": "A-18"}', "A-18", None),
            ('{"part": null, "lot": ""}', None, None),
            ("{}", None, None),
            ("", None, None),
        ):
            ear.say(TRIGGER_TOPIC, payload)
            found = taken(trigger)
            assert (found.part, found.lot) == (part, lot)
            asked.tell(another())
        assert trigger.take_missed() == 0
    assert ear.said("/missed") == []


GARBAGE = [
    b"{",
    b"[]",
    b'"A-17"',
    b"null",
    b"NaN",
    b"\xff\xfe{}",
    b'{"part": 17}',
    b'{"part": ["A-17"]}',
    b'{"lot": {}}',
    b'{"part": true}',
    b'{"part": "\\ud800"}',
    b'{"part": "A\\u0000"}',
    b'{"part": "A\\n17"}',
    b'{"part": "' + b"x" * 129 + b'"}',
    b"[" * MAX_TRIGGER_BYTES,
    b'{"part": "A-17"}' + b" " * MAX_TRIGGER_BYTES,
    b"\0" * 100_000,
]


@pytest.mark.service
def test_garbage_is_said_counted_and_survived(server: Mosquitto, ear: Listener) -> None:
    """Whatever arrives on the trigger's topic: a reason on the missed topic, a count, NG; then a good one is taken."""
    asked = going_round()
    with dialling(server.port, start=False) as broker:
        trigger = MqttTrigger(broker, asked)
        broker.start()
        ear.wait_status(state="online")
        MqttSignal(broker).tell(another(1))
        ear.wait_status(output="OK")
        for number, payload in enumerate(GARBAGE, start=1):
            ear.say(TRIGGER_TOPIC, payload)
            ear.wait_said("/missed", number)
        assert all(one["reason"] and one["at"] for one in ear.said("/missed"))
        found = ear.wait_status(output="NG")  # the OK was not this part's
        assert found["reason"].startswith("trigger came to nothing: no trigger: ")
        assert trigger.take_missed() == len(GARBAGE)
        assert trigger.next() is None
        assert broker.failure is None
        ear.say(TRIGGER_TOPIC, b'{"part": "good"}')
        assert taken(trigger).part == "good"


@pytest.mark.service
def test_a_message_that_is_far_too_long_never_gets_here(server: Mosquitto, ear: Listener) -> None:
    """The broker keeps it from us, so it costs no memory; the connection goes on."""
    asked = going_round()
    with dialling(server.port, start=False) as broker:
        trigger = MqttTrigger(broker, asked)
        broker.start()
        ear.wait_status(state="online")
        ear.say(TRIGGER_TOPIC, b"x" * 3_000_000)
        ear.say(TRIGGER_TOPIC, b'{"part": "next"}')
        assert taken(trigger).part == "next"
        assert trigger.take_missed() == 0
        assert broker.failure is None


@pytest.mark.service
def test_a_retained_trigger_is_no_trigger(server: Mosquitto, ear: Listener) -> None:
    """Neither the one that lay there, nor a new one, nor the empty one that takes it back; each is said and logged."""
    ear.say(TRIGGER_TOPIC, '{"part": "stale"}', retain=True)
    asked = going_round()
    with dialling(server.port, start=False) as broker:
        trigger = MqttTrigger(broker, asked)
        broker.start()
        for number, payload in ((1, None), (2, '{"part": "kept"}'), (3, "")):
            if payload is not None:
                ear.say(TRIGGER_TOPIC, payload, retain=True)
            ear.wait_said("/missed", number)
        assert all("retained" in one["reason"] for one in ear.said("/missed"))
        assert trigger.next() is None
        assert trigger.take_missed() == 0


@pytest.mark.service
def test_who_comes_while_another_part_is_looked_at_is_missed(server: Mosquitto, ear: Listener) -> None:
    """Said with its name, counted once, and the part in the works keeps its answer; at the stop nobody is forgotten."""
    asked = going_round()
    with dialling(server.port, start=False) as broker:
        trigger = MqttTrigger(broker, asked)
        broker.start()
        ear.wait_status(state="online")
        for part in ("first", "second", "third"):
            ear.say(TRIGGER_TOPIC, json.dumps({"part": part, "lot": "L"}))
        ear.wait_said("/missed", 2)
        assert [(one["part"], one["lot"]) for one in ear.said("/missed")] == [("second", "L"), ("third", "L")]
        assert "another part is being inspected" in ear.said("/missed")[0]["reason"]
        assert trigger.take_missed() == 2
        assert taken(trigger).part == "first"
        Several([asked, MqttSignal(broker)]).safe("stopped")
        ear.wait_said("/missed", 3)
        assert ear.said("/missed")[2]["part"] == "first"
        ear.say(TRIGGER_TOPIC, '{"part": "late"}')
        ear.wait_said("/missed", 4)
        trigger.close()
        ear.say(TRIGGER_TOPIC, '{"part": "later"}')
        ear.wait_said("/missed", 5)
        assert trigger.take_missed() == 0


@pytest.mark.service
def test_two_hundred_parts_by_mqtt_alone(tmp_path: Path, hub: FakeHub, server: Mosquitto, ear: Listener) -> None:
    """Each asked for as soon as the last one's OK was heard: none missed, all in order, each its own OK, ledger closed."""
    asked = Asked()
    with dialling(server.port, start=False) as broker:
        trigger = MqttTrigger(broker, asked)
        signal = Several([asked, MqttSignal(broker)])
        broker.start()
        with station(tmp_path, hub, Looking(), trigger, signal) as running:
            running.start()
            ear.wait_status(state="online")
            for number in range(200):
                ear.say(TRIGGER_TOPIC, json.dumps({"part": f"part-{number}"}))
                said = ear.wait_said("/verdict", number + 1)
                ear.wait_status(output="OK", id=said[-1]["id"])
            assert running.end() == 200
            found = running.ledger()
        ear.wait_status(output="NG", reason="stopped")
    verdicts = ear.said("/verdict")
    assert [one["part"] for one in verdicts] == [f"part-{number}" for number in range(200)]
    assert [one["sequence"] for one in verdicts] == list(range(1, 201))
    oks = [one["id"] for one in ear.said("/status") if one["output"] == "OK"]
    assert oks == [one["id"] for one in verdicts]
    assert (found.ok, found.missed, found.closes) == (200, 0, True)
    assert ear.said("/missed") == []


def test_triggers_are_read_without_a_broker() -> None:
    """The rules alone, on the bytes: what is garbage there is garbage here, but for names, which `Asked` refuses."""
    assert read_trigger(b"").part is None
    assert read_trigger(b'{"part": "A", "lot": "B", "x": [1]}').lot == "B"
    names = {b'{"part": "A\\u0000"}', b'{"part": "A\\n17"}', GARBAGE[13]}
    for payload in GARBAGE:
        if payload not in names:
            with pytest.raises(UnreadableTriggerError):
                read_trigger(payload)
