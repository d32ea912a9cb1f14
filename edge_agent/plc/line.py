"""The line's controller as trigger and signal: one thread owns the connection, asks, answers, and connects again.

Invariants: the controller is asked every ``poll_seconds`` also while a part is inspected, so that no trigger goes
unnoticed; what the loop says is written at once; nobody waits for a controller longer than its time-out; results ready
and OK fall before the data change and rise after them; a verdict that was not written in time is withdrawn.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from edge_agent.camera.port import Health
from edge_agent.errors import DeviceError, UsageError
from edge_agent.plc.handshake import WITHDRAWN, Handshake
from edge_agent.plc.port import Link
from edge_agent.plc.registers import Outputs, Status
from edge_agent.plc.results import result_of
from edge_agent.supervise import Worker
from edge_agent.trigger.port import Request
from edge_agent.wiring import Modbus, OpcUa, secret
from inspection.contracts import Verdict

log = logging.getLogger(__name__)

_WAIT_SECONDS = 0.25
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 2.0
_END_SECONDS = 10.0  # a connection that is being made when the agent stops is waited for so long
_KEEP_EXCHANGES = 1000
_FOR_EVER_SECONDS = 3600.0


class PlcLine:
    """Trigger and signal in one. Every public method may be called from any thread."""

    def __init__(self, name: str, open_link: Callable[[], Link], *, poll_seconds: float, timeout_seconds: float) -> None:
        """Begin to connect, in a thread. ``name`` is what people call the controller."""
        self._name = name
        self._open_link = open_link
        self._poll_seconds = poll_seconds
        self._timeout_seconds = timeout_seconds
        self._changed = threading.Condition()  # guards what follows
        self._handshake = Handshake()
        self._taken: Request | None = None
        self._fault: str | None = None
        self._losses = 0
        self._asked = self._sent = 0  # numbers of what somebody waits to be written
        self._exchanges = 0
        self._exchanges_ms: deque[float] = deque(maxlen=_KEEP_EXCHANGES)
        self._closed = False
        self._ended = threading.Event()
        self._link: Link | None = None  # this and what follows is the thread's own
        self._written: Outputs | None = None
        self._pause_seconds = 0.0
        self.worker = Worker("plc", self._step)
        self.worker.start()

    # -- the trigger ------------------------------------------------------------------------------------------------

    def next(self) -> Request | None:
        """The next accepted trigger, or None after a quarter of a second. The first call says that somebody listens."""
        with self._changed:
            if self._closed:
                self._changed.wait(_WAIT_SECONDS)
                return None
            order = self._handshake.take()
            if order is None:
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._handshake.waiting or self._closed, _WAIT_SECONDS)
                order = self._handshake.take() if self._handshake.waiting else None
            self._taken = None if order is None else Request(at=order.at, part=order.part, lot=order.lot)
            return self._taken

    def take_missed(self) -> int:
        """Rising trigger bits that found nobody ready, since the last call."""
        with self._changed:
            return self._handshake.take_missed()

    # -- the signal -------------------------------------------------------------------------------------------------

    def begin(self, request: Request) -> None:
        """Our own part: it has been NG and busy since its trigger. Another trigger's: say so now."""
        with self._changed:
            ours = request is self._taken
            self._taken = request
            if self._closed or not (self._handshake.answerable if ours else self._handshake.begin()):
                raise DeviceError(f"{self._why()}; the line cannot be told about this part, and gets no OK for it")
            if not ours:
                self._until_written(f"{self._name} did not hear in time that a part is inspected")

    def tell(self, verdict: Verdict) -> None:
        """Offer the result. DeviceError when the connection was lost since its trigger, or it was not written in time."""
        with self._changed:
            part = verdict.part
            began = time.monotonic() if self._taken is None else self._taken.at
            if not self._handshake.answer(result_of(verdict, time.monotonic() - began)):
                raise DeviceError(f"{self._why()}; the verdict about {part} was not offered, the line stays at NG")
            slow = f"{self._name} did not take the verdict about {part} in time, and it is withdrawn"
            self._until_written(f"{slow}; raise timeout_seconds if that controller is slow")

    def safe(self, reason: str) -> None:
        """NG, and no result ready, whatever stood there. DeviceError when the line cannot be told."""
        with self._changed:
            self._handshake.safe()
            self._changed.wait_for(self._is_decided, self._timeout_seconds)  # at the start it connects just now
            if not self._handshake.linked:
                raise DeviceError(f"{self._why()}; it was not told NG ({reason}), and must watch the heartbeat")
            self._until_written(f"{self._name} was not told NG in time ({reason})")

    def close(self) -> None:
        """Leave NG behind, and end the connection and the thread; may be called twice."""
        with self._changed:
            self._closed = True
            self._handshake.safe()
            self._changed.notify_all()
        self._ended.wait(_END_SECONDS)
        self.worker.stop(_END_SECONDS)

    def health(self) -> Health:
        """Connected or why not, heartbeat, milliseconds of the last exchanges, counts since the start."""
        with self._changed:
            machine, took, fault = self._handshake, sorted(self._exchanges_ms), self._fault
            return {
                "kind": "plc",
                "ok": machine.linked,
                "controller": self._name,
                "connected": machine.linked,
                "heartbeat": machine.outputs.heartbeat,
                "exchanges": self._exchanges,
                "round_trip_ms_p50": _share(took, 0.5),
                "round_trip_ms_p99": _share(took, 0.99),
                "accepted": machine.accepted,
                "results": machine.results,
                "missed": machine.missed,
                "overruns": machine.overruns,
                "losses": self._losses,
                "failure": fault,
            }

    @property
    def failure(self) -> str | None:
        """Why the controller cannot be told, in words, for the report."""
        return self.worker.failure

    def _is_decided(self) -> bool:
        return self._handshake.linked or self._fault is not None or self._closed

    def _why(self) -> str:
        if self._closed:
            return f"the connection to {self._name} was ended"
        if not self._handshake.linked:
            return self._fault or f"{self._name} is not connected yet"
        return f"{self._name} was lost, or made safe, since this part's trigger"

    def _until_written(self, otherwise: str) -> None:
        """Wait until what is said now has been written; the lock is held. DeviceError, and withdrawn, if it was not."""
        self._asked += 1
        mine, losses = self._asked, self._losses
        self._changed.notify_all()
        self._changed.wait_for(lambda: self._sent >= mine or self._losses != losses, self._timeout_seconds)
        if self._sent >= mine:
            return
        self._handshake.withdraw()
        self._changed.notify_all()
        raise DeviceError(otherwise if self._losses == losses else f"{self._why()}; {otherwise}")

    # -- the thread -------------------------------------------------------------------------------------------------

    def _step(self) -> float:
        if self._closed:
            return self._goodbye()
        try:
            link = self._link or self._connect()
            self._exchange(link)
        except DeviceError as error:
            self._lose(str(error))
        except Exception as error:
            self._lose(f"{self._name}: {type(error).__name__}: {error}")
            raise
        return 0.0

    def _connect(self) -> Link:
        """Connect, and begin safe: whatever an earlier connection left there falls first."""
        link = self._link = self._open_link()
        link.write_status(Status.NG)
        inputs = link.read()
        with self._changed:
            self._handshake.connect(inputs)
            self._fault = None
            self.worker.note(None)
        self._send(link)
        with self._changed:
            self._changed.notify_all()
        self._pause_seconds = 0.0
        log.info("controller is connected", extra={"controller": self._name})
        return link

    def _exchange(self, link: Link) -> None:
        """Ask once, and answer until it is time to ask again."""
        began = time.monotonic()
        inputs = link.read()
        now = time.monotonic()
        with self._changed:
            self._exchanges += 1
            self._exchanges_ms.append((now - began) * 1e3)
            if self._handshake.step(inputs, now):
                self._changed.notify_all()
        self._send(link)
        while self._something_new(began + self._poll_seconds):
            self._send(link)

    def _something_new(self, until: float) -> bool:
        """Wait ``until`` it is time to ask; True when there is something to say before."""
        with self._changed:
            return self._changed.wait_for(self._is_news, max(0.0, until - time.monotonic())) and not self._closed

    def _is_news(self) -> bool:
        return self._closed or self._asked != self._sent or self._handshake.outputs != self._written

    def _send(self, link: Link) -> None:
        """Write what has changed, in an order in which no status ever stands beside data it does not belong to."""
        with self._changed:
            self._handshake.beat(time.monotonic())
            new, asked = self._handshake.outputs, self._asked
        old = self._written
        status = Status.NG if old is None else old.status  # what a new connection begins with
        if old is None or new.data != old.data:
            if status & WITHDRAWN:
                status = _safe(status)
                link.write_status(status)
            link.write_data(new.data)
            new = self._still(new)
        if new.status != status:
            link.write_status(new.status)
        if old is None or new.heartbeat != old.heartbeat:
            self._check_status(link, new.status)
            link.write_heartbeat(new.heartbeat)
        self._written = new
        with self._changed:
            if self._sent != asked:
                self._sent = asked
                self._changed.notify_all()

    def _still(self, new: Outputs) -> Outputs:
        """What was taken back while its data were written must not rise after them."""
        with self._changed:
            stands = self._handshake.outputs.status == new.status
        return new if stands else replace(new, status=_safe(new.status))

    def _check_status(self, link: Link, ours: Status) -> None:
        """DeviceError when something else stands there: then this side and that one believe different things."""
        found = link.read_status()
        if found != ours:
            raise DeviceError(
                f"{self._name} holds the status {found:#x} where {int(ours):#x} was written: it began anew, or somebody "
                "else writes there too; if this comes again, look for a second agent and for blocks that overlap"
            )

    def _lose(self, reason: str) -> None:
        """Drop the connection, and wait before the next."""
        with self._changed:
            self._unlink()
            is_new, self._fault = reason != self._fault, reason
        self.worker.note(reason)
        if is_new:
            log.warning("controller is not connected", extra={"reason": reason})
        self._drop()
        self._pause_seconds = min(_LONGEST_PAUSE_SECONDS, max(_FIRST_PAUSE_SECONDS, self._pause_seconds * 2))
        with self._changed:
            self._changed.wait_for(lambda: self._closed, self._pause_seconds)

    def _unlink(self) -> None:
        """Nobody waits for this connection any more; the lock is held."""
        self._losses += self._handshake.linked
        self._handshake.lost()
        self._changed.notify_all()

    def _drop(self) -> None:
        link, self._link, self._written = self._link, None, None
        if link is not None:
            link.close()

    def _goodbye(self) -> float:
        try:
            if self._link is not None:
                self._send(self._link)
        except DeviceError as error:
            log.warning("controller was not told NG at the end", extra={"reason": str(error)})
        finally:
            self._drop()
            with self._changed:
                self._unlink()
            self._ended.set()
        return _FOR_EVER_SECONDS


def _safe(status: Status) -> Status:
    return (status & ~WITHDRAWN) | Status.NG


def _share(ordered: list[float], share: float) -> float | None:
    return round(ordered[int(share * (len(ordered) - 1))], 3) if ordered else None


def modbus_line(settings: Modbus) -> PlcLine:
    """The line of a controller that serves Modbus TCP. UsageError when pymodbus is not installed, or the blocks overlap."""
    try:
        from edge_agent.plc.modbus import ModbusLink, check
    except ModuleNotFoundError as error:
        raise _not_installed("pymodbus") from error
    check(settings)
    return PlcLine(
        f"PLC {settings.host}:{settings.port}",
        lambda: ModbusLink(settings),
        poll_seconds=settings.poll_seconds,
        timeout_seconds=settings.timeout_seconds,
    )


def opcua_line(settings: OpcUa) -> PlcLine:
    """The line of a controller that serves OPC UA. UsageError when asyncua is not installed, or a setting cannot be."""
    try:
        from edge_agent.plc.opcua import OpcUaLink, checked
    except ModuleNotFoundError as error:
        raise _not_installed("asyncua") from error
    password = secret(settings.password_file)
    return PlcLine(
        checked(settings),
        lambda: OpcUaLink(settings, password),
        poll_seconds=settings.poll_seconds,
        timeout_seconds=settings.timeout_seconds,
    )


def _not_installed(library: str) -> UsageError:
    return UsageError(f"{library} is not installed; pip install {library} (the extra plc)")
