"""The signal port. Invariant: the output is NG unless a clean OK was judged (fail-safe), also before the first and
after the last verdict."""

from typing import Protocol

from inspection.contracts import Decision, Mode, Verdict


def clean_ok(verdict: Verdict) -> bool:
    """True only for OK in mode judge; in shadow and collect the line is answered by somebody else."""
    return verdict.decision is Decision.OK and verdict.mode is Mode.JUDGE


class Signal(Protocol):
    """An output to the line."""

    def tell(self, verdict: Verdict) -> None:
        """Raise OK for a clean OK, NG for everything else. DeviceError when the line cannot be told."""

    def safe(self, reason: str) -> None:
        """Raise NG without a verdict: at start, at stop, on trouble."""
