"""Asked for: somebody on the network says when (HTTP, MQTT). Also the signal that gives the answer back.

Invariants: one part at a time; who asks while another part is looked at, or before the loop goes round, is told so at
once and counted as missed (the part would have moved on); who was taken on is answered or counted, also when the agent
stops; an answer goes to who asked for it; whatever the asker does with it, the loop goes on.

After `safe` has ended the loop `take_missed` holds the last of them: whoever runs the loop counts once more then. From
there on nothing is taken on and nothing counted, since nobody would write it down, until the loop asks for what is next.
"""

import threading
import time
from concurrent.futures import Future

from edge_agent.errors import AgentError
from edge_agent.trigger.port import Request
from inspection.contracts import Verdict

MAX_NAME_CHARACTERS = 128
_WAIT_SECONDS = 0.25


class BusyError(AgentError):
    """Nobody can look at this part now (another one is looked at, or the station is starting): it was missed."""


class StoppingError(AgentError):
    """The agent stopped before this part was judged."""


class UnfitNameError(AgentError):
    """The part's or the lot's name cannot stand in a verdict: nothing was inspected, and the part was missed."""


def fit_name(name: str | None) -> str | None:
    """A part's or a lot's name as a verdict may hold it, None when it is None or blank. UnfitNameError for more than 128
    characters, and for what cannot be printed (line ends, NULs, halves of surrogate pairs)."""
    if name is None or not name.strip():
        return None
    if len(name) > MAX_NAME_CHARACTERS:
        raise UnfitNameError(f"a name has {len(name)} characters; use at most {MAX_NAME_CHARACTERS}")
    if not name.isprintable():
        raise UnfitNameError(f"the name {name!a} cannot be printed; use letters, digits, signs and spaces")
    return name


class Asked:
    """Trigger and signal in one. `ask` and `miss` may be called from any thread.

    As one of several signals it belongs first: who hears of a verdict from another one may ask for the next part at once,
    and must not be turned away because of the part that is done.
    """

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._request: Request | None = None  # asked, not yet taken by the loop
        self._answer: Future[Verdict] | None = None  # set from `ask` to `tell`
        self._missed = 0
        self._started = False  # the loop went round: before, whoever asks is missed
        self._stopped = False  # the loop was made safe and has not gone round since
        self._closed = False

    def ask(self, part: str | None = None, lot: str | None = None) -> "Future[Verdict]":
        """Ask for an inspection now; the verdict comes as the future's result, StoppingError as its exception when the
        agent stops first. The future cannot be cancelled: what was asked for is inspected, whoever still listens.

        BusyError and UnfitNameError: not inspected, and counted as missed. StoppingError: the agent stops or has stopped.
        What is called back from the future runs in the loop, so it must be quick.
        """
        with self._lock:
            if self._stopped or self._closed:
                raise StoppingError("the agent is stopping; nothing is inspected any more")
            try:
                request = self._request_for(part, lot)
            except AgentError:
                self._missed += 1
                raise
            answer: Future[Verdict] = Future()
            answer.set_running_or_notify_cancel()  # from here on it cannot be cancelled, so `tell` cannot fail on it
            self._answer, self._request = answer, request
            self._lock.notify_all()
            return answer

    def _request_for(self, part: str | None, lot: str | None) -> Request:
        request = Request(at=time.monotonic(), part=fit_name(part), lot=fit_name(lot))
        if not self._started:
            raise BusyError("the station is starting; this trigger was missed and is counted")
        if self._answer is not None:
            raise BusyError("another part is being inspected; this trigger was missed and is counted")
        return request

    def miss(self) -> None:
        """Count a trigger that nobody could understand: a part went by, and nothing was inspected."""
        with self._lock:
            if not (self._stopped or self._closed):
                self._missed += 1

    def next(self) -> Request | None:
        """What was asked for, or None after a quarter of a second."""
        with self._lock:
            self._started, self._stopped = True, False
            if self._request is None:
                self._lock.wait(_WAIT_SECONDS)
            request, self._request = self._request, None
            return request

    def take_missed(self) -> int:
        """Questions turned away since the last call."""
        with self._lock:
            missed, self._missed = self._missed, 0
            return missed

    def begin(self, request: Request) -> None:
        """Nothing: who asked waits."""

    def tell(self, verdict: Verdict) -> None:
        """Give the answer to who asked."""
        with self._lock:
            answer, self._answer = self._answer, None
        if answer is not None:
            answer.set_result(verdict)

    def safe(self, reason: str) -> None:
        """Nobody waits longer: what was asked and not judged is an error for who asked, and missed when the loop never
        took it. Unless the loop has yet to begin, everybody is turned away until it goes round again."""
        with self._lock:
            answer, self._answer = self._answer, None
            if self._request is not None:
                self._request = None
                self._missed += 1
            self._stopped = self._started
        if answer is not None:
            answer.set_exception(StoppingError(f"not inspected: {reason}"))

    def close(self) -> None:
        """Turn everybody away from now on."""
        with self._lock:
            self._closed = True
        self.safe("the agent stopped")
