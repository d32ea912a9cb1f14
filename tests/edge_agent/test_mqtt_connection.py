"""Connecting to MQTT brokers, real and false: every way to fail is said in words, logged once, and tried again."""

import logging
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import pytest

from edge_agent.broker import STATUS, Broker, Status
from edge_agent.errors import DeviceError, UsageError
from edge_agent.lanes import Backoff
from edge_agent.signals.mqtt import MqttSignal
from edge_agent.trigger import Request
from edge_agent.wiring import Mqtt
from tests.edge_agent.helpers import DEVICE, STATION
from tests.edge_agent.mosquitto import Listener, Mosquitto, certificate, eventually, listener, mosquitto
from tests.edge_agent.test_asked import PATIENCE_SECONDS
from tests.edge_agent.test_mqtt import (
    STATUS_TOPIC,
    VERDICT_TOPIC,
    Held,
    another,
    connected,
    dialling,
    settings,
    wait_failure,
)
from tests.ports import free_port


def with_password(folder: Path) -> tuple[str, ...]:
    """Configuration of a broker that knows one user: press1, with the password right."""
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(folder / "passwords"), "press1", "right"], check=True)
    return ("allow_anonymous false", f"password_file {folder / 'passwords'}")


@pytest.mark.service
def test_a_wrong_password_is_said_in_words_and_the_right_one_works(tmp_path: Path) -> None:
    """Retried, since somebody may mend it at the broker; the password itself is in no message."""
    (tmp_path / "wrong").write_text("wr0ng\n")
    (tmp_path / "right").write_text("right\n")
    with mosquitto(tmp_path, *with_password(tmp_path)) as server:
        mqtt = settings(server.port, user="press1", password_file=str(tmp_path / "wrong"))
        with dialling(server.port, mqtt=mqtt) as broker:
            wait_failure(broker)
            assert "refuses us" in str(broker.failure)
            assert "check mqtt.user" in str(broker.failure)
            assert "wr0ng" not in str(broker.failure)
            with pytest.raises(DeviceError, match="refuses us"):
                MqttSignal(broker).begin(Request())
        mqtt = settings(server.port, user="press1", password_file=str(tmp_path / "right"))
        with connected(server.port, mqtt=mqtt), listener(server.port, user="press1", password="right") as ear:
            ear.wait_status(state="online", output="NG")


@pytest.mark.service
def test_what_the_access_list_forbids_is_a_line_that_was_not_told(tmp_path: Path) -> None:
    """Connected, and yet not allowed: the report names the topic, and `tell` fails."""
    (tmp_path / "access").write_text(f"topic read escapement/#\ntopic write {STATUS_TOPIC}\n")
    lines = ("allow_anonymous true", f"acl_file {tmp_path / 'access'}")
    with mosquitto(tmp_path, *lines) as server, connected(server.port) as broker:
        signal = MqttSignal(broker)
        signal.begin(Request())
        with suppress(DeviceError):  # the refusal may be back before `tell` is
            signal.tell(another(1))
        assert f"refuses {VERDICT_TOPIC}: Not authorized" in wait_failure(broker)
        signal.begin(Request())  # the status goes through
        with pytest.raises(DeviceError, match="refuses"):
            signal.tell(another(2))


@pytest.mark.service
def test_two_agents_with_one_name_are_told_so(server: Mosquitto) -> None:
    """They would throw each other out for ever, and nobody would know why."""
    held = Held()
    with connected(server.port, backoff=held) as first, connected(server.port):
        wait_failure(first)
        assert "another client" in str(first.failure)
        held.go.set()


@pytest.mark.service
def test_tls_with_the_right_certificate(tmp_path: Path) -> None:
    """Status and verdicts arrive over a connection that was checked."""
    trusted, key = certificate(tmp_path, "trusted")
    with mosquitto(tmp_path, "allow_anonymous true", f"certfile {trusted}", f"keyfile {key}") as server:
        mqtt = settings(server.port, tls=True, ca_file=str(trusted))
        with connected(server.port, mqtt=mqtt) as broker:
            for number in range(1, 100):
                MqttSignal(broker).tell(another(number))
                eventually(lambda sent=2 * number + 1: broker.health()["sent"] == sent, "all was acknowledged")


@pytest.mark.service
@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl:pytest.PytestUnraisableExceptionWarning")
def test_a_certificate_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    """No password and no verdict goes to somebody else's broker. (paho leaves the failed socket to the collector.)"""
    (other, key), (trusted, _) = certificate(tmp_path, "other"), certificate(tmp_path, "trusted")
    with mosquitto(tmp_path, "allow_anonymous true", f"certfile {other}", f"keyfile {key}") as server:
        with dialling(server.port, mqtt=settings(server.port, tls=True, ca_file=str(trusted))) as broker:
            wait_failure(broker)
            assert "no trusted connection" in str(broker.failure)
            assert not broker.connected
        with dialling(server.port) as plain:
            wait_failure(plain)
            assert "mqtt.tls" in str(plain.failure)


class Stranger:
    """Somebody at an address who is no broker, or an odd one: says something when he is spoken to, holds the line, and
    remembers what he heard. ``identity`` makes him speak TLS."""

    def __init__(self, says: bytes, identity: tuple[Path, Path] | None = None) -> None:
        self._says = says
        self._tls = None
        if identity is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*identity)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._talk)
        self.port = self._socket.getsockname()[1]
        self.heard = bytearray()

    def __enter__(self) -> "Stranger":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _talk(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
                if self._tls is not None:
                    connection = self._tls.wrap_socket(connection, server_side=True)
            except OSError:
                return
            with connection:
                connection.settimeout(PATIENCE_SECONDS)
                connection.recv(1000)
                connection.sendall(self._says)
                try:
                    while data := connection.recv(1000):
                        self.heard += data
                except OSError:
                    continue


WELCOME, TAKEN_OVER = b"\x20\x03\x00\x00\x00", b"\xe0\x02\x8e\x00"
WELCOME_TWO_AT_ONCE = b"\x20\x06\x00\x00\x03\x21\x00\x02"


@pytest.mark.service
def test_a_broker_that_takes_few_messages_at_once_gets_few() -> None:
    """It says how many; one more would be a reason to be cut off."""
    held = Held()
    with Stranger(WELCOME_TWO_AT_ONCE) as stranger, connected(stranger.port, backoff=held) as broker:
        for number in range(1, 51):
            MqttSignal(broker).tell(another(number))
        assert "acknowledged nothing" in wait_failure(broker)
        assert stranger.heard.count(b'"device"') + stranger.heard.count(b'"sequence"') == 2
        held.go.set()


@pytest.mark.service
@pytest.mark.parametrize("encrypted", [True, False])
def test_what_comes_in_one_piece_is_all_heard(tmp_path: Path, encrypted: bool) -> None:
    """Welcome and good-bye in one TLS record: what was decrypted already does not wait for more."""
    identity = certificate(tmp_path, "odd") if encrypted else None
    held = Held()
    with Stranger(WELCOME + TAKEN_OVER, identity) as stranger:
        secured = {"tls": True, "ca_file": str(identity[0])} if identity else {}
        with dialling(stranger.port, mqtt=settings(stranger.port, **secured), backoff=held) as broker:
            assert "Session taken over; another client uses this device's name" in wait_failure(broker)
            held.go.set()


@pytest.mark.parametrize(
    "says",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
        b"\x20\x02\x00\x01",  # CONNACK of MQTT 3.1.1: unacceptable protocol version
        b"\x20\x03\x00\x84\x00",  # CONNACK of MQTT 5: unsupported protocol version
        b"\x20\xff\xff\xff\xff\xff",  # a length that cannot be
        b"\x20\x06\x00\x00\x03\x21\x00",  # properties that end in the middle
    ],
    ids=["http", "silence", "mqtt 3", "refusal", "length", "cut"],
)
@pytest.mark.service
def test_an_address_that_is_no_broker_is_said_in_words(says: bytes) -> None:
    """And dialled again, whatever it says."""
    with Stranger(says) as stranger, dialling(stranger.port, backoff=Backoff(0.01, 0.02)) as broker:
        wait_failure(broker)
        assert f"127.0.0.1:{stranger.port}" in str(broker.failure)
        assert "MQTT 5" in str(broker.failure)
        assert not broker.connected


@pytest.mark.service
def test_trouble_is_logged_once_and_so_is_its_end(server: Mosquitto, caplog: pytest.LogCaptureFixture) -> None:
    """Not once per try: an outage of a night is two lines."""
    caplog.set_level(logging.INFO, "edge_agent")
    with connected(server.port, backoff=Backoff(0.01, 0.02)) as broker:
        server.kill()
        eventually(lambda: "cannot be reached" in (broker.failure or ""), "nobody answers")
        time.sleep(0.5)  # many tries
        server.start()
        eventually(lambda: broker.connected, "connected again")
    said = [(one.message, getattr(one, "reason", "")) for one in caplog.records]
    assert [message for message, _ in said].count("broker connected") == 2
    assert sum("cannot be reached" in reason for _, reason in said) == 1


@pytest.mark.service
def test_settings_that_cannot_work_are_wrong_usage(tmp_path: Path) -> None:
    """Said before anything is dialled, with what to do."""
    (tmp_path / "no.crt").write_text("no certificate")
    (tmp_path / "empty").write_text("\n")
    for wrong, words in (
        ({"prefix": "escapement/+"}, "mqtt.prefix"),
        ({"prefix": ""}, "mqtt.prefix"),
        ({"prefix": "$SYS"}, "mqtt.prefix"),
        ({"password_file": str(tmp_path / "empty"), "user": "u"}, "is empty"),
        ({"password_file": str(tmp_path / "gone"), "user": "u"}, "cannot be read"),
        ({"password_file": str(tmp_path / "empty")}, "mqtt.user"),
        ({"ca_file": str(tmp_path / "no.crt")}, "mqtt.tls"),
        ({"ca_file": str(tmp_path / "no.crt"), "tls": True}, "PEM"),
        ({"ca_file": str(tmp_path / "gone"), "tls": True}, "PEM"),
    ):
        with pytest.raises(UsageError, match=words):
            Broker(settings(1, **wrong), device=DEVICE, station=STATION)


@pytest.mark.service
def test_a_name_that_can_be_no_host_is_an_address_nobody_answers_at() -> None:
    """A typing error in the settings ends nothing."""
    for host in ("a..b", "x" * 300, "no-such-host.invalid"):
        with dialling(1, mqtt=Mqtt(host=host)) as broker:
            wait_failure(broker)
            assert "cannot be reached" in str(broker.failure)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base install has none, and says what is missing."""
    for name in ("paho", "paho.mqtt", "paho.mqtt.client"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=r"pip install paho-mqtt"):
        Broker(settings(1), device=DEVICE, station=STATION)


@pytest.mark.service
def test_a_stop_while_the_broker_is_away_ends(tmp_path: Path) -> None:
    """Nothing waits for a broker that is not there; and a connection that was never begun can be closed."""
    with dialling(free_port()) as broker:
        wait_failure(broker)
        broker.close()
        assert not broker.connected
    with dialling(free_port(), start=False):
        pass


@pytest.mark.service
def test_a_stop_does_not_hang_on_a_broker_that_hangs(server: Mosquitto, ear: Listener) -> None:
    """The last will says what could not be said."""
    with connected(server.port) as broker:
        broker.stand(Status("OK", None, "v1"))
        ear.wait_status(output="OK")
        server.hang()
        try:
            ended: Future[None] = Future()
            threading.Thread(target=lambda: ended.set_result(broker.close())).start()
            ended.result(PATIENCE_SECONDS)
        finally:
            server.go_on()
        ear.wait_status(state="offline", output="NG")
        with pytest.raises(DeviceError):
            broker.check(STATUS)
