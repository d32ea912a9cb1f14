"""MQTT as trigger: a message on ``<prefix>/<station>/trigger`` asks for an inspection.

It is empty, or JSON: ``{"part": "A-17", "lot": "L3"}``, both optional, other fields ignored. It is not retained: a broker
would say it again after each connection, when the part has long gone.

Invariants: nothing that is heard raises on the connection's thread; a trigger that does not end in a verdict is said on
``.../missed`` with its reason, counted as missed, and takes an OK that stands back to NG: it belonged to another part.
What is retained is said and logged, but not counted: nobody knows when it was a trigger.
"""

import logging
from concurrent.futures import Future
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from edge_agent.broker import MISSED, TRIGGER, Broker, time_now
from edge_agent.errors import AgentError
from edge_agent.trigger.asked import Asked
from edge_agent.trigger.port import Request
from inspection.contracts import Verdict

log = logging.getLogger(__name__)

MAX_TRIGGER_BYTES = 4096
_RETAINED = "the trigger was retained: nobody knows how old it is; publish triggers without the retain flag"


class UnreadableTriggerError(AgentError):
    """A message that is no trigger."""


class Wanted(BaseModel):
    """What a trigger message may say."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    part: str | None = None
    lot: str | None = None


def read_trigger(payload: bytes) -> Wanted:
    """What a message asks for. UnreadableTriggerError when it is too long, or not JSON of the right kind."""
    if len(payload) > MAX_TRIGGER_BYTES:
        raise UnreadableTriggerError(f"a trigger of {len(payload)} bytes; {MAX_TRIGGER_BYTES} are allowed")
    if not payload:
        return Wanted()
    try:
        return Wanted.model_validate_json(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UnreadableTriggerError(f"no trigger{where and f', {where}'}: {first['msg']}") from error


class MqttTrigger:
    """Asks ``asked`` for what the broker says; ``asked`` belongs among the signals, too, as the first of them."""

    def __init__(self, broker: Broker, asked: Asked) -> None:
        self._broker = broker
        self._asked = asked
        broker.listen(TRIGGER, self._heard)

    def next(self) -> Request | None:
        """What was asked for, or None after a quarter of a second."""
        return self._asked.next()

    def take_missed(self) -> int:
        """Triggers that came to nothing since the last call."""
        return self._asked.take_missed()

    def close(self) -> None:
        """Turn everybody away from now on."""
        self._asked.close()

    def _heard(self, payload: bytes, retained: bool) -> None:
        if retained:
            self._came_to_nothing(_RETAINED)
            return
        try:
            wanted = read_trigger(payload)
        except UnreadableTriggerError as error:
            self._asked.miss()
            self._came_to_nothing(str(error))
        else:
            self._ask(wanted)

    def _ask(self, wanted: Wanted) -> None:
        try:
            answer = self._asked.ask(wanted.part, wanted.lot)
        except AgentError as error:  # busy, stopping, or a name that cannot be
            self._came_to_nothing(str(error), wanted)
        else:
            answer.add_done_callback(lambda done: self._ended(done, wanted))

    def _ended(self, done: "Future[Verdict]", wanted: Wanted) -> None:
        error = done.exception()
        if error is not None:
            self._came_to_nothing(str(error), wanted)

    def _came_to_nothing(self, reason: str, wanted: Wanted | None = None) -> None:
        log.warning("trigger came to nothing", extra={"reason": reason})
        named: dict[str, Any] = {"part": None, "lot": None} if wanted is None else wanted.model_dump()
        self._broker.say(MISSED, {"reason": reason, **named, "at": time_now()})
        self._broker.doubt(f"trigger came to nothing: {reason}")
