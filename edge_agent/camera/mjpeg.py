"""Motion JPEG over HTTP (``multipart/x-mixed-replace``, RFC 2046 5.1): the pictures as the camera made them, each checked.

Invariants: a part is decoded only when it is whole (its announced length, or up to the next boundary) and its header says
a size within the bound; what cannot be decoded is counted and skipped, never half a picture; every read has a deadline;
of several pictures that wait the newest is decoded.
"""

import base64
import http.client
import select
from collections.abc import Callable, Mapping
from urllib.parse import unquote, urlsplit

from edge_agent.authorities import trusted
from edge_agent.errors import DeviceError, PictureError
from edge_agent.pictures import Image, decode

_CHUNK = 65_536
_MAX_HEADER = 8_192


class MjpegSource:
    """One stream. ``damaged`` is called for each picture that cannot be decoded."""

    def __init__(
        self, where: str, name: str, *, timeout_seconds: float, max_pixels: int, damaged: Callable[[str], None]
    ) -> None:
        self._where = where
        self._name = name
        self._timeout = timeout_seconds
        self._max_pixels = max_pixels
        self._max_bytes = max_pixels * 3
        self._damaged = damaged
        self._buffer = bytearray()
        self._connection: http.client.HTTPConnection | None = None
        self._answer: http.client.HTTPResponse | None = None
        self._boundary = b""
        self._here_only = False

    def open(self, settings: Mapping[str, float]) -> Mapping[str, float]:
        """Connect. DeviceError when it does not answer with a stream; settings belong into the address here."""
        if settings:
            raise DeviceError(
                f"{self._name} takes no settings ({', '.join(settings)}); set them in the camera or its address"
            )
        try:
            self._connect()
        except (OSError, http.client.HTTPException) as error:
            raise DeviceError(f"{self._name} does not answer: {error}; check address, network and power") from error
        return {}

    def _connect(self) -> None:
        url = urlsplit(self._where)
        port, host = url.port, url.hostname or ""
        self._connection = (
            http.client.HTTPSConnection(host, port, timeout=self._timeout, context=trusted())
            if url.scheme == "https"
            else http.client.HTTPConnection(host, port, timeout=self._timeout)
        )
        headers = {}
        if url.username is not None:
            secret = f"{unquote(url.username)}:{unquote(url.password or '')}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(secret).decode()}"
        self._connection.request("GET", (url.path or "/") + (f"?{url.query}" if url.query else ""), headers=headers)
        answer = self._connection.getresponse()
        kind = answer.headers.get_content_type()
        boundary = answer.headers.get_param("boundary")
        if answer.status != 200 or not kind.startswith("multipart/") or not isinstance(boundary, str):
            raise DeviceError(
                f"{self._name} answered {answer.status} {kind}, not a stream of pictures; check address, user and password"
            )
        self._answer, self._boundary = answer, b"--" + boundary.removeprefix("--").encode()

    def read(self) -> Image | None:
        """The newest picture that is here whole and can be decoded; None at the end of the stream."""
        while (data := self._newest()) is not None:
            try:
                return decode(data, max_bytes=self._max_bytes, max_pixels=self._max_pixels)
            except PictureError as error:
                self._damaged(str(error))
        return None

    def _newest(self) -> bytes | None:
        """The last of the parts that have arrived: a stream that comes faster than it is decoded must not fall behind."""
        data = self._part()
        while data is not None and (newer := self._part_here()) is not None:
            data = newer
        return data

    def _part_here(self) -> bytes | None:
        """A further part, if it has arrived whole; nothing is waited for."""
        while len(self._buffer) < self._max_bytes and self._waits() and self._more():
            pass
        before, self._here_only = bytes(self._buffer), True
        try:
            data = self._part()
        finally:
            self._here_only = False
        if data is None:
            self._buffer[:] = before
        return data

    def _waits(self) -> bool:
        """Whether there is more to be read at once."""
        try:
            return self._answer is not None and bool(select.select([self._answer], [], [], 0)[0])
        except (OSError, ValueError):  # closed meanwhile
            return False

    def _part(self) -> bytes | None:
        if not self._skip_past(self._boundary) or (header := self._until(b"\r\n\r\n", _MAX_HEADER)) is None:
            return None
        for line in header.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length" and value.strip().isdigit():
                return self._exactly(min(int(value), self._max_bytes))
        data = self._until(b"\r\n" + self._boundary, self._max_bytes)
        if data is not None:
            self._buffer[:0] = self._boundary  # the next part begins with it
        return data

    def _skip_past(self, mark: bytes) -> bool:
        while (at := self._buffer.find(mark)) < 0:
            del self._buffer[: max(0, len(self._buffer) - len(mark))]
            if not self._more():
                return False
        del self._buffer[: at + len(mark)]
        return True

    def _until(self, mark: bytes, limit: int) -> bytes | None:
        searched = 0
        while (at := self._buffer.find(mark, searched)) < 0:
            searched = max(0, len(self._buffer) - len(mark))
            if len(self._buffer) > limit or not self._more():
                return None
        found = bytes(self._buffer[:at])
        del self._buffer[: at + len(mark)]
        return found

    def _exactly(self, length: int) -> bytes | None:
        while len(self._buffer) < length:
            if not self._more():
                return None
        found = bytes(self._buffer[:length])
        del self._buffer[:length]
        return found

    def _more(self) -> bool:
        """Read on; False at the end, and after the deadline."""
        if self._here_only:
            return False
        try:
            data = self._answer.read1(_CHUNK) if self._answer is not None else b""
        except (OSError, http.client.HTTPException):
            return False
        self._buffer += data
        return bool(data)

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
