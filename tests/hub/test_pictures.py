"""Pictures arrive whole and sound, or not at all, and leave only by their link."""

import errno
import socket
import struct
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import httpx
import numpy as np
import pytest
from sqlalchemy import select

from edge_agent.errors import HubRefusalError
from edge_agent.transport import HttpTransport
from inspection.contracts import PictureNote, Receipt, Verdict, sha256_hex
from inspection.hub.links import picture_link, picture_mac, picture_path
from inspection.settings import Settings
from inspection.store.session import Store
from inspection.store.tables import PictureRow, QuarantineRow, VerdictRow
from tests.hub.helpers import Line, enrol, png, verdict


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb() -> bytes:
    """A small file that says it is 30,000 pixels a side."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(b"\0" * 30_001)) + _chunk(b"IEND", b"")


def rows(store: Store) -> tuple[int, list[str]]:
    with store.begin(read_only=True) as session:
        return len(session.scalars(select(PictureRow)).all()), list(session.scalars(select(QuarantineRow.code)))


def test_a_picture_follows_its_verdict_and_gets_a_receipt(line: Line, store: Store) -> None:
    """The verdict's row names the picture only from now on, with the reason it was kept."""
    data = png()
    owner = verdict(1, frame_sha256=sha256_hex(data))
    line.send(owner)
    with store.begin(read_only=True) as session:
        assert session.get_one(VerdictRow, owner.id).picture is None, "the bytes are not here yet"
    answers = [line.upload(owner, data, why="audit").json() for _ in range(2)]
    assert [(a["kind"], a["key"], a["sha256"], a["new"]) for a in answers] == [
        ("picture", sha256_hex(data), sha256_hex(data), True),
        ("picture", sha256_hex(data), sha256_hex(data), False),
    ]
    with store.begin(read_only=True) as session:
        row = session.get_one(VerdictRow, owner.id)
        kept = session.get_one(PictureRow, sha256_hex(data))
    assert (row.picture, row.picture_why) == (sha256_hex(data), "audit")
    assert (kept.part, kept.group, kept.station, kept.product) == (owner.part, owner.part, "press-1", "lid")
    assert store.blobs.get(f"pictures/{sha256_hex(data)}") == data


def test_a_picture_without_its_verdict_is_not_taken(line: Line, store: Store) -> None:
    """404 says to send the verdict first; nothing is kept."""
    answer = line.upload(verdict(9), png())
    assert answer.status_code == 404
    assert answer.json()["detail"]["code"] == "unknown_verdict"
    assert "before its picture" in answer.json()["detail"]["message"]
    assert rows(store) == (0, [])


def test_a_picture_of_another_frame_is_not_taken(line: Line) -> None:
    """A verdict that names its frame takes no other one."""
    owner = verdict(1, frame_sha256=sha256_hex(png(1)))
    line.send(owner)
    assert line.upload(owner, png(2)).status_code == 409


def test_another_devices_verdict_takes_no_picture(line: Line, settings: Settings) -> None:
    """A device cannot put pictures under a neighbour's part."""
    owner = verdict(1)
    line.send(owner)
    other = Line(line.client, enrol(line.client, settings, "cam-2", "press-2").token)
    assert other.upload(owner, png()).status_code == 403


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty"),
        (b"MZ this is no picture", "not_a_picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "not_a_picture"),
        (b"GIF89a" + b"\0" * 100, "not_a_picture"),
        (png()[:-20], "truncated"),
        (bomb(), "too_many_pixels"),
    ],
    ids=["empty", "program", "script", "gif", "truncated", "bomb"],
)
def test_what_is_no_sound_picture_is_refused_and_counted(line: Line, store: Store, data: bytes, code: str) -> None:
    """422 with the code; one quarantine row; no picture."""
    owner = verdict(1)
    line.send(owner)
    answer = line.upload(owner, data)
    assert answer.status_code == 422
    assert answer.json()["detail"]["code"] == code
    assert rows(store) == (0, [code])


def test_bytes_with_another_digest_are_refused_and_counted(line: Line, store: Store) -> None:
    """A picture damaged on its way is never kept under the promised name."""
    owner = verdict(1)
    line.send(owner)
    answer = line.upload(owner, png(1), sha256=sha256_hex(png(2)))
    assert answer.status_code == 422
    assert rows(store) == (0, ["digest_mismatch"])


@dataclass(frozen=True)
class Sent:
    """A picture as an agent sends it: whose, of which verdict, why; the hub's answer, as that agent understands it."""

    owner: Verdict
    data: bytes
    why: str = "ng"

    def over(self, address: str, line: Line) -> Receipt | None:
        note = PictureNote(sha256=sha256_hex(self.data), length=len(self.data), verdict_id=self.owner.id, why=self.why)
        transport = HttpTransport(address, line.token, timeout_seconds=20)
        try:
            return transport.send_picture(note, self.data)
        finally:
            transport.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (Sent(verdict(1), png(2)), 409),
        (Sent(verdict(2), png(1)), 403),
        (Sent(verdict(1), b"x" * 200_001), 413),
        (Sent(verdict(1), png(1), why="because"), 422),
        (Sent(verdict(1, id="i" * 65), png(1)), 422),
    ],
    ids=["another frame", "another device", "too large", "unknown reason", "no such id"],
)
def test_an_agent_understands_what_is_refused_for_good(
    line: Line, address: str, settings: Settings, sent: Sent, status: int
) -> None:
    """Else it would send the same picture for ever."""
    line.send(verdict(1, frame_sha256=sha256_hex(png(1))))
    other = Line(line.client, enrol(line.client, settings, "cam-2", "press-2").token)
    other.send(verdict(2, device="cam-2", station="press-2"))
    with pytest.raises(HubRefusalError, match=f"answered {status}: "):
        sent.over(address, line)


def test_an_agent_understands_which_verdict_is_not_here(line: Line, address: str) -> None:
    """It sends that first, and then the picture again."""
    assert Sent(verdict(1), png()).over(address, line) is None
    line.send(verdict(1))
    receipt = Sent(verdict(1), png()).over(address, line)
    assert receipt is not None
    assert receipt.sha256 == sha256_hex(png())


def _raw(address: str, head: str, body: bytes = b"") -> socket.socket:
    parts = urlsplit(address)
    assert parts.hostname
    assert parts.port
    connection = socket.create_connection((parts.hostname, parts.port), timeout=10)
    connection.sendall(head.encode() + body)
    return connection


def _head(line: Line, owner_id: str, sha256: str, length: int) -> str:
    return (
        f"PUT /v1/pictures/{sha256}?verdict={owner_id}&why=ng HTTP/1.1\r\nHost: hub\r\n"
        f"Authorization: Bearer {line.token}\r\nContent-Length: {length}\r\n\r\n"
    )


def test_too_large_a_picture_is_refused_before_it_is_read(line: Line, address: str, settings: Settings) -> None:
    """413 comes although not one byte of the body was sent."""
    head = _head(line, "any", "0" * 64, settings.max_picture_bytes + 1)
    with _raw(address, head) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_a_sender_that_leaves_early_leaves_nothing(line: Line, address: str, store: Store) -> None:
    """Half a picture is no picture; the next one is taken as ever."""
    data = png()
    owner = verdict(1)
    line.send(owner)
    _raw(address, _head(line, owner.id, sha256_hex(data), len(data)), data[: len(data) // 2]).close()
    deadline = time.monotonic() + 10
    while "upload_bytes_in_flight 0.0" not in line.client.get("/metrics").text:
        assert time.monotonic() < deadline, "the hub still holds the half picture"
    assert rows(store) == (0, [])
    assert not list(Path(store.blobs.url.removeprefix("file://")).rglob("*.tmp"))
    assert line.upload(owner, data).status_code == 200


def test_a_full_disk_is_said_in_words_and_leaves_nothing(line: Line, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """507 while the disk is full; afterwards the same upload is taken."""
    data = png()
    owner = verdict(1)
    line.send(owner)

    def full(descriptor: int) -> None:  # stands in for the operating system: no test may fill a real disk
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("inspection.store.blobs.os.fsync", full)
        answer = line.upload(owner, data)
    assert answer.status_code == 507
    assert "disk is full" in answer.json()["detail"]
    assert rows(store) == (0, [])
    assert line.upload(owner, data).json()["new"] is True


@pytest.fixture
def kept(line: Line) -> bytes:
    """A picture of 600 x 400 pixels that the hub holds."""
    data: bytes = cv2.imencode(".png", np.full((400, 600, 3), 90, np.uint8))[1].tobytes()
    owner = verdict(1)
    line.send(owner)
    assert line.upload(owner, data).status_code == 200
    return data


def test_whoever_holds_the_link_sees_the_picture(kept: bytes, anyone: httpx.Client, settings: Settings) -> None:
    """No password, headers that let Label Studio draw it, and a long life in caches."""
    answer = anyone.get(picture_path(settings, sha256_hex(kept)))
    assert answer.content == kept
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "immutable" in answer.headers["cache-control"]
    again = anyone.get(picture_path(settings, sha256_hex(kept)), headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    assert picture_link(settings, sha256_hex(kept)) == settings.hub_url + picture_path(settings, sha256_hex(kept))


def test_a_thumbnail_is_small(kept: bytes, anyone: httpx.Client, settings: Settings) -> None:
    """At most 320 pixels a side, for lists."""
    answer = anyone.get(picture_path(settings, sha256_hex(kept)), params={"size": "thumb"})
    image = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert max(image.shape) == 320


def test_nobody_guesses_a_link(kept: bytes, anyone: httpx.Client, settings: Settings) -> None:
    """One wrong digit, another picture's code, or none: all look the same."""
    sha256 = sha256_hex(kept)
    mac = picture_mac(settings, sha256)
    flipped = ("1" if mac[0] == "0" else "0") + mac[1:]
    unknown = "0" * 64
    other = picture_mac(settings, unknown)
    links = [f"{sha256}-{flipped}", f"{sha256}-{other}", f"{unknown}-{other}"]
    answers = [anyone.get(f"/p/{link}") for link in links]
    assert {(a.status_code, a.text) for a in answers} == {(404, '{"detail":"no such picture"}')}
    assert anyone.get(f"/p/{sha256}").status_code == 422
