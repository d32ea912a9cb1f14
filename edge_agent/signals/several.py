"""Several signals as one. Invariant: one that fails, in whatever way, keeps none of the others from being told."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from edge_agent.errors import DeviceError
from edge_agent.signals.port import Signal
from edge_agent.trigger import Request
from inspection.contracts import Verdict


class Several:
    """Tells each in the given order; what failed is said in one DeviceError at the end.

    What is no DeviceError is a fault of this program: it goes on to the caller, but after the others were told, since
    the caller's last word, NG, goes the same way.
    """

    def __init__(self, signals: Sequence[Signal]) -> None:
        self._signals = tuple(signals)

    def begin(self, request: Request) -> None:
        """Tell each that a part is being inspected."""
        self._each(lambda signal: signal.begin(request))

    def tell(self, verdict: Verdict) -> None:
        """Tell each the verdict."""
        self._each(lambda signal: signal.tell(verdict))

    def safe(self, reason: str) -> None:
        """NG to each."""
        self._each(lambda signal: signal.safe(reason))

    def close(self) -> None:
        """Close each."""
        self._each(lambda signal: signal.close())

    def _each(self, call: Callable[[Signal], None]) -> None:
        failed: list[str] = []
        with ExitStack() as calls:  # it makes every call, whatever one of them raises, the last one first
            for signal in reversed(self._signals):
                calls.callback(_noting, call, signal, failed)
        if failed:
            raise DeviceError("; ".join(failed))


def _noting(call: Callable[[Signal], None], signal: Signal, failed: list[str]) -> None:
    try:
        call(signal)
    except DeviceError as error:
        failed.append(str(error))
