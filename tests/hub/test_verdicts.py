"""Verdicts arrive exactly once."""

import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import func, select

from inspection.hub.ingest import MAX_VERDICTS
from inspection.store.session import Store
from inspection.store.tables import QuarantineRow, VerdictRow
from tests.hub.helpers import Line, body_of, verdict


def held(store: Store) -> int:
    with store.begin(read_only=True) as session:
        return session.scalar(select(func.count()).select_from(VerdictRow)) or 0


def quarantined(store: Store) -> list[str]:
    with store.begin(read_only=True) as session:
        return list(session.scalars(select(QuarantineRow.code).order_by(QuarantineRow.id)))


def test_a_receipt_carries_the_digest_of_what_was_sent(line: Line) -> None:
    """The sender may delete its copy only because of these digests."""
    sent = [verdict(1), verdict(2, decision="OK", defect_class=None, a_field_of_tomorrow={"x": 1.5})]
    receipts = line.send(*sent)
    assert [(r.kind, r.key, r.sha256, r.new) for r in receipts] == [("verdict", v.id, v.digest, True) for v in sent]


def test_the_same_verdict_twice_is_one_row(line: Line, store: Store) -> None:
    """Upload is at-least-once, storage is exactly-once."""
    one = verdict(1)
    assert [r.new for r in line.send(one)] == [True]
    assert [r.new for r in line.send(one, one)] == [False, False]
    assert held(store) == 1
    assert quarantined(store) == []


def test_the_same_batch_over_many_connections_is_stored_once(line: Line, store: Store) -> None:
    """A retry that races with the first try changes nothing."""
    body = body_of(*(verdict(n) for n in range(1, 21)))
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: line.call("POST", "/v1/verdicts", content=body), range(6)))
    assert {answer.status_code for answer in answers} == {200}
    assert sum(receipt["new"] for answer in answers for receipt in answer.json()) == 20
    assert held(store) == 20


def test_another_verdict_under_the_same_key_is_refused_by_name(line: Line, store: Store) -> None:
    """History is not rewritten: 409 names the verdict, quarantine keeps it, its neighbours are not stored."""
    line.send(verdict(1))
    rewritten = verdict(1, decision="OK", defect_class=None)
    answer = line.call("POST", "/v1/verdicts", content=body_of(verdict(2), rewritten))
    assert answer.status_code == 409
    assert answer.json()["detail"]["code"] == "verdict_conflict"
    assert rewritten.id in answer.json()["detail"]["message"]
    assert held(store) == 1
    assert quarantined(store) == ["verdict_conflict"]


def test_a_device_speaks_for_its_own_station_only(line: Line, store: Store) -> None:
    """Verdicts of another station could stop its rollout."""
    answer = line.call("POST", "/v1/verdicts", content=body_of(verdict(1, station="press-9")))
    assert (answer.status_code, answer.json()["detail"]["code"]) == (403, "foreign_verdict")
    assert held(store) == 0


def test_a_retried_refusal_is_counted_once(line: Line, store: Store) -> None:
    """A device that keeps trying must not fill the quarantine."""
    for _ in range(3):
        assert line.call("POST", "/v1/verdicts", content=b"[{}]").status_code == 422
    assert quarantined(store) == ["bad_verdict"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": "escapement.verdict/2.0"}, "update this program"),
        ({"schema": "escapement.report/1.0"}, "expected 'escapement.verdict'"),
        ({"decision": "MAYBE"}, "decision"),
        ({"captured_at": "2026-01-01T10:00:00"}, "captured_at"),
        ({"scores": {"good": 1.5}}, "scores"),
        ({"timings_ms": {"infer": float("nan")}}, "canonical"),
        ({"sequence": 2**63}, "too large"),
        ({"part": "x" * 201}, "201 characters"),
        ({"part": ""}, "must not be empty"),
        ({"lot": "a\0b"}, "NUL"),
        ({"device": "../cam"}, "device"),
        ({"product": "lib"}, "lid"),
    ],
)
def test_a_bad_verdict_is_refused_in_words(line: Line, store: Store, changes: dict[str, object], said: str) -> None:
    """Nothing of the batch is kept, the culprit is counted, and the answer names what is wrong."""
    bad = json.loads(verdict(2).canonical()) | changes
    body = json.dumps([json.loads(verdict(1).canonical()), bad]).encode()
    answer = line.call("POST", "/v1/verdicts", content=body)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]["message"]
    assert held(store) == 0
    assert len(quarantined(store)) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"null", b'[{"sequence": ' + b"9" * 5000 + b"}]", b"[" * 5000, b"\xff\xfe"])
def test_nonsense_is_refused(line: Line, body: bytes) -> None:
    """Bytes that are no list of verdicts are 422, never a crash."""
    assert line.call("POST", "/v1/verdicts", content=body).status_code == 422


def test_a_batch_has_a_limit(line: Line, store: Store) -> None:
    """501 verdicts are too many for one transaction."""
    batch = [verdict(n) for n in range(1, MAX_VERDICTS + 2)]
    assert line.call("POST", "/v1/verdicts", content=body_of(*batch)).status_code == 422
    assert held(store) == 0
    assert len(line.send(*batch[:MAX_VERDICTS])) == MAX_VERDICTS


def test_a_body_without_a_length_is_refused(line: Line, anyone: httpx.Client) -> None:
    """Without an announced length nothing can be promised about memory."""
    answer = line.call("POST", "/v1/verdicts", content=iter([b"[", b"]"]))
    assert answer.status_code == 411
