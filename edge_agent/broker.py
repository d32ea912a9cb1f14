"""What one station says to an MQTT broker and hears from it, over a connection that is dialled again for ever.

Invariants: nobody who speaks through it waits for the network; the last will lies with the broker before anything else
is said, so that it says offline and NG when this process dies; after each connection the present status goes out first,
and no older one after it; an OK that nobody could be told within ``expiry_seconds`` is NG from then on, whether or not
the connection stood, and one that was overtaken while it waited is not said; a message that waited longer is not sent as
if it were live; what waits is bounded, and what was dropped is counted.

MQTT 5, not 3.1.1: a message carries its expiry to the broker and to whoever is away there, a broker says why it refuses,
and it is told how large a message we take, so that nobody can fill our memory. Receivers may speak 3.1.1 all the same.
Costs that a broker must be from 2019 or later (Mosquitto 1.6, HiveMQ 4). Delivery is at least once: a verdict's id says
whether it was seen before.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from edge_agent.dialling import Link, Message, dialler
from edge_agent.errors import DeviceError
from edge_agent.lanes import Backoff
from edge_agent.supervise import Worker
from edge_agent.wiring import Mqtt
from inspection.contracts import canonical_json

log = logging.getLogger(__name__)

STATUS, VERDICT, TRIGGER, MISSED = "status", "verdict", "trigger", "missed"  # under <prefix>/<station>/
Heard = Callable[[bytes, bool], None]

_LAST_WORDS_SECONDS = 1.5
_HANG_UP_SECONDS = 2.0
_LASTED_SECONDS = 5.0  # a connection that was worth its name: the next pause is short again
_LOOK_SECONDS = 0.5


def time_now() -> str:
    """The time in UTC, as it stands in messages."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class Status:
    """What the line reads of this station. ``output`` is OK or NG; ``at`` is when that began (None in the last will:
    nobody knows when a connection will be lost), ``since`` the same as `time.monotonic`."""

    output: str
    reason: str | None
    verdict_id: str | None = None
    state: str = "online"
    at: str | None = field(default_factory=time_now)
    since: float = field(default_factory=time.monotonic)


class Broker:
    """Speaks and listens under ``<prefix>/<station>/``. `listen` before `start`; all else may be called by any thread.

    UsageError when the settings cannot work, or the library is not installed.
    """

    def __init__(
        self,
        settings: Mqtt,
        *,
        device: str,
        station: str,
        expiry_seconds: float = 10.0,
        max_waiting: int = 1000,
        backoff: Backoff | None = None,
    ) -> None:
        self.address = f"{settings.host}:{settings.port}"
        self._settings = settings
        self._make_client = dialler(settings, f"escapement-{device}")
        self._device = device
        self._base = f"{settings.prefix}/{station}"
        self._expiry = expiry_seconds
        self._max_waiting = max_waiting
        self._backoff = backoff or Backoff(0.5, 5.0)
        self._listeners: dict[str, Heard] = {}
        self._lock = threading.Lock()
        self._queue: deque[Message] = deque()
        self._present = Status("NG", "starting")
        self._present_said: Message | None = None  # the message that says it, while it is on its way
        self._link: Link | None = None
        self._connected = False
        self._refused: dict[str, str] = {}  # by topic: why the broker does not take it
        self._counts = {"sent": 0, "dropped": 0, "expired": 0}
        self._leave_by: float | None = None
        self.worker = Worker("mqtt", self._step)

    def topic(self, name: str) -> str:
        """The whole topic."""
        return f"{self._base}/{name}"

    def listen(self, name: str, heard: Heard) -> None:
        """Call ``heard(payload, retained)`` for each message, on the connection's thread: quick, and raising nothing."""
        self._listeners[self.topic(name)] = heard

    def start(self) -> None:
        """Begin to dial."""
        self.worker.start()

    def say(self, name: str, document: Mapping[str, Any]) -> None:
        """Send a document, as soon as the broker is there; dropped and counted when that takes too long."""
        payload = canonical_json(dict(document))
        with self._lock:
            self._put(Message(self.topic(name), payload, time.monotonic()))

    def stand(self, status: Status) -> None:
        """From now on this is the station's status, also for who asks later. After `close` it stays offline and NG."""
        with self._lock:
            if self._leave_by is None:
                self._stand(status)

    def doubt(self, reason: str) -> None:
        """NG, if it is not NG already."""
        with self._lock:
            if self._present.output != "NG" and self._leave_by is None:
                self._stand(Status("NG", reason))

    def check(self, *names: str) -> None:
        """DeviceError when the broker cannot be told on one of these topics now."""
        with self._lock:
            connected = self._connected
            refused = [why for name in names if (why := self._refused.get(self.topic(name)))]
        if not connected:
            refused = [self.failure or f"broker {self.address} has not answered yet"]
        if refused:
            raise DeviceError(f"the line was not told over MQTT: {'; '.join(refused)}")

    @property
    def failure(self) -> str | None:
        """What is wrong with the connection, for the report; None when nothing is."""
        return self.worker.failure

    @property
    def connected(self) -> bool:
        """Whether the broker has welcomed us and the connection stands."""
        with self._lock:
            return self._connected

    def health(self) -> dict[str, str | float | int | bool | None]:
        """For the station's page: how the connection is, how many messages wait, went out, were dropped, grew too old."""
        with self._lock:
            connected, numbers = self._connected, {"waiting": len(self._queue), **self._counts}
        failure = self.failure
        ok = connected and failure is None
        return {"kind": "mqtt", "ok": ok, "broker": self.address, "connected": connected, **numbers, "failure": failure}

    def close(self) -> None:
        """Say offline and NG, and hang up; at most two seconds. What could not be said the last will says."""
        with self._lock:
            if self._leave_by is not None:
                return
            self._stand(Status("NG", "stopped", state="offline"))
            self._leave_by = time.monotonic() + _LAST_WORDS_SECONDS
            if self._link is not None:
                self._link.wake()
        self.worker.stop(_HANG_UP_SECONDS)

    # With the lock held:

    def _stand(self, status: Status) -> None:
        said = self._present_said
        if said is not None and self._present.output == "OK" and said in self._queue:
            self._queue.remove(said)  # overtaken before it was said: its part has gone
        self._present = status
        self._present_said = None
        if self._connected:  # else it is said as soon as the connection stands
            self._present_said = self._says(status)
            self._put(self._present_said)

    def _says(self, status: Status) -> Message:
        document = {"state": status.state, "output": status.output, "reason": status.reason, "id": status.verdict_id}
        payload = canonical_json({**document, "device": self._device, "at": status.at})
        return Message(self.topic(STATUS), payload, status.since, retained=True)

    def _put(self, message: Message) -> None:
        self._queue.append(message)
        self._make_room()
        if self._link is not None:
            self._link.wake()

    def _make_room(self) -> None:
        """Statuses that hold no longer go first, then the oldest messages."""
        if len(self._queue) <= self._max_waiting:
            return
        self._queue = deque(m for m in self._queue if not m.retained or m is self._present_said)
        while len(self._queue) > self._max_waiting and any(not m.retained for m in self._queue):
            self._queue.remove(next(m for m in self._queue if not m.retained))
            self._counts["dropped"] += 1

    def _too_old(self, since: float) -> bool:
        return time.monotonic() - since > self._expiry

    def _take_back_old_ok(self) -> bool:
        """NG, if an OK stands that nobody was told in time."""
        is_old = self._present.output == "OK" and self._too_old(self._present.since)
        if is_old:
            self._stand(Status("NG", "the last OK could not be told in time"))
        return is_old

    # On the connection's thread:

    def _step(self) -> float:
        """One connection, from dialling to its end; then a pause."""
        began = time.monotonic()
        with self._lock:
            will = self._says(Status("NG", "the connection was lost", state="offline", at=None))
        link = Link(self._make_client(will.topic, will.payload), self, self.address)
        try:
            self._serve(link)
        finally:
            self._lost(link)
            link.close()
        if self._leave_by is None:
            self._note(link.ended)
        if time.monotonic() - began > _LASTED_SECONDS:
            self._backoff.reset()
        return self._backoff.next_seconds()

    def _serve(self, link: Link) -> None:
        with self._lock:
            self._link = link
        link.dial(self._settings)
        while link.ended is None and not self._leaves(link):
            while link.up and len(link.flying) < link.most and (message := self._next()) is not None:
                link.publish(message, expiry_seconds=self._expiry)
            link.turn(_LOOK_SECONDS)

    def _next(self) -> Message | None:
        with self._lock:
            while self._queue:
                message = self._queue.popleft()
                if self._still_holds(message):
                    return message
            return None

    def _still_holds(self, message: Message) -> bool:
        """Whether it may be said now: no OK, and no message, that waited too long."""
        if message is self._present_said:
            return not self._take_back_old_ok()
        is_old = not message.retained and self._too_old(message.since)
        self._counts["expired"] += is_old
        return not is_old

    def _leaves(self, link: Link) -> bool:
        """Whether it is time to hang up: with a good-bye when all was said, without (so that the will speaks) when not."""
        if self._leave_by is None:
            return False
        with self._lock:
            all_said = link.up and not self._queue and not link.flying
        if all_said:
            link.say_good_bye()
        return all_said or time.monotonic() > self._leave_by

    def _lost(self, link: Link) -> None:
        """What was not acknowledged waits again, in its order; statuses do not: the present one is said anew."""
        with self._lock:
            self._link, self._connected, self._present_said = None, False, None
            self._queue = deque(m for m in (*link.flying.values(), *self._queue) if not m.retained)
            self._make_room()

    @property
    def topics(self) -> Collection[str]:
        """What is listened to."""
        return self._listeners.keys()

    def came_up(self) -> None:
        """The broker has welcomed us: the present status first, and none that was said before."""
        with self._lock:
            self._take_back_old_ok()
            self._present_said = self._says(self._present)
            self._queue = deque([self._present_said, *(m for m in self._queue if not m.retained)])
            self._refused.clear()
            self._connected = True
        log.info("broker connected", extra={"broker": self.address})
        self._note(None)

    def heard(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Hand a message to who listens."""
        self._listeners[topic](payload, retained)

    def acknowledged(self, message: Message, refusal: str | None) -> None:
        """Count what the broker took; an OK that it took too late stands no longer."""
        with self._lock:
            self._counts["sent"] += refusal is None
            if message is self._present_said:
                self._take_back_old_ok()
        self.subscribed(message.topic, refusal)

    def subscribed(self, topic: str, refusal: str | None) -> None:
        """Remember what the broker refuses."""
        with self._lock:
            self._refused.pop(topic, None)
            if refusal is not None:
                self._refused[topic] = refusal
            failure = "; ".join(self._refused.values()) or None
        self._note(failure)

    def _note(self, failure: str | None) -> None:
        if failure is not None and failure != self.worker.failure:
            log.warning("broker trouble", extra={"reason": failure})
        self.worker.note(failure)
