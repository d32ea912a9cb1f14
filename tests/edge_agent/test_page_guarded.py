"""Who may ask the page, and what its answers let a browser do."""

import re
from pathlib import Path

import httpx
import pytest

from edge_agent.page.app import STATIC
from tests.edge_agent.helpers import STATION
from tests.edge_agent.test_page import WAIT_SECONDS, Stage, events, serving


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """A station whose loop goes round."""
    made = Stage(tmp_path)
    made.board.alive()
    return made


def test_nothing_comes_from_elsewhere_and_nothing_runs_that_is_not_ours(stage: Stage) -> None:
    """A strict policy on every answer, no foreign address in any file, no script or style in a page."""
    names = re.compile(r"""(?:src|href)="([^"#]+)""")
    with serving(stage) as client:
        for path in ("/", "/challenge", "/state", "/nowhere"):
            policy = client.get(path).headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
        for path in ("/", "/challenge"):
            text = client.get(path).text
            assert not re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=", text)
            for asset in names.findall(text):
                assert client.get(asset).status_code == 200, asset
        tag = client.get("/static/page.css").headers["etag"]
        assert client.get("/static/page.css", headers={"If-None-Match": tag}).status_code == 304
        assert client.get("/static/..%2fserver.py").status_code == 404
    for path in STATIC.iterdir():
        foreign = set(re.findall(r"https?://[^\s\"')]+", path.read_text())) - {"http://www.w3.org/2000/svg"}
        assert not foreign, path
        assert "innerHTML" not in path.read_text()


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "", "127.0.0.1.evil.example", "[::2]", "10.1.2.3", "["]
)
def test_a_foreign_name_is_refused(stage: Stage, host: str) -> None:
    """DNS rebinding: whoever asks under another name gets nothing, whatever the address."""
    with serving(stage) as client:
        for path in ("/", "/state", "/events", "/metrics"):
            answer = client.get(path, headers={"Host": host})
            assert answer.status_code in (400, 421)
            assert STATION not in answer.text


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:9", "127.0.0.1:1", "[::1]:8480", "panel.factory", "Panel.Factory.:80"]
)
def test_our_own_names_are_answered(stage: Stage, host: str) -> None:
    """Loopback, and what the settings add."""
    with serving(stage, names=["panel.factory"]) as client:
        assert client.get("/state", headers={"Host": host}).status_code == 200


def test_on_all_interfaces_each_answers_to_its_own_address(stage: Stage) -> None:
    """Bound to 0.0.0.0, the address a request came in on is a name of ours, another one is not."""
    with serving(stage, host="0.0.0.0") as client:
        assert client.get("/state").status_code == 200
        assert client.get("/state", headers={"Host": "127.0.0.2"}).status_code == 421
        port = client.base_url.port
        with httpx.Client(base_url=f"http://127.0.0.2:{port}", timeout=WAIT_SECONDS) as other:
            assert other.get("/state").status_code == 200


def test_an_error_of_the_page_is_an_answer_not_an_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong in one request, the next is served."""
    with serving(stage) as client:
        monkeypatch.setattr("edge_agent.page.view.words.headline", lambda *_: 1 / 0)
        answer = client.get("/state")
        assert (answer.status_code, "ZeroDivisionError" in answer.text) == (500, True)
        monkeypatch.undo()
        assert client.get("/state").status_code == 200


def test_a_state_that_cannot_be_made_grows_old_in_the_stream(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The beat goes on and says how old the state is: the browser covers it."""
    with serving(stage) as client, client.stream("GET", "/events") as response:
        stream = events(response)
        next(stream)
        monkeypatch.setattr("edge_agent.page.view.words.headline", lambda *_: 1 / 0)
        made = next(c["made"] for n, c in stream if n == "beat")
        assert all(c["made"] == made for _, (n, c) in zip(range(2), stream, strict=False))
        monkeypatch.undo()
        assert next(c["made"] for _, c in stream if c["made"] != made) > made
