"""Field estimates say what was seen, with intervals that hold."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from inspection.contracts import Verdict
from inspection.data.intake import accept_verdicts
from inspection.data.labels import IMPORT, retract
from inspection.monitoring.estimates import FieldEstimate, estimate_field, share
from inspection.store.session import Store
from inspection.store.tables import LabelRow, utc_now
from tests.hub.helpers import PRODUCT, verdict
from tests.hub.seed import keep_picture, label_one


def test_no_miss_in_fifty_nine_is_the_textbook_bound() -> None:
    """0 of 59: the one-sided 95 % upper bound is 4.95 %, which is the two-sided 90 % one."""
    assert share(0, 59, confidence=0.90).high == pytest.approx(0.0495, abs=5e-5)
    assert share(0, 59).low == 0.0


def test_nothing_seen_says_nothing() -> None:
    """0 of 0 is the whole range, not 0 %."""
    assert (share(0, 0).low, share(0, 0).high, share(0, 0).rate) == (0.0, 1.0, None)


@pytest.mark.parametrize("truth", [0.001, 0.02, 0.05, 0.3, 0.5, 0.97])
def test_intervals_cover_the_truth_as_often_as_they_say(truth: float) -> None:
    """Over every possible outcome of 40 audited parts, at least 95 % of the probability has the truth inside."""
    inside = [found.low <= truth <= found.high for found in (share(hits, 40) for hits in range(41))]
    assert sum(stats.binom.pmf(hits, 40, truth) for hits in range(41) if inside[hits]) >= 0.95


counts = st.integers(0, 400)


@st.composite
def estimates(draw: st.DrawFn) -> FieldEstimate:
    passed, rejected = draw(counts), draw(counts)
    audited, labelled = draw(st.integers(0, passed)), draw(st.integers(0, rejected))
    return FieldEstimate(
        station="s",
        passed=passed,
        rejected=rejected,
        defective_of_passed=share(draw(st.integers(0, audited)), audited),
        good_of_rejected=share(draw(st.integers(0, labelled)), labelled),
        defects_passed={},
        left_out=0,
    )


@given(estimates())
def test_a_rate_lies_inside_its_interval_and_both_inside_zero_and_one(one: FieldEstimate) -> None:
    """Whatever was counted."""
    for interval in (one.escape, one.overkill):
        if interval is not None:
            assert 0.0 <= interval.low <= interval.rate <= interval.high <= 1.0


@given(estimates())
def test_one_more_defective_part_in_the_audit_never_makes_escape_look_better(one: FieldEstimate) -> None:
    """Escape rises with what the audit finds."""
    audit = one.defective_of_passed
    if audit.hits == audit.total:
        return
    worse = replace(one, defective_of_passed=share(audit.hits + 1, audit.total))
    if one.escape is not None and worse.escape is not None:
        assert worse.escape.rate >= one.escape.rate
        assert worse.escape.high >= one.escape.high


def test_a_whole_audit_gives_the_true_rate() -> None:
    """With every part labelled it is the plain ratio: 3 of 23 defective parts passed, 2 of 199 good ones rejected."""
    one = FieldEstimate("s", 200, 22, share(3, 200), share(2, 22), {}, 0)
    assert one.escape is not None
    assert one.overkill is not None
    assert one.escape.rate == pytest.approx(3 / 23)
    assert one.overkill.rate == pytest.approx(2 / 199)


def ok(number: int, **changes: object) -> Verdict:
    values = {"decision": "OK", "defect_class": None, "scores": {"good": 0.9, "scratch": 0.05, "dent": 0.05}}
    return verdict(number, **(values | changes))


def put(store: Store, *verdicts: Verdict) -> None:
    with store.begin() as session:
        for one in verdicts:
            accept_verdicts(session, [one])


def estimate(store: Store) -> FieldEstimate:
    with store.begin(read_only=True) as session:
        found = estimate_field(session, PRODUCT, since=utc_now() - timedelta(days=1))
    assert [one.station for one in found] == ["press-1"]
    return found[0]


def test_audited_passed_parts_are_counted_in_words_and_per_class(store: Store) -> None:
    """Of 5 audited passed parts 2 were defective, one dent and one scratch."""
    parts = [ok(n) for n in range(1, 9)]
    put(store, *parts, verdict(9), verdict(10))
    for one, label in zip(parts, ("good", "dent", "good", "scratch", "good"), strict=False):
        label_one(store, one, "audit", label)
    label_one(store, verdict(9), "disagree", "good")
    found = estimate(store)
    assert found.words == "Of 5 audited passed parts 2 were defective; of 1 labelled rejected parts 1 was good."
    assert (found.passed, found.rejected) == (8, 2)
    assert {name: seen.hits for name, seen in found.defects_passed.items()} == {"scratch": 1, "dent": 1}


def test_pictures_that_were_not_drawn_at_random_do_not_count_as_audit(store: Store) -> None:
    """Near-threshold pictures of passed parts are defective more often: they would bias escape upwards."""
    parts = [ok(n) for n in range(1, 4)]
    put(store, *parts)
    label_one(store, parts[0], "audit", "good")
    label_one(store, parts[1], "audit", "dent", picture_why="near_threshold")
    assert estimate(store).words.startswith("Of 1 audited passed parts 0 were defective")


def test_what_nobody_can_tell_is_left_out_and_said(store: Store) -> None:
    """ "Cannot tell" and contradicting answers are neither good nor defective."""
    parts = [ok(n) for n in range(1, 4)]
    put(store, *parts)
    for one, label in zip(parts, ("good", None, "good"), strict=True):
        label_one(store, one, "audit", label)
    _say(store, parts[2], "dent", origin="label_studio", origin_id="second")
    found = estimate(store)
    assert (found.defective_of_passed.total, found.left_out) == (1, 2)


def test_a_withdrawn_answer_and_an_imported_one_do_not_count(store: Store) -> None:
    """Only what operators say now."""
    parts = [ok(1), ok(2)]
    put(store, *parts)
    label_one(store, parts[0], "audit", "dent")
    _say(store, parts[0], "good", origin=IMPORT, origin_id="file")
    with store.begin() as session:
        assert retract(session, "label_studio", f"a-{parts[0].id}")
    assert estimate(store).defective_of_passed.total == 0


def test_only_stations_that_judge_pass_parts(store: Store) -> None:
    """A shadow verdict let nothing through."""
    judged, shadow = ok(1), ok(2, mode="shadow")
    put(store, judged, shadow)
    for one in (judged, shadow):
        label_one(store, one, "audit", "dent")
    found = estimate(store)
    assert (found.passed, found.defective_of_passed.total) == (1, 1)


def test_known_parts_of_a_challenge_are_no_parts_of_the_line(store: Store) -> None:
    """Bad parts shown on purpose are neither rejects of the line nor, when they pass, its escapes."""
    shown = [verdict(n, purpose="challenge") for n in range(3, 6)]
    missed = ok(6, purpose="challenge")
    put(store, ok(1), verdict(2), *shown, missed)
    label_one(store, ok(1), "audit", "good")
    label_one(store, missed, "audit", "dent")
    label_one(store, shown[0], "disagree", "scratch")
    found = estimate(store)
    assert (found.passed, found.rejected) == (1, 1)
    assert found.words == "Of 1 audited passed parts 0 were defective; of 0 labelled rejected parts 0 were good."


def _say(store: Store, one: Verdict, label: str, *, origin: str, origin_id: str) -> None:
    row = LabelRow(product="lid", picture=keep_picture(store, one, "audit"), kind="answer", label=label, origin=origin)
    row.origin_id, row.annotator, row.made_at = origin_id, "someone", utc_now()
    with store.begin() as session:
        session.add(row)
