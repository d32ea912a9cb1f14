"""A web address that posts go to: a real HTTP server that can be made to fail as servers do."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.edge_agent.test_asked import PATIENCE_SECONDS


@dataclass(frozen=True)
class Post:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def key(self) -> str:
        """Its idempotency key."""
        return self.headers["idempotency-key"]


class Receiver:
    """A web address. ``answer`` says the status for a post (given how many came before it); ``location`` where a redirect
    leads, ``words`` what the answer holds. While ``may`` is not set nothing is answered."""

    def __init__(self, port: int = 0) -> None:
        self.posts: list[Post] = []
        self.answer: Callable[[int], int] = lambda _: 200
        self.location = ""
        self.words: Iterator[bytes] | bytes = b"{}"
        self.may = threading.Event()
        self.may.set()
        self._open: set[socket.socket] = set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver._open.add(self.connection)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                number = len(receiver.posts)
                receiver.posts.append(Post(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                receiver.may.wait(PATIENCE_SECONDS)
                try:
                    self._respond(receiver.answer(number))
                except OSError:
                    return  # the sender did not wait

            def _respond(self, status: int) -> None:
                self.send_response(status)
                if receiver.location:
                    self.send_header("Location", receiver.location)
                if isinstance(receiver.words, bytes):
                    self.send_header("Content-Length", str(len(receiver.words)))
                    self.end_headers()
                    self.wfile.write(receiver.words)
                    return
                self.send_header("Connection", "close")
                self.end_headers()
                for chunk in receiver.words:
                    self.wfile.write(chunk)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = False
            allow_reuse_address = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A sender that hangs up is no error here."""

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/verdicts"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        """Answer nobody any more, and cut all connections."""
        self.may.set()
        self._server.shutdown()
        self._thread.join()
        for connection in self._open:
            with contextlib.suppress(OSError):  # gone already
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()


@contextlib.contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    """A receiver that runs."""
    made = Receiver(port)
    try:
        yield made
    finally:
        made.close()
