"""Many who look, slow ones, ones that vanish; a port that is taken; a stop: none of it reaches the loop."""

import contextlib
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest

from edge_agent.errors import UsageError
from edge_agent.inspecting import Active
from edge_agent.page import PageServer
from edge_agent.page.patience import MOST_CONNECTIONS
from edge_agent.wiring import Page
from inspection.contracts import Mode
from tests.edge_agent.helpers import picture
from tests.edge_agent.test_page import WAIT_SECONDS, Stage, events, next_state, serving, until
from tests.edge_agent.test_page_trial import plan


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """A station whose loop goes round."""
    made = Stage(tmp_path)
    made.board.alive()
    return made


def raw(client: httpx.Client, request: bytes = b"") -> socket.socket:
    """A connection by hand."""
    made = socket.create_connection(("127.0.0.1", int(client.base_url.port or 0)), timeout=WAIT_SECONDS)
    made.sendall(request)
    return made


STREAM = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_fifty_idle_streams_neither_stop_the_loop_nor_shut_others_out(stage: Stage) -> None:
    """The newest are served, the oldest ended; parts go on being seen; a new browser gets its state."""
    with serving(stage) as client, contextlib.ExitStack() as open_ones:
        idle = [open_ones.enter_context(raw(client, STREAM)) for _ in range(50)]
        for number in range(300):
            stage.show(picture(number % 5), f"p{number}")
        with client.stream("GET", "/events") as response:
            state = next_state(events(response), lambda s: s["last"]["part"] == "p299")
        assert state["start"]["ok"] == 300
        for one in idle[:18]:
            assert until(lambda one=one: _ended(one))
        assert threading.active_count() < 20


def _ended(connection: socket.socket) -> bool:
    connection.settimeout(WAIT_SECONDS)
    return b"\r\n0\r\n\r\n" in connection.recv(65536) or connection.recv(65536) == b""


def test_too_many_connections_are_turned_away_until_some_go(stage: Stage) -> None:
    """Not one more than the limit is held; those who were there first keep their place."""
    with serving(stage) as client, contextlib.ExitStack() as open_ones:
        idle = [open_ones.enter_context(raw(client)) for _ in range(MOST_CONNECTIONS + 16)]
        until(lambda: sum(_is_gone(one) for one in idle) >= 16)
        assert sum(_is_gone(one) for one in idle[:MOST_CONNECTIONS]) == 0
        with pytest.raises(httpx.TransportError):
            client.get("/state")
        for one in idle:
            one.close()

        def answered() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return client.get("/state").status_code == 200
            return False

        until(answered)


def _is_gone(connection: socket.socket) -> bool:
    """True when the other side has closed or reset it (Linux: its state is no longer ESTABLISHED)."""
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != 1


@pytest.mark.parametrize(
    "said", [b"", b"GET / HTTP/1.1\r\nHost: loc", b"HEAD /state HTTP/1.1\r\nHost: localhost\r\n\r\nGET"]
)
def test_half_a_question_is_not_waited_for(stage: Stage, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """Neither the first on a connection nor a later one."""
    monkeypatch.setattr("edge_agent.page.patience.HEAD_SECONDS", 0.5)
    with serving(stage) as client, raw(client, said) as half, contextlib.suppress(ConnectionResetError):
        while half.recv(4096):  # to its end, or to the test's time-out
            pass


def test_a_reader_that_stands_still_is_let_go(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does not read is not kept for it."""
    monkeypatch.setattr("edge_agent.page.patience.READER_SECONDS", 0.5)
    big = np.random.default_rng(1).integers(0, 255, (1280, 1280, 3), dtype=np.uint8)
    verdict = stage.show(big, "big")
    ask = f"GET /picture/{verdict.id}.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with serving(stage) as client:
        assert len(client.get(f"/picture/{verdict.id}.jpg").content) > 500_000
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.settimeout(WAIT_SECONDS)
            slow.connect(("127.0.0.1", int(client.base_url.port or 0)))
            slow.sendall(ask * 20)
            until(lambda: _is_gone(slow))  # then only what the kernel holds is left
            received = 0
            with contextlib.suppress(ConnectionResetError):
                while data := slow.recv(65536):
                    received += len(data)
        assert received < 20 * 500_000
        assert client.get("/state").status_code == 200


def test_browsers_that_vanish_leave_nothing_behind(stage: Stage) -> None:
    """A hundred streams, each gone without a word: no thread, no descriptor stays."""
    with serving(stage) as client:
        client.get("/state")
        before = _descriptors()
        for number in range(100):
            with raw(client, STREAM):
                stage.show(picture(1), f"p{number}")
        until(lambda: _descriptors() <= before + 1)


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_stop_does_not_wait_for_streams(stage: Stage) -> None:
    """They are ended, the thread is gone, the port is free; a second stop does nothing."""
    server = PageServer(Page(port=0), stage.board, stage.facts)
    server.start()
    port = until(lambda: server.port)
    with httpx.stream("GET", f"http://127.0.0.1:{port}/events", timeout=WAIT_SECONDS) as response:
        stream = events(response)
        next(stream)
        server.stop()
        assert all(name in ("message", "beat") for name, _ in stream)  # to its end
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS)
    assert not [t.name for t in threading.enumerate() if t.name.startswith("page")]


def test_a_page_that_never_started_can_be_stopped(stage: Stage) -> None:
    """The agent may fail between the two."""
    PageServer(Page(port=0), stage.board, stage.facts).stop()


def test_a_taken_port_ends_nothing_and_is_tried_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is said in words; when the port is free the page comes by itself."""
    monkeypatch.setattr("edge_agent.page.server._AGAIN_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = PageServer(Page(port=port), stage.board, stage.facts)
        server.start()
        assert "in use" in until(lambda: server.failure)
        stage.show(picture(1), "good")
    assert until(lambda: server.port) == port
    assert server.failure is None
    server.stop()


def test_a_secret_that_cannot_be_read_is_wrong_usage(stage: Stage, tmp_path: Path) -> None:
    """Said at the start; a PIN of three digits is none."""
    with pytest.raises(UsageError, match="cannot be read"):
        PageServer(Page(pin_file=str(tmp_path / "nowhere")), stage.board, stage.facts)
    (tmp_path / "pin").write_text("123\n")
    with pytest.raises(UsageError, match="at least 4"):
        PageServer(Page(pin_file=str(tmp_path / "pin")), stage.board, stage.facts)


def test_the_loop_waits_for_nobody_who_looks(stage: Stage) -> None:
    """While no challenge runs it takes no lock: seeing a part works with all of them held by another thread."""
    frame, inspected = stage.inspected(picture(1, scratch=255), "bad")
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with stage.board.challenges._lock:
            held.set()
            done.wait(WAIT_SECONDS)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(WAIT_SECONDS)
    stage.board.seen(frame, inspected)
    assert stage.board.purpose.value == "production"
    done.set()
    holder.join()


def test_seeing_keeps_references_not_copies(stage: Stage) -> None:
    """The frame and the map are the very ones; two frames are held at most."""
    frames = []
    for number, scratch in enumerate((0, 255, 0, 0)):
        frame, inspected = stage.inspected(picture(number, scratch=scratch), f"p{number}")
        stage.board.seen(frame, inspected)
        frames.append(frame)
    board = stage.board
    assert board.last is not None
    assert board.reject is not None
    assert board.last.frame is frames[3]
    assert board.reject.frame is frames[1]
    assert len(board.history) == 4


def test_the_last_reject_is_one_that_was_made_here(stage: Stage) -> None:
    """A known-bad part, or one that was only collected, does not take its place."""
    bad = stage.show(picture(2, scratch=255), "bad")
    stage.board.challenges.start(plan("NG"), "s", stage.active)
    stage.show(picture(2, scratch=255), "known")
    stage.active = Active(None, Mode.COLLECT)
    stage.show(picture(3), "collected")
    stage.show(None, "lost", fault="dark")
    assert stage.board.reject is not None
    assert stage.board.reject.verdict.id == bad.id


def test_the_history_is_bounded(stage: Stage) -> None:
    """However many parts pass."""
    frame, inspected = stage.inspected(picture(1), "p")
    for _ in range(100):
        stage.board.seen(frame, inspected)
    assert len(stage.board.history) == 24


@pytest.mark.parametrize(
    ("imports", "heavy"),
    [
        ("edge_agent.agent", ("edge_agent.page.board", "edge_agent.page.server", "starlette", "asyncio")),
        ("edge_agent.page.server", ("starlette", "uvicorn", "prometheus_client")),
    ],
)
def test_what_no_page_needs_is_not_loaded(imports: str, heavy: tuple[str, ...]) -> None:
    """The agent starts fast and stays small: the web libraries come with the first page that is served."""
    code = f"import sys, {imports}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
