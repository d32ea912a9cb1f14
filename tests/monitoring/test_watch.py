"""What somebody must look at is said, and nothing is said of a line that is well."""

from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.contracts import Ledger, Report, sha256_hex
from inspection.contracts.fleet import AgentState
from inspection.data.intake import accept_verdicts
from inspection.monitoring.drift import errors_rose, score_shift
from inspection.monitoring.watch import watch
from inspection.store.session import Store
from inspection.store.tables import DeviceRow, utc_now
from tests.hub.helpers import report, verdict

NOW = utc_now()
OLD, NEW = sha256_hex(b"old"), sha256_hex(b"new")


def device(store: Store, one: Report | None, *, seen: datetime | None = NOW, enrolled: datetime = NOW) -> None:
    row = DeviceRow(name="cam-1", station="press-1", token_sha256="0" * 64, last_seen=seen, enrolled_at=enrolled)
    row.report = one.model_dump(mode="json") if one else None
    with store.begin() as session:
        session.add(row)


def kinds(store: Store) -> list[str]:
    return [found.kind for found in watch(store, "lid", poll_seconds=30, now=NOW)]


def line(store: Store, scores: list[float], *, errors: int = 0, start: int = 1, **fields: object) -> None:
    with store.begin() as session:
        for number, score in enumerate(scores, start):
            broken = number - start >= len(scores) - errors
            changes = {"decision": "ERROR", "defect_class": None, "scores": {}} if broken else {}
            values = {"scores": {"good": 1 - score, "scratch": score}, "bundle_digest": NEW} | fields | changes
            at = NOW - timedelta(seconds=5000 - number)
            accept_verdicts(session, [verdict(number, captured_at=at, **values)])


def test_a_line_that_is_well_gives_no_finding(store: Store) -> None:
    """A fresh report, a ledger that closes, the same scores as ever."""
    device(store, report(ledger=Ledger(triggers=2, ok=2)))
    line(store, list(np.random.default_rng(1).beta(2, 20, 500)))
    assert kinds(store) == []


@pytest.mark.parametrize(("age", "silent"), [(89, False), (91, True)])
def test_a_device_is_silent_after_three_polls(store: Store, age: int, silent: bool) -> None:
    """Ninety seconds at a poll of thirty; one that never reported counts from its enrolment."""
    device(store, None, seen=None, enrolled=NOW - timedelta(seconds=age))
    found = watch(store, "lid", poll_seconds=30, now=NOW)
    assert [one.kind for one in found] == (["silent"] if silent else [])
    assert all("it never reported" in one.message for one in found)


def test_a_device_says_what_is_wrong_with_it(store: Store) -> None:
    """An open ledger with its numbers, HOLD with its reason, a refused bundle with its reason."""
    wrong = report(ledger=Ledger(triggers=3, ok=2), state=AgentState.HOLD, last_error="no frame", refused=["bad signature"])
    device(store, wrong)
    found = {one.kind: one.message for one in watch(store, "lid", now=NOW)}
    assert set(found) == {"ledger", "hold", "refused"}
    assert "3 triggers ≠ 2 OK" in found["ledger"]
    assert "no frame" in found["hold"]
    assert "bad signature" in found["refused"]


def test_scores_that_moved_are_noticed(store: Store) -> None:
    """A lamp that grows dim moves all scores: one finding that names both medians."""
    draw = np.random.default_rng(2)
    line(store, [*draw.beta(2, 20, 400), *draw.beta(6, 10, 200)])
    found = watch(store, "lid", now=NOW)
    assert [one.kind for one in found] == ["drift"]
    assert "median 0.3" in found[0].message
    assert "before 0.0" in found[0].message


def test_a_new_model_is_not_drift(store: Store) -> None:
    """Another bundle scores differently by right."""
    draw = np.random.default_rng(3)
    line(store, list(draw.beta(2, 20, 400)), bundle_digest=OLD)
    line(store, list(draw.beta(6, 10, 200)), start=401)
    assert kinds(store) == []


def test_a_rising_share_of_errors_is_noticed(store: Store) -> None:
    """Thirty errors in the last two hundred after none in five hundred."""
    line(store, [0.1] * 700, errors=30)
    assert kinds(store) == ["errors"]


def test_a_challenge_is_neither_drift_nor_trouble(store: Store) -> None:
    """Known-bad parts score high and may be ERROR: that is why they are shown."""
    draw = np.random.default_rng(4)
    line(store, list(draw.beta(2, 20, 500)))
    line(store, list(draw.beta(20, 2, 200)), errors=30, start=501, purpose="challenge")
    assert kinds(store) == []


def test_few_verdicts_are_no_drift() -> None:
    """Below fifty on a side nothing is claimed."""
    assert score_shift([0.9] * 49, [0.1] * 1000) is None
    assert score_shift([0.9] * 50, [0.1] * 1000) is not None


@given(st.lists(st.floats(0, 1), min_size=50, max_size=120))
def test_the_same_scores_never_drift(scores: list[float]) -> None:
    """Whatever their distribution."""
    assert score_shift(scores, scores) is None


@given(st.integers(0, 200), st.integers(0, 1000))
def test_errors_that_did_not_rise_are_no_finding(now: int, before: int) -> None:
    """A share of errors at or below the earlier one never counts as risen."""
    if now / 200 <= before / 1000:
        assert not errors_rose(now, 200, before, 1000)
