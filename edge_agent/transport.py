"""How bytes reach the hub and come back: the port, HTTP, and a directory (air gap, tests).

Invariants: an adapter moves bytes and judges none of them; every foreign error becomes HubError (try later) or
HubRefusalError (this item: never); a refusal is only what the hub itself says with a code of its own, not whatever a proxy
or a captive portal answers in its place; `fetch` stops as soon as more bytes come than were promised.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from edge_agent.authorities import trusted
from edge_agent.errors import HubError, HubRefusalError, TokenError
from edge_agent.files import write_durably
from inspection.contracts import Enrolment, PictureNote, Receipt, Report, sha256_hex

_NEVER = frozenset({400, 403, 409, 413, 415, 422})  # with a code of the hub's; without one nobody knows who answered
_DAMAGED_ON_THE_WAY = frozenset({"digest_mismatch"})
_UNKNOWN_VERDICT = "unknown_verdict"
_UNKNOWN_VERDICT_WORDS = "send the verdict before its picture"  # of older hubs, which give no code for it
_MAX_WORDS = 300
T = TypeVar("T")
_RECEIPTS = TypeAdapter(list[Receipt])


class Transport(Protocol):
    """The hub, seen from a device."""

    def enrol(self, code: str, device: str, station: str) -> Enrolment:
        """Exchange a one-time code for the device's secret and trust root."""

    def send_verdicts(self, bodies: Sequence[bytes]) -> list[Receipt]:
        """Send verdicts (canonical JSON each)."""

    def send_picture(self, note: PictureNote, data: bytes) -> Receipt | None:
        """Send one picture. None: the hub does not hold its verdict, which must be sent first."""

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
        self._client = httpx.Client(base_url=hub.rstrip("/"), headers=headers, timeout=timeout_seconds, verify=trusted())

    def enrol(self, code: str, device: str, station: str) -> Enrolment:
        """POST /v1/enrol."""
        answer = self._call("POST", "/v1/enrol", json={"code": code, "device": device, "station": station})
        return _understood(lambda: Enrolment.parse(answer.content))

    def send_verdicts(self, bodies: Sequence[bytes]) -> list[Receipt]:
        """POST /v1/verdicts with a JSON list."""
        content = b"[" + b",".join(bodies) + b"]"
        answer = self._call("POST", "/v1/verdicts", content=content, headers={"Content-Type": "application/json"})
        return _understood(lambda: _RECEIPTS.validate_json(answer.content))

    def send_picture(self, note: PictureNote, data: bytes) -> Receipt | None:
        """PUT /v1/pictures/<sha256>. None on the hub's own 404: it does not hold the verdict."""
        answer = self._ask(
            "PUT",
            f"/v1/pictures/{note.sha256}",
            params={"verdict": note.verdict_id, "why": note.why},
            content=data,
            headers={"Content-Type": "image/png"},
        )
        if answer.status_code == 404:
            code, words = _said(answer)
            if code == _UNKNOWN_VERDICT or _UNKNOWN_VERDICT_WORDS in words:
                return None
        _check(answer)
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
                if not answer.is_success:
                    raise HubError(f"target {sha256[:12]}: the hub answered {answer.status_code}; tried again later")
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

    def _call(self, method: str, path: str, **request: Any) -> httpx.Response:
        answer = self._ask(method, path, **request)
        _check(answer)
        return answer

    def _ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **request)
        except httpx.HTTPError as error:
            raise HubError(f"{method} {path}: {type(error).__name__}: {error}; tried again later") from error


def _check(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    status = answer.status_code
    code, words = _said(answer)
    what = f"{answer.request.method} {answer.request.url.path}: the hub answered {status}: {words}"
    if code is not None and status in _NEVER and code not in _DAMAGED_ON_THE_WAY:
        raise HubRefusalError(what)
    hint = "; is this device's token still valid? enrol again" if status in (401, 403) else ""
    raise (TokenError if status == 401 else HubError)(f"{what}{hint}")


def _said(answer: httpx.Response) -> tuple[str | None, str]:
    """The code the hub gave, or None: it gave none, or it was not the hub that answered; and its words."""
    try:
        detail = json.loads(answer.content)["detail"]
    except (ValueError, KeyError, TypeError):  # no JSON, no object, no detail: a page of somebody else's
        return None, " ".join(answer.text[:_MAX_WORDS].split()) or answer.reason_phrase
    if isinstance(detail, dict) and isinstance(detail.get("code"), str):
        return detail["code"], str(detail.get("message", ""))[:_MAX_WORDS]
    return None, str(detail)[:_MAX_WORDS]


def _understood(read: Callable[[], T]) -> T:
    try:
        return read()
    except ValidationError as error:
        raise HubError(f"the hub's answer makes no sense: {error}; is that address really a hub?") from error


class DirectoryTransport:
    """A folder carried by hand. ``to_device/`` holds `enrolment.json`, `assignment.json` and `targets/<sha256>` with
    `.envelope` beside; ``from_device/`` collects verdicts, pictures and the newest report.

    A receipt here means: the bytes are on this medium, read back and digested. ``to_device/`` tells a medium from the empty
    folder where one is to be mounted: without it nothing is read or written.
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
        self._find_medium()
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

    def _find_medium(self) -> None:
        try:
            self._down.stat()
        except OSError as error:
            raise HubError(
                f"{self._down} cannot be found: {error.strerror}; is the medium plugged in and mounted? Tried again later"
            ) from error

    def _keep(self, kind: str, key: str, folder: str, suffix: str, data: bytes) -> Receipt:
        self._find_medium()
        path = self._up / folder / f"{key}{suffix}"
        try:
            new = not path.exists()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, data)
            digest = sha256_hex(path.read_bytes())
        except OSError as error:
            raise HubError(f"{path} cannot be written: {error.strerror}; is the medium full or write-protected?") from error
        return Receipt(kind=kind, key=key, sha256=digest, new=new)
