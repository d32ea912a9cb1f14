"""Several signals as one: what one of them does is nothing to the others."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from edge_agent.errors import DeviceError
from edge_agent.signals.several import Several
from edge_agent.trigger import Request
from edge_agent.trigger.asked import Asked
from inspection.contracts import Decision, Verdict
from tests.edge_agent.helpers import FakeHub
from tests.edge_agent.test_asked import PATIENCE_SECONDS, Looking, station
from tests.edge_agent.test_journal import verdict


class Told:
    """A signal that remembers in a common list, and fails: always, or on one thing alone."""

    def __init__(self, name: str, heard: list[str], error: Exception | None = None, *, fails_on: str | None = None) -> None:
        self._name, self._heard, self._error, self._fails_on = name, heard, error, fails_on

    def _hear(self, what: str) -> None:
        self._heard.append(f"{self._name} {what}")
        if self._error is not None and self._fails_on in (None, what):
            raise self._error

    def begin(self, request: Request) -> None:
        """Remember."""
        self._hear("begin")

    def tell(self, verdict: Verdict) -> None:
        """Remember."""
        self._hear(verdict.part)

    def safe(self, reason: str) -> None:
        """Remember."""
        self._hear(reason)

    def close(self) -> None:
        """Remember."""
        self._hear("close")


def calls(several: Several) -> Sequence[Callable[[], None]]:
    return (
        lambda: several.begin(Request()),
        lambda: several.tell(verdict(1)),
        lambda: several.safe("stopped"),
        several.close,
    )


def test_several_signals_hear_everything_in_their_order() -> None:
    """What one would hear, all do."""
    heard: list[str] = []
    for call in calls(Several([Told("a", heard), Told("b", heard)])):
        call()
    assert heard == ["a begin", "b begin", "a p1", "b p1", "a stopped", "b stopped", "a close", "b close"]


def test_a_signal_that_fails_keeps_none_of_the_others_from_being_told() -> None:
    """All are told, and one error says all that failed."""
    for index in range(4):
        heard: list[str] = []
        several = Several([Told("a", heard, DeviceError("off")), Told("b", heard), Told("c", heard, DeviceError("gone"))])
        with pytest.raises(DeviceError, match=r"^off; gone$"):
            calls(several)[index]()
        assert [name[0] for name in heard] == ["a", "b", "c"]


def test_a_fault_in_one_signal_reaches_the_others_as_ng(tmp_path: Path, hub: FakeHub) -> None:
    """A bug ends the agent; the line behind the other signal, and who asked, still hear the verdict, and then NG."""
    heard: list[str] = []
    asked = Asked()
    bad = Told("bad", [], ZeroDivisionError("a bug"), fails_on="part")
    with station(tmp_path, hub, Looking(), asked, Several([bad, Told("plc", heard), asked])) as running:
        running.start()
        assert asked.ask("part").result(PATIENCE_SECONDS).decision is Decision.OK
        with pytest.raises(ZeroDivisionError):
            running.end()
    assert heard == ["plc starting", "plc begin", "plc part", "plc stopped"]
