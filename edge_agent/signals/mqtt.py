"""MQTT as signal: each verdict on its topic, and the output as a retained status that who comes later reads at once.

Invariants: the retained output is NG before the first verdict, from `begin` to `tell`, after the last, and whenever no
clean OK stands; a verdict is said before the OK that follows from it, whose ``id`` names it.

A message takes the time it takes: who stops a line by it compares ``at`` and ``id``, and takes silence for NG.
"""

from typing import Any

from edge_agent.broker import STATUS, VERDICT, Broker, Status
from edge_agent.signals.port import clean_ok
from edge_agent.trigger import Request
from inspection.contracts import Decision, Purpose, Verdict


class MqttSignal:
    """Says verdicts and the output. The broker belongs to who made it, and is closed after this."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def begin(self, request: Request) -> None:  # noqa: ARG002  # no part has a verdict yet, whatever its name
        """NG. DeviceError when the broker is away (it says NG itself, by the last will)."""
        self._broker.stand(Status("NG", "inspecting"))
        self._broker.check(STATUS)

    def tell(self, verdict: Verdict) -> None:
        """The verdict, then the output. DeviceError when the broker is away: said later, unless it is too old then."""
        output = "OK" if clean_ok(verdict) else "NG"
        self._broker.say(VERDICT, _document(verdict, output))
        self._broker.stand(Status(output, _why_ng(verdict) if output == "NG" else None, verdict.id))
        self._broker.check(VERDICT, STATUS)

    def safe(self, reason: str) -> None:
        """NG with its reason. DeviceError when the broker is known to be away: at the start it is only being dialled."""
        self._broker.stand(Status("NG", reason))
        if self._broker.failure is not None:
            self._broker.check(STATUS)

    def close(self) -> None:
        """Nothing: the connection is the broker's."""


def _document(verdict: Verdict, output: str) -> dict[str, Any]:
    said = verdict.model_dump(
        mode="json",
        include={
            "id",
            "part",
            "lot",
            "decision",
            "defect_class",
            "reason",
            "error_code",
            "scores",
            "captured_at",
            "sequence",
        },
    )
    return {**said, "output": output, "ms": verdict.timings_ms.get("total")}


def _why_ng(verdict: Verdict) -> str:
    if verdict.decision is not Decision.OK:
        return verdict.reason or verdict.defect_class or verdict.decision.value
    if verdict.purpose is Purpose.CHALLENGE:
        return "OK, but the part was shown as a challenge"
    return f"OK, but the station is in mode {verdict.mode.value}"
