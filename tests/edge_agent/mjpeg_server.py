"""A camera on the network: a real HTTP server that streams motion JPEG, and can be made to fail as cameras do."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np

_RATE_SECONDS = 0.02


class NetworkCamera:
    """What the stream shows is set while it runs: ``mode`` is one of fine, frozen, two_buffers, black, white, silent,
    corrupt, truncated, half; ``size`` is (width, height)."""

    def __init__(self) -> None:
        self.mode = "fine"
        self.size = (64, 48)
        self.sent = 0
        self.authorization: str | None = None
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self._port = 0
        self._open: list[socket.socket] = []
        self._rng = np.random.default_rng(0)

    @property
    def url(self) -> str:
        """The stream's address."""
        return f"http://127.0.0.1:{self._port}/stream"

    def plug_in(self) -> None:
        """Begin to serve, on the same port as before."""
        camera = self

        class Stream(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def do_GET(self) -> None:
                camera.authorization = self.headers.get("Authorization")
                camera._open.append(self.connection)
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                try:
                    while True:
                        self._part(camera.picture())
                except OSError:
                    return

            def _part(self, data: bytes | None) -> None:
                if data is not None:
                    head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data)
                    self.wfile.write(head + (data[:100] if camera.mode == "half" else data + b"\r\n"))
                    camera.sent += 1
                time.sleep(_RATE_SECONDS)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A cable that is pulled is no error here."""

        self._server = Server(("127.0.0.1", self._port), Stream)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def unplug(self) -> None:
        """Cut all connections, and answer none."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # gone already
        self._open.clear()
        self._server = self._thread = None

    def picture(self) -> bytes | None:
        """The next JPEG, or what this mode sends in its place; None sends nothing."""
        width, height = self.size
        if self.mode == "silent":
            return None
        seed = {"frozen": 1, "two_buffers": self.sent % 2}.get(self.mode)
        rng = self._rng if seed is None else np.random.default_rng(seed)
        image = rng.integers(90, 111, (height, width, 3), dtype=np.uint8)
        if self.mode in ("black", "white"):
            image = rng.integers(0, 4, (height, width, 3), dtype=np.uint8) + (250 if self.mode == "white" else 0)
        data = cv2.imencode(".jpg", image.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
        if self.mode == "corrupt":
            return b"\xff\xd8\xff" + self._rng.bytes(len(data))
        return data[: len(data) // 2] if self.mode == "truncated" else data


@contextmanager
def network_camera() -> Iterator[NetworkCamera]:
    """A camera that is plugged in."""
    camera = NetworkCamera()
    camera.plug_in()
    try:
        yield camera
    finally:
        camera.unplug()
