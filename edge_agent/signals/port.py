"""The signal port. Invariant: the output is NG unless a clean OK was judged (fail-safe), also before the first and
after the last verdict."""

from typing import Protocol

from edge_agent.trigger import Request
from inspection.contracts import Decision, Mode, Purpose, Verdict


def clean_ok(verdict: Verdict) -> bool:
    """True only for OK of a part made on the line, in mode judge: in shadow and collect the line is answered by somebody
    else, and a part shown as a challenge is known to be bad."""
    made = verdict.purpose is Purpose.PRODUCTION
    return verdict.decision is Decision.OK and verdict.mode is Mode.JUDGE and made


class Signal(Protocol):
    """An output to the line. A slow receiver must not hold the loop up: such a back end queues."""

    def begin(self, request: Request) -> None:
        """A part is being inspected: NG, whatever the last one was. DeviceError when the line cannot be told."""

    def tell(self, verdict: Verdict) -> None:
        """Raise OK for a clean OK, NG for everything else. DeviceError when the line cannot be told."""

    def safe(self, reason: str) -> None:
        """Raise NG without a verdict: at start, at stop, on trouble."""

    def close(self) -> None:
        """Let go of connections; may be called twice."""
