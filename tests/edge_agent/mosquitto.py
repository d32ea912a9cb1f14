"""A broker on the network: a real Mosquitto on a free loopback port, and somebody who listens and speaks there."""

import datetime
import ipaddress
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.ports import free_port

PATIENCE_SECONDS = 60.0


def program() -> str:
    """Where Mosquitto is; the test is skipped when it is nowhere (and fails where nothing may skip)."""
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        pytest.skip("mosquitto is not installed")
    return found


def eventually(true: Callable[[], bool], what: str) -> None:
    """Wait until something is true; fail when it does not become so."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < until, f"not within {PATIENCE_SECONDS:g} s: {what}"
        time.sleep(0.01)


class Mosquitto:
    """A broker that can be plugged in, killed and made to hang. It keeps nothing on the disk."""

    def __init__(self, folder: Path, *lines: str) -> None:
        self.port = free_port()
        self._folder = folder
        self._lines = lines or ("allow_anonymous true",)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run, on the same port as before, and wait until it listens."""
        user = pwd.getpwuid(os.geteuid()).pw_name
        config = self._folder / "mosquitto.conf"
        general = [f"user {user}", "set_tcp_nodelay true", f"listener {self.port} 127.0.0.1"]
        config.write_text("\n".join([*general, *self._lines, ""]))
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen([program(), "-v", "-c", str(config)], stdout=log, stderr=log)
        eventually(self._listens, f"mosquitto listens: {(self._folder / 'mosquitto.log').read_text()[-2000:]}")

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "mosquitto.log").read_text()[-2000:]
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """The power is gone: nobody is told, and everything retained is forgotten."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """It holds its connections and does nothing any more."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """After `hang`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def mosquitto(folder: Path, *lines: str) -> Iterator[Mosquitto]:
    """A broker that runs. ``lines`` are its configuration (default: everybody may do everything)."""
    broker = Mosquitto(folder, *lines)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    today = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    paths[0].write_bytes(made.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


@dataclass(frozen=True)
class Heard:
    """One message; ``left_seconds`` is how long the broker would still have kept it."""

    topic: str
    payload: bytes
    retained: bool
    left_seconds: int | None

    @property
    def document(self) -> dict[str, Any]:
        """What it says."""
        found: dict[str, Any] = json.loads(self.payload)
        return found


@dataclass
class Listener:
    """Another client of the broker: remembers what it hears below a topic, and speaks."""

    client: Any
    heard: list[Heard] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def said(self, end: str) -> list[dict[str, Any]]:
        """Everything heard so far on topics with this end."""
        with self.changed:
            return [one.document for one in self.heard if one.topic.endswith(end)]

    def wait(self, true: Callable[[], bool], what: str) -> None:
        """Wait until something that was heard makes it true."""
        with self.changed:
            found = self.changed.wait_for(true, PATIENCE_SECONDS)
        assert found, f"not within {PATIENCE_SECONDS:g} s: {what}; heard {self.heard}"

    def wait_said(self, end: str, number: int) -> list[dict[str, Any]]:
        """Wait until so many messages came on topics with this end; all of them."""
        self.wait(lambda: len(self.said(end)) >= number, f"{number} on {end}")
        found = self.said(end)
        assert len(found) == number
        return found

    def wait_status(self, **values: Any) -> dict[str, Any]:
        """Wait until the newest status has these values; it."""

        def is_it() -> bool:
            found = self.said("/status")
            return bool(found) and {name: found[-1][name] for name in values} == values

        self.wait(is_it, f"status {values}")
        return self.said("/status")[-1]

    def say(self, topic: str, payload: bytes | str, *, retain: bool = False) -> None:
        """Publish, and wait until the broker has it."""
        self.client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(PATIENCE_SECONDS)


@contextmanager
def listener(port: int, topic: str = "escapement/#", *, user: str | None = None, password: str = "") -> Iterator[Listener]:
    """Somebody who listens, from when the block begins."""
    from paho.mqtt import client as paho

    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    listening, found = threading.Event(), Listener(client)

    def hear(_client: Any, _: Any, message: Any) -> None:
        left = getattr(message.properties, "MessageExpiryInterval", None)
        with found.changed:
            found.heard.append(Heard(message.topic, bytes(message.payload), message.retain, left))
            found.changed.notify_all()

    client.on_message = hear
    client.on_socket_open = lambda _client, _, opened: opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.on_connect = lambda *_: client.subscribe(topic, qos=1)
    client.on_subscribe = lambda *_: listening.set()
    client.reconnect_delay_set(1, 1)
    if user is not None:
        client.username_pw_set(user, password)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        assert listening.wait(PATIENCE_SECONDS), "the broker lets nobody listen"
        yield found
    finally:
        client.disconnect()
        client.loop_stop()
