"""The HTTP transport against a real server on a real socket."""

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from edge_agent.errors import HubError, HubRefusalError, TokenError
from edge_agent.transport import HttpTransport
from inspection.contracts import PictureNote, sha256_hex
from tests.edge_agent.helpers import Authority, FakeHub, bundle, picture
from tests.edge_agent.test_journal import verdict
from tests.edge_agent.test_loop import Frame, Rig


def coded(code: str, message: str = "told so") -> bytes:
    """A refusal as the hub words it."""
    return json.dumps({"detail": {"code": code, "message": message}}).encode()


class Handler(BaseHTTPRequestHandler):
    """Speaks the hub's HTTP in front of a fake hub. ``status`` other than 200 answers everything so, with ``said``."""

    hub: ClassVar[FakeHub]
    status: ClassVar[int] = 200
    said: ClassVar[bytes] = b"told so"
    extra: ClassVar[bytes] = b""
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        if self.status != 200:
            self._answer(self.status, self.said)
        elif url.path != "/v1/enrol" and self.headers.get("Authorization") != "Bearer t0ken":
            self._answer(401)
        else:
            try:
                self._route(url.path, parse_qs(url.query), body)
            except HubRefusalError as error:
                self._answer(422, coded("bad_verdict", str(error)))

    def _route(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        match path.split("/")[2:]:
            case ["enrol"]:
                self._answer(200, self.hub.enrol(**json.loads(body)).canonical())
            case ["verdicts"]:
                bodies = [json.dumps(v).encode() for v in json.loads(body)]
                receipts = self.hub.send_verdicts(bodies)
                self._answer(200, b"[" + b",".join(r.canonical() for r in receipts) + b"]")
            case ["pictures", sha256]:
                note = PictureNote(sha256=sha256, length=len(body), verdict_id=query["verdict"][0], why=query["why"][0])
                self._answer(200, self.hub.send_picture(note, body).canonical())
            case ["assignment"]:
                envelope = self.hub.assignment()
                self._answer(204 if envelope is None else 200, envelope or b"")
            case ["report"]:
                self.hub.requests.append("report")
                self._answer(204)
            case ["targets", sha256]:
                self._answer(200, self.hub.targets[sha256] + self.extra)
            case ["targets", sha256, "envelope"]:
                self._answer(200, self.hub.envelopes[sha256])
            case _:
                self._answer(404)

    do_GET = do_POST = do_PUT = _serve  # noqa: N815  # names the base class looks for


@pytest.fixture
def handler(hub: FakeHub) -> type[Handler]:
    """A handler of this test's own."""
    return type("OwnHandler", (Handler,), {"hub": hub})


@pytest.fixture
def address(handler: type[Handler]) -> Iterator[str]:
    """A server on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def transport(address: str) -> Iterator[HttpTransport]:
    """A device's connection."""
    opened = HttpTransport(address, "t0ken", timeout_seconds=5)
    yield opened
    opened.close()


def test_a_whole_agent_over_http(tmp_path: Path, hub: FakeHub, transport: HttpTransport) -> None:
    """Assignment, bundle, verdicts, pictures and reports over a real socket."""
    hub.assign(1, bundle())
    rig = Rig(tmp_path, hub)
    rig.hub = transport  # type: ignore[assignment]  # another transport in its place
    rig.run([Frame(picture(1), "good"), Frame(picture(2, scratch=255), "bad")])
    assert {v.part: v.decision.value for v in hub.verdicts.values()} == {"good": "OK", "bad": "NG"}
    assert list(hub.pictures) == [v.frame_sha256 for v in hub.verdicts.values() if v.part == "bad"]
    assert "report" in hub.requests
    assert rig.ledger().pending == 0


def test_enrolment_needs_the_code(transport: HttpTransport) -> None:
    """The right code gives a token; a wrong one is refused in words."""
    assert transport.enrol("K7", "cam1", "press1").token == "t0ken"
    with pytest.raises(HubRefusalError, match="unknown code"):
        transport.enrol("wrong", "cam1", "press1")


NEVER = [400, 403, 409, 413, 415, 422]
NOTE = PictureNote(sha256="0" * 64, length=1, verdict_id="v", why="ng")


@pytest.mark.parametrize("status", NEVER)
def test_never_is_told_from_later(transport: HttpTransport, handler: type[Handler], status: int) -> None:
    """What the hub itself refuses with a code can never succeed; its words are passed on."""
    handler.status, handler.said = status, coded("bad_verdict", "no such product")
    with pytest.raises(HubRefusalError, match=f"{status}: no such product"):
        transport.send_verdicts([verdict(1).canonical()])


@pytest.mark.parametrize("status", [*NEVER, 301, 401, 404, 429, 500, 502, 503])
@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"<html><h1>413 Request Entity Too Large</h1></html>",
        b'{"detail": "too large"}',
        b'{"detail": [1]}',
        b"[]",
        b"\xff",
    ],
    ids=["nothing", "a page", "words", "a list", "no object", "no text"],
)
def test_whoever_answers_in_the_hubs_place_refuses_nothing(
    transport: HttpTransport, handler: type[Handler], status: int, said: bytes
) -> None:
    """A proxy, a captive portal, a gateway: tried again later, whatever the status."""
    handler.status, handler.said = status, said
    for send in (lambda: transport.send_verdicts([verdict(1).canonical()]), lambda: transport.send_picture(NOTE, b"x")):
        with pytest.raises(HubError, match=str(status)) as caught:
            send()
        assert not isinstance(caught.value, HubRefusalError)


def test_a_token_the_hub_does_not_know_is_told_from_a_hub_that_is_away(address: str) -> None:
    """Nothing but another enrolment helps, and what waits is kept until then."""
    transport = HttpTransport(address, "forgotten", timeout_seconds=5)
    with pytest.raises(TokenError, match="enrol again"):
        transport.assignment()
    transport.close()


def test_a_picture_damaged_on_the_way_is_sent_again(transport: HttpTransport, handler: type[Handler]) -> None:
    """The hub's word that other bytes came than were sent is no refusal of these bytes."""
    handler.status, handler.said = 422, coded("digest_mismatch")
    with pytest.raises(HubError, match="422") as caught:
        transport.send_picture(NOTE, b"x")
    assert not isinstance(caught.value, HubRefusalError)


@pytest.mark.parametrize(
    "said", [coded("unknown_verdict"), b'{"detail": "no verdict \'v\' here: send the verdict before its picture"}']
)
def test_a_picture_of_a_verdict_the_hub_lost(transport: HttpTransport, handler: type[Handler], said: bytes) -> None:
    """The hub's own 404 on a picture asks for its verdict first."""
    handler.status, handler.said = 404, said
    assert transport.send_picture(NOTE, b"x") is None


def test_half_an_answer_is_later(transport: HttpTransport, handler: type[Handler]) -> None:
    """A connection that breaks in the middle of the receipts confirms nothing."""

    def half(self: Handler, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])
        self.close_connection = True

    handler._answer = half  # type: ignore[method-assign]  # this test's own class
    with pytest.raises(HubError, match="tried again later"):
        transport.send_verdicts([verdict(1).canonical()])


def test_a_target_longer_than_signed_is_cut_off(
    transport: HttpTransport, handler: type[Handler], authority: Authority
) -> None:
    """A server cannot fill the disk: reading stops beyond the signed length."""
    digest = handler.hub.publish(bundle())
    handler.extra = b"x" * 10_000_000
    into = io.BytesIO()
    with pytest.raises(HubError, match="longer"):
        transport.fetch(digest, len(bundle()), into)
    assert len(into.getvalue()) <= len(bundle())
    handler.extra = b""
    into = io.BytesIO()
    transport.fetch(digest, len(bundle()), into)
    assert sha256_hex(into.getvalue()) == digest


def test_a_dead_hub_is_later() -> None:
    """Nobody listens: HubError in words."""
    transport = HttpTransport("http://127.0.0.1:9", "t", timeout_seconds=1)
    with pytest.raises(HubError, match="tried again later"):
        transport.assignment()
    transport.close()


def test_nonsense_is_later(transport: HttpTransport, handler: type[Handler], hub: FakeHub) -> None:
    """A captive portal's page is no receipt."""
    hub.lie = lambda receipt: receipt.model_copy(update={"sha256": "no digest"})
    with pytest.raises(HubError, match="makes no sense"):
        transport.send_verdicts([verdict(1).canonical()])
