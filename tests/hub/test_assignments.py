"""What the hub hands to devices: assignments and signed targets; and what it keeps of their reports."""

import httpx
import pytest

from inspection.contracts import Ledger
from inspection.store.session import Store
from inspection.store.tables import AssignmentRow, BundleRow, DeviceRow
from tests.hub.helpers import Line, report


def assign(store: Store, station: str, serial: int) -> bytes:
    envelope = f'{{"payload":"{station} {serial}"}}'.encode()
    with store.begin() as session:
        session.add(AssignmentRow(station=station, serial=serial, envelope=envelope))
    return envelope


def test_a_device_gets_the_newest_assignment_of_its_own_station(line: Line, store: Store) -> None:
    """Highest serial, exactly the signed bytes, and 204 while there is none."""
    assert line.call("GET", "/v1/assignment").status_code == 204
    assign(store, "press-1", 2)
    newest = assign(store, "press-1", 10)
    assign(store, "press-2", 11)
    answer = line.call("GET", "/v1/assignment")
    assert answer.content == newest
    assert answer.headers["content-type"] == "application/json"


def test_an_assignment_the_device_has_is_not_sent_again(line: Line, store: Store) -> None:
    """If-None-Match spares the bytes until the serial rises."""
    assign(store, "press-1", 1)
    tag = line.call("GET", "/v1/assignment").headers["etag"]
    assert line.call("GET", "/v1/assignment", headers={"If-None-Match": tag}).status_code == 304
    assign(store, "press-1", 2)
    assert line.call("GET", "/v1/assignment", headers={"If-None-Match": tag}).status_code == 200


def test_only_signed_targets_leave_the_hub(line: Line, store: Store) -> None:
    """Bytes and envelope as they were signed; an unsigned one looks as if it were not there."""
    data = bytes(range(256)) * 9000
    sha256 = store.blobs.put("targets", data)
    row = BundleRow(sha256=sha256, kind="bundle", product="lid", name="lid", version=1, length=len(data))
    with store.begin() as session:
        session.add(row)
    assert line.call("GET", f"/v1/targets/{sha256}").status_code == 404
    with store.begin() as session:
        session.get_one(BundleRow, sha256).envelope = b'{"payload":"x"}'
    answer = line.call("GET", f"/v1/targets/{sha256}")
    assert answer.content == data
    assert int(answer.headers["content-length"]) == len(data)
    assert line.call("GET", f"/v1/targets/{sha256}/envelope").content == b'{"payload":"x"}'


def test_a_target_whose_bytes_are_gone_is_said_in_words(line: Line, store: Store) -> None:
    """410 names what is missing: somebody removed a blob."""
    with store.begin() as session:
        row = BundleRow(sha256="a" * 64, kind="bundle", product="lid", name="lid", version=1, length=5, envelope=b"{}")
        session.add(row)
    answer = line.call("GET", "/v1/targets/" + "a" * 64)
    assert answer.status_code == 410
    assert "a" * 64 in answer.json()["detail"]


@pytest.mark.parametrize("name", ["..%2f..%2fsecrets.json", "A" * 64, "a" * 63, "secrets.json"])
def test_a_target_is_asked_for_by_digest_only(line: Line, name: str) -> None:
    """No path reaches another file of the state folder."""
    assert line.call("GET", f"/v1/targets/{name}").status_code in (404, 422)


def test_the_newest_report_is_kept(line: Line, store: Store) -> None:
    """With the moment it came, by the hub's own clock."""
    line.call("POST", "/v1/report", content=report(outbox_depth=3).canonical())
    last = report(ledger=Ledger(triggers=2, ok=1, ng=1), outbox_depth=0)
    assert line.call("POST", "/v1/report", content=last.canonical()).status_code == 204
    with store.begin(read_only=True) as session:
        row = session.get_one(DeviceRow, "cam-1")
    assert row.report == last.model_dump(mode="json")
    assert row.last_seen is not None
    assert row.last_seen >= row.enrolled_at


@pytest.mark.parametrize("body", [b"", b"[]", b'{"schema":"escapement.report/9.0"}'])
def test_a_bad_report_is_refused(line: Line, body: bytes) -> None:
    """422 in words."""
    answer = line.call("POST", "/v1/report", content=body)
    assert answer.status_code == 422
    assert "not a report" in answer.json()["detail"]["message"]


def test_a_huge_report_is_refused_unread(line: Line, anyone: httpx.Client) -> None:
    """A report has at most 256 KiB."""
    assert line.call("POST", "/v1/report", content=b" " * 300_000).status_code == 413
