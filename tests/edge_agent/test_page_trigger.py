"""HTTP as trigger: who may ask gets the verdict; nobody who asks, goes or lies can hurt the inspection."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from edge_agent.agent import Agent
from edge_agent.camera import Frame
from edge_agent.page import PageServer
from edge_agent.page.asking import Asking
from edge_agent.runtime import OnnxRuntime
from edge_agent.signals.several import Several
from edge_agent.trigger.asked import Asked
from edge_agent.wires import Wires
from edge_agent.wiring import Page
from inspection.contracts import Decision, Mode, Purpose, Verdict
from tests.edge_agent.helpers import FakeHub, bundle, config, picture
from tests.edge_agent.test_camera import Silent
from tests.edge_agent.test_loop import Line
from tests.edge_agent.test_page import WAIT_SECONDS, Stage, serving, state_of, until
from tests.edge_agent.test_page_crowd import raw

TOKEN = "a-token-that-nobody-guesses"


class Loop:
    """The agent's loop in small: takes what is asked, judges it, gives the answer."""

    def __init__(self, stage: Stage, asked: Asked) -> None:
        self.stage, self.asked = stage, asked
        self.gate = threading.Event()
        self.gate.set()
        self.parts: list[str] = []
        self.changes: dict[str, Any] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._end.is_set():
            request = self.asked.next()
            if request is not None:
                self.gate.wait(WAIT_SECONDS)
                part = request.part or "unnamed"
                self.parts.append(part)
                verdict = self.stage.show(picture(1, scratch=255 if "bad" in part else 0), part, lot=request.lot)
                self.asked.tell(verdict.model_copy(update=self.changes))
            self.stage.board.alive()

    def __enter__(self) -> "Loop":
        self._thread.start()
        until(lambda: self.asked._started)
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.gate.set()
        self._thread.join()
        self.asked.close()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.fixture
def line(stage: Stage) -> Iterator[Loop]:
    """A loop that answers."""
    with Loop(stage, Asked()) as running:
        yield running


def ask(client: httpx.Client, body: Any = None, **query: str) -> httpx.Response:
    return client.post("/trigger", json={} if body is None else body, params=query)


def judged(answer: httpx.Response) -> Verdict:
    return Verdict.model_validate(answer.json()["verdict"])


def test_who_asks_gets_the_verdict(line: Loop) -> None:
    """As the contract's JSON, for the part and lot that were named, beside what the line may act on."""
    with serving(line.stage, line.asked) as client:
        answer = ask(client, {"part": "bad-1", "lot": "L1"})
        verdict = judged(answer)
        assert answer.status_code == 200
        assert (verdict.part, verdict.lot, verdict.decision) == ("bad-1", "L1", Decision.NG)
        assert answer.json()["output"] == "NG"
        plain = ask(client)
        assert judged(plain).part == "unnamed"
        assert plain.json()["output"] == "OK"


@pytest.mark.parametrize(("mode", "purpose"), [("shadow", "production"), ("collect", "production"), ("judge", "challenge")])
def test_an_ok_that_is_not_for_the_line_is_not_answered_as_one(line: Loop, mode: str, purpose: str) -> None:
    """In shadow somebody else answers the line; in a challenge the part is known to be bad."""
    line.changes = {"mode": Mode(mode), "purpose": Purpose(purpose)}
    with serving(line.stage, line.asked) as client:
        answer = ask(client, {"part": "p"})
        assert judged(answer).decision is Decision.OK
        assert answer.json()["output"] == "NG"


def test_who_does_not_wait_is_told_at_once(line: Loop) -> None:
    """202, and the part is inspected all the same."""
    line.gate.clear()
    with serving(line.stage, line.asked) as client:
        assert ask(client, {"part": "later"}, wait="false").status_code == 202
        line.gate.set()
        until(lambda: line.parts == ["later"])
        assert ask(client, wait="perhaps").status_code == 400


def test_a_second_part_meanwhile_is_missed_and_counted(line: Loop) -> None:
    """409 at once: the part would have moved on."""
    line.gate.clear()
    with serving(line.stage, line.asked) as client:
        ask(client, {"part": "first"}, wait="false")
        answer = ask(client, {"part": "second"})
        assert answer.status_code == 409
        assert "missed" in answer.json()["error"]
        assert line.asked.take_missed() == 1
        line.gate.set()
        until(lambda: line.parts == ["first"])


def test_an_agent_that_stops_says_so(line: Loop) -> None:
    """Who waits is told, and so is who comes later."""
    line.gate.clear()
    with serving(line.stage, line.asked) as client:
        answers: list[int] = []
        waiting = threading.Thread(target=lambda: answers.append(ask(client, {"part": "p"}).status_code))
        waiting.start()
        until(lambda: line.asked._answer is not None)
        line.asked.close()
        waiting.join(WAIT_SECONDS)
        assert answers == [503]
        assert ask(client).status_code == 503


def test_an_answer_that_never_comes_is_no_wait_for_ever(stage: Stage) -> None:
    """504, and the loop may still answer afterwards: nothing was cancelled under it."""
    asked = Asked()
    asked.next()  # the loop goes round
    answer = _post(Asking(asked, None, wait_seconds=0.05), json={"part": "p"})
    assert answer.status_code == 504
    request = asked.next()
    assert request is not None
    asked.tell(stage.show(picture(1), "p"))
    assert not asked.ask("next").done()


def test_somebody_who_goes_away_breaks_nothing(line: Loop) -> None:
    """The connection is torn while the part is inspected: its row stands, the next is answered."""
    body = b'{"part": "gone"}'
    head = "POST /trigger HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n"
    line.gate.clear()
    with serving(line.stage, line.asked) as client:
        with raw(client, head.encode() + body) as torn:
            until(lambda: line.asked._answer is not None)
            torn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        line.gate.set()
        until(lambda: line.parts == ["gone"])
        assert judged(ask(client, {"part": "next"})).part == "next"


def test_a_stop_of_the_page_leaves_the_question_with_the_loop(stage: Stage) -> None:
    """The page ends while somebody waits: the loop's answer finds nobody, and harms nobody."""
    asked = Asked()
    server = PageServer(Page(port=0), stage.board, stage.facts, asked)
    server.start()
    port = until(lambda: server.port)
    answered: list[object] = []

    def waiting() -> None:
        with contextlib.suppress(httpx.TransportError):
            answered.append(httpx.post(f"http://127.0.0.1:{port}/trigger", json={}, timeout=WAIT_SECONDS))

    thread = threading.Thread(target=waiting)
    thread.start()
    request = until(asked.next)
    server.stop()
    thread.join(WAIT_SECONDS)
    assert request is not None
    asked.tell(stage.show(picture(1), "p"))
    assert stage.board.last is not None


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{}", "text/plain", 415),
        (b"{}", "application/x-www-form-urlencoded", 415),
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{", "application/json", 400),
        (b'{"part": 5}', "application/json", 400),
        (b'{"part": "p", "more": 1}', "application/json", 400),
        (b'{"part": "\xff"}', "application/json", 400),
        (b'{"part": "\\ud800"}', "application/json", 400),
        (b'{"part": "a\\nb"}', "application/json", 400),
        (b'{"part": "' + b"x" * 129 + b'"}', "application/json", 400),
        (b'{"part": "p"}' + b" " * 5000, "application/json", 413),
    ],
)
def test_what_is_not_exactly_a_question_is_refused(line: Loop, content: bytes, kind: str, status: int) -> None:
    """In words; nothing is inspected, and the part that went by is counted as missed."""
    with serving(line.stage, line.asked) as client:
        answer = client.post("/trigger", content=content, headers={"Content-Type": kind})
        assert answer.status_code == status
        assert answer.json()["error"]
    assert line.parts == []
    assert line.asked.take_missed() == 1


def test_a_body_that_never_ends_is_not_waited_for(line: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is let go after some seconds; the page goes on."""
    monkeypatch.setattr("edge_agent.page.bodies._SECONDS", 0.2)
    head = b"POST /trigger HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    with serving(line.stage, line.asked) as client, raw(client, head) as slow:
        assert slow.recv(100).startswith(b"HTTP/1.1 408")
        assert ask(client, {"part": "p"}).status_code == 200


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_a_page_of_another_site_cannot_trigger(line: Loop, headers: dict[str, str]) -> None:
    """Even where a browser would let it ask."""
    with serving(line.stage, line.asked) as client:
        answer = client.post("/trigger", json={"part": "p"}, headers=headers)
        assert answer.status_code == 403
        same = {"Origin": str(client.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
        assert client.post("/trigger", json={"part": "p"}, headers=same).status_code == 200
    assert line.parts == ["p"]


def _post(asking: Asking, peer: str = "127.0.0.1", **request: Any) -> httpx.Response:
    """A request from ``peer``, without a network."""
    app = Starlette(routes=[Route("/trigger", asking.trigger, methods=["POST"])])

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=(peer, 5))
        async with httpx.AsyncClient(transport=transport, base_url="http://station") as client:
            return await client.post("/trigger", **request)

    return asyncio.run(post())


@pytest.mark.parametrize("peer", ["10.0.0.9", "::ffff:10.0.0.9", "fe80::1%eth0", "2001:db8::5", "testclient", ""])
def test_other_computers_need_the_token(line: Loop, peer: str) -> None:
    """None, a wrong one, one in another manner: 401. The right one: the verdict. Without a token set: never."""
    asking = Asking(line.asked, TOKEN)
    for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": TOKEN}, {"Authorization": f"Basic {TOKEN}"}):
        assert _post(asking, peer, json={}, headers=headers).status_code == 401
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert _post(asking, peer, json={"part": "p"}, headers=right).status_code == 200
    assert _post(Asking(line.asked, None), peer, json={}, headers=right).status_code == 401
    assert line.parts == ["p"]


HERE = ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"]


@pytest.mark.parametrize("peer", HERE)
def test_without_a_token_only_this_computer_may_ask(line: Loop, peer: str) -> None:
    """What says that it came through a proxy came from somewhere else, and hears what is to be set."""
    asking = Asking(line.asked, None)
    assert _post(asking, peer, json={"part": "p"}).status_code == 200
    refused = _post(asking, peer, json={}, headers={"X-Forwarded-For": "127.0.0.1"})
    assert refused.status_code == 401
    assert "trigger_token_file" in refused.json()["error"]


@pytest.mark.parametrize("peer", HERE)
def test_with_a_token_this_computer_needs_it_too(line: Loop, peer: str) -> None:
    """A proxy that says nothing of itself makes everybody look like this computer."""
    asking = Asking(line.asked, TOKEN)
    refused = _post(asking, peer, json={})
    assert refused.status_code == 401
    assert "from this computer too" in refused.json()["error"]
    assert _post(asking, peer, json={"part": "p"}, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert line.parts == ["p"]


def test_a_station_with_another_trigger_says_so(stage: Stage) -> None:
    """404 in words, also for who has a token."""
    with serving(stage) as client:
        answer = ask(client, {"part": "p"})
    assert answer.status_code == 404
    assert "not triggered over HTTP" in answer.json()["error"]


def test_a_token_comes_from_its_file(line: Loop, tmp_path: Path) -> None:
    """And from nowhere else."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    with serving(line.stage, line.asked, trigger_token_file=str(tmp_path / "token")) as client:
        assert client.post("/trigger", json={}).status_code == 401
        right = {"Authorization": f"bearer {TOKEN}"}
        assert client.post("/trigger", json={}, headers=right).status_code == 200


class Endless(Silent):
    """Delivers a picture whenever asked: odd ones have a scratch."""

    def __init__(self) -> None:
        super().__init__([])
        self.count = 0

    def next(self, timeout_seconds: float, *, since: float | None = None) -> Frame:
        """The next picture."""
        self.count += 1
        return Frame(picture(self.count, scratch=255 if self.count % 2 else 0), f"frame-{self.count}")


def test_a_whole_agent_answers_over_its_page(tmp_path: Path, hub: FakeHub) -> None:
    """Asked over HTTP: one row per question, the line told, the page shows it, the hub holds it."""
    hub.assign(1, bundle())
    agent = Agent(tmp_path, config(hub.authority.root), "boot", hub)
    stage, asked, line, stop = Stage(tmp_path), Asked(), Line(tmp_path), threading.Event()
    signal = Several([asked, line])
    watchers = [stage.board]
    running = threading.Thread(
        target=lambda: agent.run(Endless(), Wires(asked, signal), OnnxRuntime, stop, max_triggers=None, watchers=watchers)
    )
    running.start()
    try:
        with serving(stage, asked) as client:
            until(lambda: stage.board.moves)
            answers = [judged(ask(client, {"part": f"p{n}"})) for n in range(6)]
            shown = until(lambda: (last := state_of(client)["last"])["part"] == "p5" and last)
            assert client.get(f"/picture/{shown['id']}.jpg").status_code == 200
    finally:
        stop.set()
        running.join(WAIT_SECONDS)
        agent.close()
    assert [v.decision for v in answers] == [Decision.NG, Decision.OK] * 3
    assert line.told == [(f"p{n}", n % 2 == 1) for n in range(6)]
    assert line.rows_first
    assert {v.id for v in answers} == set(hub.verdicts)
    assert {v.purpose for v in hub.verdicts.values()} == {Purpose.PRODUCTION}
