"""One connection to an MQTT broker, from dialling to its end; all that knows the library for it (the extra ``mqtt``).

Invariants: a client lives as long as its connection, so nothing of an old one is ever said on a new one; one thread uses
it, and others may only wake that thread; a session ends with its connection, so nobody can leave us triggers to find later.
"""

import math
import selectors
import socket
import ssl
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from edge_agent.authorities import trusted
from edge_agent.errors import UsageError
from edge_agent.wiring import Mqtt, secret

if TYPE_CHECKING:
    from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

_HELLO_SECONDS = 5.0
_ANSWER_SECONDS = 5.0
_MAX_HEARD_BYTES = 1024 * 1024
_MAX_IN_FLIGHT = 20
_WHERE = "check mqtt.host, mqtt.port and mqtt.tls"
_AGAIN_AND_AGAIN = "when that goes on, look for another client that uses this device's name"
_HINTS = {
    "Bad user name or password": "check mqtt.user and mqtt.password_file",
    "Not authorized": "check mqtt.user, mqtt.password_file and the broker's access list",
    "Session taken over": "another client uses this device's name: give each device a name of its own",
    "Unsupported protocol version": "it must speak MQTT 5",
}

MakeClient = Callable[[str, bytes], "Client"]


@dataclass(frozen=True)
class Message:
    """Something to say. ``since`` is `time.monotonic` of when it was said; what is retained does not expire."""

    topic: str
    payload: bytes
    since: float
    retained: bool = False


class Party(Protocol):
    """Who speaks and listens. All of it is called on the connection's thread."""

    @property
    def topics(self) -> Collection[str]:
        """What is listened to."""

    def came_up(self) -> None:
        """The broker has welcomed us and knows what we listen to."""

    def heard(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """A message on a topic that is listened to."""

    def acknowledged(self, message: Message, refusal: str | None) -> None:
        """The broker took a message, or says why not."""

    def subscribed(self, topic: str, refusal: str | None) -> None:
        """The broker lets us listen to a topic, or says why not."""


def dialler(settings: Mqtt, client_id: str) -> MakeClient:
    """Makes clients from the topic and the payload of the last will. UsageError when the settings cannot work."""
    paho = _library()
    _check(settings)
    password, tls = secret(settings.password_file), _tls(settings)

    def make(will_topic: str, will: bytes) -> "Client":
        client: Client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        client.connect_timeout = _HELLO_SECONDS
        client.username_pw_set(settings.user, password)
        if tls is not None:
            client.tls_set_context(tls)
        client.will_set(will_topic, will, qos=1, retain=True)
        client.on_socket_open = _at_once
        return client

    return make


def _at_once(_client: "Client", _: Any, connection: Any) -> None:
    """Small messages go out as they come: with Nagle's algorithm a verdict waits up to 40 ms for the one before it."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _library() -> Any:
    try:
        from paho.mqtt import client
    except ImportError:
        raise UsageError("paho-mqtt is not installed; pip install paho-mqtt (the extra mqtt)") from None
    return client


def _check(settings: Mqtt) -> None:
    if not settings.prefix or set("+#\0") & set(settings.prefix) or settings.prefix.startswith("$"):
        raise UsageError(f"mqtt.prefix {settings.prefix!r} is no beginning of a topic: leave out +, # and a leading $")
    if settings.password_file is not None and settings.user is None:
        raise UsageError("mqtt.password_file is set without mqtt.user; set both, or neither")
    if settings.ca_file is not None and not settings.tls:
        raise UsageError("mqtt.ca_file is set, but mqtt.tls is off; set mqtt.tls=true (its port is 8883 as a rule)")


def _tls(settings: Mqtt) -> ssl.SSLContext | None:
    if not settings.tls:
        return None
    try:
        return trusted(settings.ca_file)
    except OSError as error:  # an SSLError, too, for what is no certificate
        raise UsageError(f"mqtt.ca_file {settings.ca_file} is no certificate in PEM format ({error})") from error


def _properties(kind: str, **values: int) -> "Properties":
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    made = Properties(getattr(PacketTypes, kind))  # type: ignore[no-untyped-call]  # paho types only some of its modules
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Link:
    """One connection. ``ended`` says why, once it has; ``up`` whether the broker has welcomed us; ``flying`` what it has
    not acknowledged yet, in order; ``most`` how much may fly."""

    def __init__(self, client: "Client", party: Party, address: str) -> None:
        self._client = client
        self._party = party
        self._address = address
        self._asked: dict[int | None, str] = {}
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self.flying: dict[int, Message] = {}
        self.most = _MAX_IN_FLIGHT
        self.up = False
        self.ended: str | None = None
        self._patience = 0.0  # until when the broker must have welcomed us
        self._silent_since = 0.0  # since when it has acknowledged nothing of what flies
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message

    def dial(self, settings: Mqtt) -> None:
        """Connect, which takes at most ten seconds (after the name was looked up); `ended` when nobody is there."""
        hello = _properties("CONNECT", MaximumPacketSize=_MAX_HEARD_BYTES)
        try:
            self._client.connect(
                settings.host, settings.port, settings.keepalive_seconds, clean_start=True, properties=hello
            )
        except ssl.SSLError as error:
            self.ended = f"no trusted connection to broker {self._address}: {error}; check mqtt.ca_file and mqtt.port"
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that cannot be one
            self.ended = f"broker {self._address} cannot be reached: {error}; does it run, is the network up?"
        else:
            self._selector.register(self._socket(), selectors.EVENT_READ)
            self._patience = time.monotonic() + _HELLO_SECONDS

    def _socket(self) -> Any:
        return self._client.socket()

    def publish(self, message: Message, *, expiry_seconds: float) -> None:
        """Say it; the broker forgets it when ``expiry_seconds`` have passed since it was said here."""
        properties = None
        if not message.retained:
            left = message.since + expiry_seconds - time.monotonic()
            properties = _properties("PUBLISH", MessageExpiryInterval=max(1, math.ceil(left)))
        if not self.flying:
            self._silent_since = time.monotonic()
        said = self._client.publish(message.topic, message.payload, qos=1, retain=message.retained, properties=properties)
        self.flying[said.mid] = message

    def turn(self, seconds: float) -> None:
        """Wait for the network, at most so long, and serve it. A `wake` ends the wait."""
        connection = self._socket()
        if connection is None:
            self.ended = self.ended or f"the connection to broker {self._address} was lost"
            return
        self._selector.modify(connection, selectors.EVENT_READ | (selectors.EVENT_WRITE * self._client.want_write()))
        decrypted = isinstance(connection, ssl.SSLSocket) and connection.pending() > 0  # read already, not handed over
        ready = {key.fileobj: events for key, events in self._selector.select(0 if decrypted else seconds)}
        if self._woken in ready:
            self._woken.recv(4096)
        if decrypted or ready.get(connection, 0) & selectors.EVENT_READ:
            self._client.loop_read()
        if self._client.want_write():
            self._client.loop_write()
        self._client.loop_misc()
        self._lose_patience()

    def _lose_patience(self) -> None:
        """A broker that is stuck, or behind a cable that was pulled, says nothing: do not wait for the keepalive."""
        if self.ended is not None:
            return
        if not self.up and time.monotonic() > self._patience:
            self.ended = f"{self._address} does not answer as an MQTT 5 broker does; {_WHERE}"
        elif self.flying and time.monotonic() - self._silent_since > _ANSWER_SECONDS:
            self.ended = f"broker {self._address} acknowledged nothing for {_ANSWER_SECONDS:g} s; dialled again"

    def wake(self) -> None:
        """End the wait in `turn`, from any thread."""
        try:
            self._waker.send(b"\0")
        except BlockingIOError:
            return  # woken many times already

    def say_good_bye(self) -> None:
        """Leave, so that the broker forgets the last will."""
        self._client.disconnect()
        until = time.monotonic() + _HELLO_SECONDS
        while self._socket() is not None and time.monotonic() < until:
            self.turn(0.05)

    def close(self) -> None:
        """Cut the connection if it stands: without a good-bye the broker speaks the last will."""
        connection = self._socket()
        if connection is not None:
            connection.close()
        self._selector.close()
        self._woken.close()
        self._waker.close()

    def _on_connect(
        self, client: "Client", _: Any, _flags: "ConnectFlags", reason: "ReasonCode", properties: "Properties | None"
    ) -> None:
        if reason.is_failure:
            self.ended = f"broker {self._address} refuses us: {_with_hint(reason)}"
            return
        self.most = min(_MAX_IN_FLIGHT, getattr(properties, "ReceiveMaximum", _MAX_IN_FLIGHT))
        for topic in self._party.topics:  # before anybody reads that we are here
            self._asked[client.subscribe(topic, options=_options())[1]] = topic
        self.up = True
        self._party.came_up()

    def _on_disconnect(
        self, _client: "Client", _: Any, flags: "DisconnectFlags", reason: "ReasonCode", _properties: "Properties | None"
    ) -> None:
        if self.ended is not None:
            return
        if not self.up:
            self.ended = f"{self._address} does not answer as an MQTT 5 broker does; {_WHERE}"
        elif flags.is_disconnect_packet_from_server:
            self.ended = f"broker {self._address} hung up: {_with_hint(reason)}"
        else:
            self.ended = f"the connection to broker {self._address} was lost ({reason}); {_AGAIN_AND_AGAIN}"

    def _on_publish(self, _client: "Client", _: Any, mid: int, reason: "ReasonCode", _properties: "Properties") -> None:
        self._silent_since = time.monotonic()
        message = self.flying.pop(mid, None)
        if message is not None:
            self._party.acknowledged(message, self._refusal(message.topic, reason))

    def _on_subscribe(
        self, _client: "Client", _: Any, mid: int, reasons: "list[ReasonCode]", _properties: "Properties"
    ) -> None:
        topic = self._asked.pop(mid)
        self._party.subscribed(topic, self._refusal(topic, reasons[0]))

    def _on_message(self, _client: "Client", _: Any, message: "MQTTMessage") -> None:
        self._party.heard(message.topic, bytes(message.payload), retained=message.retain)

    def _refusal(self, topic: str, reason: "ReasonCode") -> str | None:
        return f"broker {self._address} refuses {topic}: {_with_hint(reason)}" if reason.is_failure else None


def _options() -> Any:
    from paho.mqtt.subscribeoptions import SubscribeOptions

    # As published: else a message that was to be retained comes without that mark when it is heard at once, and so does
    # the empty one that takes it back, which would look like a trigger.
    return SubscribeOptions(qos=1, retainAsPublished=True)


def _with_hint(reason: "ReasonCode") -> str:
    hint = _HINTS.get(str(reason))
    return f"{reason}; {hint}" if hint else str(reason)
