"""A hub on a real socket over the fake one: it can go away, with every connection cut, and come back on the same port."""

import socket
import sys
import threading
from collections.abc import Sequence
from http.server import ThreadingHTTPServer
from typing import Any

from edge_agent.errors import HubRefusalError
from inspection.contracts import PictureNote, Receipt, Report, Verdict, sha256_hex
from tests.edge_agent.helpers import Authority, FakeHub, bundle
from tests.edge_agent.test_http import Handler


class _Answers(Handler):
    """The hub's HTTP, with the reports kept and the downloads noted."""

    disable_nagle_algorithm = True  # else each answer waits for the device's delayed acknowledgement

    def _route(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        if len(body) != int(self.headers.get("Content-Length", 0)):
            self.close_connection = True  # the device was killed in the middle of it
            return
        if path.startswith("/v1/targets/") and not path.endswith("/envelope"):
            self.hub.requests.append("fetch")
        if path == "/v1/report":
            self.hub.report(Report.parse(body))
            self._answer(204)
        else:
            super()._route(path, query, body)


class _Server(ThreadingHTTPServer):
    """Knows its connections, so that it can cut them as a dead machine does; remembers what went wrong in here."""

    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[Handler]) -> None:
        self.open: set[socket.socket] = set()
        self.errors: list[str] = []
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Note the connection."""
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget it."""
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A device that hangs up, or is killed, is no error here; all else is."""
        error = sys.exception()
        if not isinstance(error, OSError):
            self.errors.append(repr(error))


class HubServer:
    """A fake hub behind a real socket: `up`, `down` (every connection is cut), and `up` again on the same port."""

    def __init__(self, hub: FakeHub) -> None:
        self.hub = hub
        self.errors: list[str] = []
        self._handler = type("OwnAnswers", (_Answers,), {"hub": hub})
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._port = 0
        self.up()

    @property
    def address(self) -> str:
        """Where devices find it."""
        return f"http://127.0.0.1:{self._port}"

    def up(self) -> None:
        """Begin to answer."""
        self._server = _Server(("127.0.0.1", self._port), self._handler)
        self._server.errors = self.errors
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def down(self) -> None:
        """Stop, and cut whoever is connected."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for connection in list(self._server.open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # hung up already
        self._server = self._thread = None

    def assign(self, serial: int, version: int, **how: Any) -> str:
        """Assign a bundle of its own for this version. Returns its digest."""
        data = bundle(version)
        self.hub.assign(serial, data, version=version, **how)
        return sha256_hex(data)

    def digest(self) -> str | None:
        """The bundle that the device said last it runs."""
        return self.hub.reports[-1].bundle_digest if self.hub.reports else None


class LeanHub(FakeHub):
    """Remembers digests instead of verdicts, so that millions of them fit; otherwise as strict as the other."""

    def __init__(self, authority: Authority) -> None:
        super().__init__(authority)
        self.held: dict[bytes, bytes] = {}
        self.again = 0

    def send_verdicts(self, bodies: Sequence[bytes]) -> list[Receipt]:
        """All or nothing; another body under a known id is refused."""
        self._asked("verdicts")
        receipts = []
        for verdict in map(Verdict.parse, bodies):
            key, digest = short(verdict.id), verdict.digest
            new = key not in self.held
            if self.held.setdefault(key, bytes.fromhex(digest)[:8]) != bytes.fromhex(digest)[:8]:
                raise HubRefusalError("409: another body under the same id")
            self.again += not new
            receipts.append(Receipt(kind="verdict", key=verdict.id, sha256=digest, new=new))
        return receipts

    def send_picture(self, note: PictureNote, data: bytes) -> Receipt:
        """Refuses a picture of a verdict it does not hold."""
        self._asked("picture")
        if short(note.verdict_id) not in self.held:
            raise HubRefusalError("404")
        self.pictures[note.sha256] = b""
        self.notes.append(note)
        return Receipt(kind="picture", key=note.sha256, sha256=sha256_hex(data), new=True)


def short(verdict_id: str) -> bytes:
    return bytes.fromhex(verdict_id.replace("-", ""))
