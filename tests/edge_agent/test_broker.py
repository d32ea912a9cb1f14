"""What is said to a broker and when: an OK is told in time, or it is none. Without a network."""

import json
from typing import Any

import pytest

from edge_agent.broker import Broker, Status
from edge_agent.dialling import Message
from tests.edge_agent.helpers import DEVICE, STATION
from tests.edge_agent.test_mqtt import settings

pytest.importorskip("paho.mqtt.client", reason="the extra mqtt is not installed")

TOO_LATE = {"output": "NG", "reason": "the last OK could not be told in time", "id": None}


class Clock:
    """The time, as the test says it is."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """It."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """In place of the broker's."""
    made = Clock()
    monkeypatch.setattr("edge_agent.broker.time.monotonic", made)
    return made


@pytest.fixture
def broker(clock: Clock) -> Broker:
    """A connection that stands; its first status is out."""
    made = Broker(settings(1), device=DEVICE, station=STATION, expiry_seconds=10.0)
    made.came_up()
    assert documents(taken(made)) == [{"output": "NG", "reason": "starting", "id": None}]
    return made


def ok(clock: Clock) -> Status:
    """A clean OK of now."""
    return Status("OK", None, "v1", since=clock.now)


def taken(broker: Broker) -> list[Message]:
    """All that the connection's thread would send now."""
    found = []
    while (message := broker._next()) is not None:
        found.append(message)
    return found


def documents(messages: list[Message]) -> list[dict[str, Any]]:
    """What they say of the output, or all of it."""
    said = [json.loads(message.payload) for message in messages]
    return [{key: one[key] for key in ("output", "reason", "id")} if "output" in one else one for one in said]


def test_an_ok_that_waited_too_long_for_its_turn_is_ng(broker: Broker, clock: Clock) -> None:
    """The connection stood all the time, and was busy: the part has gone."""
    broker.stand(ok(clock))
    clock.now += 10.1
    assert documents(taken(broker)) == [TOO_LATE]


def test_an_ok_that_the_broker_took_too_late_is_ng(broker: Broker, clock: Clock) -> None:
    """Nobody knows when the line heard of it: it is taken back as soon as the broker answers."""
    broker.stand(ok(clock))
    (message,) = taken(broker)
    clock.now += 10.1
    broker.acknowledged(message, None)
    assert documents(taken(broker)) == [TOO_LATE]


def test_an_ok_that_was_told_in_time_stands(broker: Broker, clock: Clock) -> None:
    """For as long as no other part comes."""
    broker.stand(ok(clock))
    (message,) = taken(broker)
    assert documents([message]) == [{"output": "OK", "reason": None, "id": "v1"}]
    clock.now += 9.9
    broker.acknowledged(message, None)
    clock.now += 1000.0
    assert taken(broker) == []


def test_a_late_answer_about_an_older_status_takes_no_newer_one_back(broker: Broker, clock: Clock) -> None:
    """It is the present one that counts."""
    broker.stand(ok(clock))
    (message,) = taken(broker)
    clock.now += 10.1
    broker.stand(ok(clock))
    broker.acknowledged(message, None)
    assert documents(taken(broker)) == [{"output": "OK", "reason": None, "id": "v1"}]


def test_an_ok_that_was_overtaken_is_not_said(broker: Broker, clock: Clock) -> None:
    """Its part has gone, however short it waited; verdicts are said all the same, and NG between two OKs."""
    inspecting, again = {"output": "NG", "reason": "inspecting", "id": None}, {"output": "OK", "reason": None, "id": "v1"}
    broker.stand(Status("NG", "inspecting"))
    broker.say("verdict", {"n": 1})
    broker.stand(ok(clock))
    broker.stand(Status("NG", "inspecting"))
    broker.say("verdict", {"n": 2})
    broker.stand(ok(clock))
    assert documents(taken(broker)) == [inspecting, {"n": 1}, inspecting, {"n": 2}, again]
