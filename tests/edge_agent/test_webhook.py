"""Verdicts posted to a real HTTP server that fails as servers do: in their order, never held up by it, none uncounted."""

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from edge_agent.errors import UsageError
from edge_agent.lanes import Backoff
from edge_agent.signals.webhook import WebhookSignal
from edge_agent.trigger import Request
from edge_agent.trigger.asked import Asked
from edge_agent.wiring import Webhook
from inspection.contracts import Verdict
from tests.edge_agent.helpers import FakeHub
from tests.edge_agent.mosquitto import eventually
from tests.edge_agent.receiver import Receiver, receiving
from tests.edge_agent.test_asked import PATIENCE_SECONDS, Looking, station
from tests.edge_agent.test_journal import verdict
from tests.ports import free_port


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that takes everything."""
    with receiving() as made:
        yield made


@contextlib.contextmanager
def posting(url: str, **values: Any) -> Iterator[WebhookSignal]:
    """A webhook to that address, with short pauses."""
    made = WebhookSignal(Webhook(url=url, **values), backoff=Backoff(0.01, 0.05))
    try:
        yield made
    finally:
        made.close()


def wait_count(signal: WebhookSignal, **counts: int) -> None:
    eventually(lambda: {k: signal.health()[k] for k in counts} == counts, f"{counts}; {signal.health()}")


def wait_failure(signal: WebhookSignal) -> str:
    eventually(lambda: signal.failure is not None, "a failure")
    return str(signal.failure)


def test_each_verdict_is_posted_in_its_order(receiver: Receiver, tmp_path: Path) -> None:
    """As canonical JSON, under its id, with the token; between verdicts nothing is posted."""
    (tmp_path / "token").write_text("s3cret\n")
    with posting(receiver.url, token_file=str(tmp_path / "token")) as signal:
        signal.safe("starting")
        for number in range(1, 31):
            signal.begin(Request())
            signal.tell(verdict(number))
        signal.safe("stopped")
        wait_count(signal, posted=30, waiting=0)
        assert signal.health() == {
            "kind": "webhook",
            "ok": True,
            "to": f"http://127.0.0.1:{receiver.port}",
            "waiting": 0,
            "posted": 30,
            "dropped": 0,
            "refused": 0,
            "failure": None,
        }
    assert [post.body for post in receiver.posts] == [verdict(number).canonical() for number in range(1, 31)]
    assert [post.key for post in receiver.posts] == [Verdict.parse(post.body).id for post in receiver.posts]
    first = receiver.posts[0]
    assert (first.path, first.headers["content-type"]) == ("/verdicts", "application/json")
    assert first.headers["authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("status", [500, 502, 503, 408, 429])
def test_a_receiver_that_cannot_now_is_asked_again_in_order(receiver: Receiver, status: int) -> None:
    """The same bytes under the same key, and nobody overtakes."""
    receiver.answer = lambda number: status if number < 3 else 200
    with posting(receiver.url) as signal:
        for number in (1, 2, 3):
            signal.tell(verdict(number))
        wait_count(signal, posted=3, waiting=0, dropped=0, refused=0)
        assert signal.failure is None
    assert [json.loads(post.body)["sequence"] for post in receiver.posts] == [1, 1, 1, 1, 2, 3]
    assert len({(post.key, post.body) for post in receiver.posts[:4]}) == 1


def test_a_receiver_that_comes_later_gets_what_waited() -> None:
    """Nobody there: said in words, logged once, delivered when somebody is."""
    port = free_port()
    with posting(f"http://127.0.0.1:{port}/hook") as signal:
        for number in (1, 2, 3):
            signal.tell(verdict(number))
        failure = wait_failure(signal)
        assert "cannot be reached" in failure
        assert "ConnectError" in failure
        assert signal.health()["ok"] is False
        with receiving(port) as late:
            wait_count(signal, posted=3, waiting=0)
            assert signal.failure is None
            assert [json.loads(post.body)["sequence"] for post in late.posts] == [1, 2, 3]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
def test_what_is_refused_for_good_is_dropped_counted_and_logged(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """It stands in nobody's way, and the report says it until another one passes."""
    receiver.answer = lambda number: status if number == 0 else 200
    with posting(receiver.url) as signal:
        signal.tell(verdict(1))
        wait_count(signal, refused=1, waiting=0)
        assert f"answered {status}" in wait_failure(signal)
        signal.tell(verdict(2))
        wait_count(signal, posted=1, refused=1, dropped=0)
        eventually(lambda: signal.failure is None, "well again")
    assert [json.loads(post.body)["sequence"] for post in receiver.posts] == [1, 2]
    (line,) = [one for one in caplog.records if one.message == "verdict was refused"]
    assert line.__dict__["id"] == verdict(1).id


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(receiver: Receiver, status: int) -> None:
    """Neither verdict nor token goes where nobody sent it; it waits until the address is right."""
    with receiving() as elsewhere:
        receiver.location = elsewhere.url
        receiver.answer = lambda _: status
        with posting(receiver.url) as signal:
            signal.tell(verdict(1))
            assert "redirects are not followed" in wait_failure(signal)
            receiver.answer = lambda _: 200
            wait_count(signal, posted=1)
        assert elsewhere.posts == []


def test_a_receiver_that_hangs_holds_nobody_up(receiver: Receiver) -> None:
    """It is told at once, waits by itself, the oldest goes when too many wait, and each is counted once."""
    receiver.may.clear()
    with posting(receiver.url, queue_verdicts=5, timeout_seconds=PATIENCE_SECONDS) as signal:
        signal.tell(verdict(1))
        eventually(lambda: len(receiver.posts) == 1, "the first is posted")
        for number in range(2, 101):
            signal.tell(verdict(number))
        assert signal.health()["waiting"] == 5
        assert signal.health()["dropped"] == 95
        receiver.may.set()
        wait_count(signal, waiting=0, posted=5, dropped=95)
    assert [json.loads(post.body)["sequence"] for post in receiver.posts] == [1, 96, 97, 98, 99, 100]


def test_a_receiver_that_does_not_answer_is_asked_again(receiver: Receiver) -> None:
    """After the time-out, with the same key: the receiver can see that it is the same."""
    receiver.may.clear()
    with posting(receiver.url, timeout_seconds=0.1) as signal:
        signal.tell(verdict(1))
        assert "ReadTimeout" in wait_failure(signal)
        receiver.may.set()
        wait_count(signal, posted=1)
    assert len(receiver.posts) >= 2
    assert {post.key for post in receiver.posts} == {verdict(1).id}


def test_an_answer_without_end_is_left(receiver: Receiver) -> None:
    """The status counts; what follows costs neither memory nor time for ever."""
    stop = threading.Event()

    def drip() -> Iterator[bytes]:
        while not stop.is_set():
            yield b"x" * 4096

    receiver.words = drip()
    try:
        with posting(receiver.url, timeout_seconds=10 * PATIENCE_SECONDS) as signal:
            for number in (1, 2):
                signal.tell(verdict(number))
                wait_count(signal, posted=number)
    finally:
        stop.set()


def test_an_answer_that_drips_is_left(receiver: Receiver) -> None:
    """A byte now and then keeps no connection beyond the time-out."""
    stop = threading.Event()

    def drip() -> Iterator[bytes]:
        while not stop.wait(0.02):
            yield b"x"

    receiver.words = drip()
    try:
        with posting(receiver.url, timeout_seconds=0.2) as signal:
            signal.tell(verdict(1))
            wait_count(signal, posted=1)
    finally:
        stop.set()


class Longest(Random):
    """Chance that always takes the most."""

    def uniform(self, a: float, b: float) -> float:
        """The most."""
        return b


def test_a_stop_posts_what_waits(receiver: Receiver) -> None:
    """Also what is between two tries, and closing twice is nothing."""
    receiver.answer = lambda number: 503 if number == 0 else 200
    pause = Backoff(PATIENCE_SECONDS, PATIENCE_SECONDS, jitter=Longest())
    signal = WebhookSignal(Webhook(url=receiver.url), backoff=pause)
    for number in (1, 2, 3):
        signal.tell(verdict(number))
    wait_failure(signal)
    signal.close()
    signal.close()
    assert [json.loads(post.body)["sequence"] for post in receiver.posts] == [1, 1, 2, 3]
    assert signal.health()["posted"] == 3


def test_a_stop_does_not_wait_for_a_receiver_that_hangs(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """Two seconds, not a time-out of a minute; what is left is counted and logged."""
    receiver.may.clear()
    with posting(receiver.url, timeout_seconds=PATIENCE_SECONDS) as signal:
        signal.tell(verdict(1))
        signal.tell(verdict(2))
        eventually(lambda: len(receiver.posts) == 1, "the first is posted")
        began = time.monotonic()
        signal.close()
        assert time.monotonic() - began < PATIENCE_SECONDS / 2
        assert (signal.health()["dropped"], signal.health()["waiting"]) == (2, 0)
    (line,) = [one for one in caplog.records if one.message == "webhook was not told everything"]
    assert line.__dict__["left"] == 2


def test_trouble_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Not once per try: an outage of a night is one line."""
    caplog.set_level(logging.INFO, "edge_agent")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and nobody else can listen there
        with posting(f"http://127.0.0.1:{nobody.getsockname()[1]}/") as signal:
            signal.tell(verdict(1))
            wait_failure(signal)
            time.sleep(0.5)  # many tries
    troubles = [one.__dict__["reason"] for one in caplog.records if one.message == "webhook trouble"]
    assert len(troubles) == 1, troubles


def test_no_secret_of_the_address_is_in_the_log_or_the_report(
    receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither user, password, path, query nor token."""
    (tmp_path / "token").write_text("t0ken-x\n")
    receiver.answer = lambda _: 404
    url = f"http://user-x:pass-x@127.0.0.1:{receiver.port}/path-x?key=query-x"
    with posting(url, token_file=str(tmp_path / "token")) as signal:
        signal.tell(verdict(1))
        failure = wait_failure(signal)
    ours = [one.__dict__ for one in caplog.records if one.name.startswith("edge_agent")]
    said = f"{failure} {signal.health()} {ours}"
    for secret in ("user-x", "pass-x", "path-x", "query-x", "t0ken-x"):
        assert secret not in said


def test_settings_that_cannot_work_are_wrong_usage(tmp_path: Path) -> None:
    """Said before anything is posted, with what to do."""
    (tmp_path / "empty").write_text("")
    (tmp_path / "odd").write_text("törn")
    for wrong, words in (
        ({"url": "http://"}, "names no host"),
        ({"url": "http://host:port/"}, "no address"),
        ({"url": "http://[::1/"}, "no address"),
        ({"url": "http://h/", "token_file": str(tmp_path / "empty")}, "is empty"),
        ({"url": "http://h/", "token_file": str(tmp_path / "gone")}, "cannot be read"),
        ({"url": "http://h/", "token_file": str(tmp_path / "odd")}, "no HTTP header"),
    ):
        with pytest.raises(UsageError, match=words):
            WebhookSignal(Webhook.model_validate(wrong))


def test_the_loop_posts_what_it_decides(receiver: Receiver, tmp_path: Path, hub: FakeHub) -> None:
    """A whole agent: the receiver gets each verdict as the journal has it, but for the picture's digest."""
    from edge_agent.signals.several import Several

    asked = Asked()
    with posting(receiver.url) as signal:
        with station(tmp_path, hub, Looking(), asked, Several([asked, signal])) as running:
            running.start()
            for number in range(5):
                asked.ask(f"p{number}").result(PATIENCE_SECONDS)
            running.end()
            rows = [running.agent.journal.find(f"p{number}")[0] for number in range(5)]
        wait_count(signal, posted=5)
    posted = [Verdict.parse(post.body) for post in receiver.posts]
    assert [one.model_copy(update={"frame_sha256": None}) for one in rows] == posted
