"""How bytes reach the hub and come back: the port, HTTP, and a directory (air gap, tests).

Invariants: an adapter moves bytes and judges none of them; every foreign error becomes HubError (try later) or
HubRefusalError (this item: never); `fetch` stops as soon as more bytes come than were promised.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from edge_agent.errors import HubError, HubRefusalError
from edge_agent.files import write_durably
from inspection.contracts import Enrolment, PictureNote, Receipt, Report, sha256_hex

_NEVER = frozenset({400, 409, 413, 415, 422})
T = TypeVar("T")
_RECEIPTS = TypeAdapter(list[Receipt])


class Transport(Protocol):
    """The hub, seen from a device."""

    def enrol(self, code: str, device: str, station: str) -> Enrolment:
        """Exchange a one-time code for the device's secret and trust root."""

    def send_verdicts(self, bodies: Sequence[bytes]) -> list[Receipt]:
        """Send verdicts (canonical JSON each)."""

    def send_picture(self, note: PictureNote, data: bytes) -> Receipt:
        """Send one picture."""

    def assignment(self) -> bytes | None:
        """The station's signed assignment, or None when there is none yet."""

    def envelope(self, sha256: str) -> bytes:
        """The signed release of a target."""

    def fetch(self, sha256: str, length: int, into: BinaryIO) -> None:
        """Write a target's bytes to ``into``; HubError as soon as there are more than ``length``."""

    def report(self, report: Report) -> None:
        """Say how this device is."""

    def close(self) -> None:
        """Let go of connections."""


class HttpTransport:
    """The hub over HTTP. ``token`` None only to enrol."""

    def __init__(self, hub: str, token: str | None, *, timeout_seconds: float) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(base_url=hub.rstrip("/"), headers=headers, timeout=timeout_seconds)

    def enrol(self, code: str, device: str, station: str) -> Enrolment:
        """POST /v1/enrol."""
        answer = self._call("POST", "/v1/enrol", json={"code": code, "device": device, "station": station})
        return _understood(lambda: Enrolment.parse(answer.content))

    def send_verdicts(self, bodies: Sequence[bytes]) -> list[Receipt]:
        """POST /v1/verdicts with a JSON list."""
        content = b"[" + b",".join(bodies) + b"]"
        answer = self._call("POST", "/v1/verdicts", content=content, headers={"Content-Type": "application/json"})
        return _understood(lambda: _RECEIPTS.validate_json(answer.content))

    def send_picture(self, note: PictureNote, data: bytes) -> Receipt:
        """PUT /v1/pictures/<sha256>. 404 means the hub does not know the verdict, which was sent before: never."""
        answer = self._call(
            "PUT",
            f"/v1/pictures/{note.sha256}",
            params={"verdict": note.verdict_id, "why": note.why},
            content=data,
            headers={"Content-Type": "image/png"},
            never=_NEVER | {404},
        )
        return _understood(lambda: Receipt.parse(answer.content))

    def assignment(self) -> bytes | None:
        """GET /v1/assignment."""
        answer = self._call("GET", "/v1/assignment")
        return None if answer.status_code == 204 else answer.content

    def envelope(self, sha256: str) -> bytes:
        """GET /v1/targets/<sha256>/envelope."""
        return self._call("GET", f"/v1/targets/{sha256}/envelope").content

    def fetch(self, sha256: str, length: int, into: BinaryIO) -> None:
        """GET /v1/targets/<sha256>, streamed."""
        got = 0
        try:
            with self._client.stream("GET", f"/v1/targets/{sha256}") as answer:
                _check(answer, _NEVER)
                for chunk in answer.iter_bytes():
                    got += len(chunk)
                    if got > length:
                        raise HubError(f"target {sha256[:12]} is longer than the {length} bytes that were signed")
                    into.write(chunk)
        except httpx.HTTPError as error:
            raise HubError(f"target {sha256[:12]} could not be fetched: {error}; tried again later") from error

    def report(self, report: Report) -> None:
        """POST /v1/report."""
        self._call("POST", "/v1/report", content=report.canonical(), headers={"Content-Type": "application/json"})

    def close(self) -> None:
        """Close the connection pool."""
        self._client.close()

    def _call(self, method: str, path: str, *, never: frozenset[int] = _NEVER, **request: Any) -> httpx.Response:
        try:
            answer = self._client.request(method, path, **request)
        except httpx.HTTPError as error:
            raise HubError(f"{method} {path}: {error}; tried again later") from error
        _check(answer, never)
        return answer


def _check(answer: httpx.Response, never: frozenset[int]) -> None:
    if answer.is_success:
        return
    what = f"{answer.request.method} {answer.request.url.path}: the hub answered {answer.status_code}"
    if answer.status_code in never:
        answer.read()
        raise HubRefusalError(f"{what}: {answer.text[:300]}")
    hint = "; is this device's token still valid? enrol again" if answer.status_code in (401, 403) else ""
    raise HubError(f"{what}{hint}")


def _understood(read: Callable[[], T]) -> T:
    try:
        return read()
    except ValidationError as error:
        raise HubError(f"the hub's answer makes no sense: {error}; is that address really a hub?") from error


class DirectoryTransport:
    """A folder carried by hand. ``to_device/`` holds `enrolment.json`, `assignment.json` and `targets/<sha256>` with
    `.envelope` beside; ``from_device/`` collects verdicts, pictures and the newest report.

    A receipt here means: the bytes are on this medium, read back and digested.
    """

    def __init__(self, folder: Path) -> None:
        self._down = folder / "to_device"
        self._up = folder / "from_device"

    def enrol(self, code: str, device: str, station: str) -> Enrolment:
        """Read the enrolment that was put here for this device; the code is not needed on a medium held in hand."""
        enrolment = _understood(lambda: Enrolment.parse(self._read(self._down / "enrolment.json")))
        if (enrolment.device, enrolment.station) != (device, station):
            raise HubRefusalError(f"enrolment {code!r} is for {enrolment.device} at {enrolment.station}; check --device")
        return enrolment

    def send_verdicts(self, bodies: Sequence[bytes]) -> list[Receipt]:
        """One file per verdict, named by its id."""
        return [self._keep("verdict", str(json.loads(body)["id"]), "verdicts", ".json", body) for body in bodies]

    def send_picture(self, note: PictureNote, data: bytes) -> Receipt:
        """The picture, and its note per verdict."""
        receipt = self._keep("picture", note.sha256, "pictures", ".png", data)
        self._keep("note", note.verdict_id, "notes", ".json", note.canonical())
        return receipt

    def assignment(self) -> bytes | None:
        """`assignment.json`, when there is one."""
        path = self._down / "assignment.json"
        return self._read(path) if path.exists() else None

    def envelope(self, sha256: str) -> bytes:
        """`targets/<sha256>.envelope`."""
        return self._read(self._down / "targets" / f"{sha256}.envelope")

    def fetch(self, sha256: str, length: int, into: BinaryIO) -> None:
        """`targets/<sha256>`."""
        path = self._down / "targets" / sha256
        data = self._read(path)
        if len(data) > length:
            raise HubError(f"{path} is longer than the {length} bytes that were signed")
        into.write(data)

    def report(self, report: Report) -> None:
        """`report.json`, replaced each time."""
        self._keep("report", "report", "", ".json", report.canonical())

    def close(self) -> None:
        """Nothing is held open."""

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise HubError(f"{path} cannot be read: {error.strerror}; is the medium plugged in?") from error

    def _keep(self, kind: str, key: str, folder: str, suffix: str, data: bytes) -> Receipt:
        path = self._up / folder / f"{key}{suffix}"
        try:
            new = not path.exists()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, data)
            digest = sha256_hex(path.read_bytes())
        except OSError as error:
            raise HubError(f"{path} cannot be written: {error.strerror}; is the medium full or write-protected?") from error
        return Receipt(kind=kind, key=key, sha256=digest, new=new)
