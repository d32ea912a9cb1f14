"""Escape and overkill are counted by part, with exact intervals."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from inspection.contracts import Decision, Verdict
from inspection.errors import UsageError
from inspection.release.scorecard import Rate, Scorecard, StationScore, score, upper_bound
from tests.release.making import verdict


def test_counts_by_hand() -> None:
    """Two defective parts (one passed), three good ones (one rejected, one in error)."""
    card = score(
        [
            (verdict("a", "NG", 0.9, "scratch"), "scratch"),
            (verdict("b", "OK", 0.1), "dent"),
            (verdict("c", "OK", 0.1), "good"),
            (verdict("d", "INCONCLUSIVE", 0.4, "dent"), "good"),
            (verdict("e", "ERROR", None), "good"),
        ],
        good_class="good",
        classes=["good", "scratch", "dent", "stain"],
    )
    assert (card.escape.count, card.escape.parts) == (1, 2)
    assert (card.overkill.count, card.overkill.parts) == (2, 3)
    assert card.inconclusive.count == card.error.count == 1
    assert card.balanced_accuracy == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert card.class_balanced_accuracy == pytest.approx((1 / 3 + 1 + 0) / 3)
    assert card.per_class["stain"].recall.value is None
    assert card.per_class["dent"].escape == Rate.of(1, 1)
    assert card.confusion == {
        "dent": {"good": 1},
        "good": {"ERROR": 1, "dent": 1, "good": 1},
        "scratch": {"scratch": 1},
    }
    assert card.auroc == pytest.approx((1 + 0.5 + 0 + 1) / 4)  # 0.9 beats 0.1 and 0.4; 0.1 ties and loses


def test_a_part_is_rejected_when_any_of_its_pictures_is() -> None:
    """Three pictures of one defective part, the defect visible on one: one part, no escape."""
    fine = [(verdict("p", "OK", 0.1), "good"), (verdict("p", "OK", 0.0), "good")]
    card = score([*fine, (verdict("p", "NG", 0.8, "dent"), "dent")], good_class="good")
    assert (card.pictures, len(card.parts)) == (3, 1)
    assert (card.escape.count, card.escape.parts, card.overkill.parts) == (0, 1, 0)
    assert card.balanced_accuracy is None


def test_a_class_the_model_does_not_know_still_escapes() -> None:
    """A new kind of defect that is passed is an escape of its class."""
    card = score([(verdict("n", "OK", 0.2), "new-kind")], good_class="good", classes=["good", "dent"])
    assert card.escape.count == 1
    assert card.per_class["new-kind"].escape == Rate.of(1, 1)


def test_no_verdicts_is_an_error() -> None:
    """An empty golden set scores nothing."""
    with pytest.raises(UsageError, match="golden side"):
        score([], good_class="good")


@pytest.mark.parametrize(("parts", "bound"), [(59, 0.0495), (300, 0.0099), (2995, 0.0010)])
def test_bounds_without_a_miss_are_the_textbook_ones(parts: int, bound: float) -> None:
    """No miss in n gives 1 - 0.05 ** (1 / n)."""
    assert upper_bound(0, parts, 0.95) == pytest.approx(bound, abs=5e-5)
    assert upper_bound(0, parts, 0.95) == pytest.approx(1 - 0.05 ** (1 / parts))


@given(st.integers(1, 60), st.floats(0.001, 0.999), st.sampled_from([0.9, 0.95, 0.99]))
def test_the_upper_bound_covers(parts: int, rate: float, confidence: float) -> None:
    """Whatever the true rate, the bound is below it with a probability of at most 1 - confidence (summed exactly)."""
    too_low = sum(float(binom.pmf(k, parts, rate)) for k in range(parts + 1) if upper_bound(k, parts, confidence) < rate)
    assert too_low <= 1 - confidence + 1e-9


def test_it_survives_json_and_reads_as_markdown() -> None:
    """The same numbers come back from JSON, and the tables name every class."""
    card = score([(verdict("a", "NG", 0.9, "dent"), "dent"), (verdict("b", "OK", 0.1), "good")], good_class="good")
    assert Scorecard.model_validate_json(card.model_dump_json()) == card
    assert "| dent | 100.0% (1/1; 2.5% to 100.0%) | 0.0% (0/1; 0.0% to 97.5%) |" in card.to_markdown()
    assert card.metrics("golden")["golden/escape_rate"] == 0.0


def test_each_station_is_told_apart() -> None:
    """A part that two stations saw counts at both, by what each said, and once in the whole; others count at none."""
    card = score(
        [
            (verdict("a", "OK", 0.1, station="s1"), "dent"),
            (verdict("a", "NG", 0.9, "dent", station="s2"), "dent"),
            (verdict("b", "OK", 0.1, station="s1"), "dent"),
            (verdict("c", "NG", 0.7, "dent", station="s2"), "good"),
            (verdict("d", "OK", 0.1), "good"),
        ],
        good_class="good",
    )
    assert card.per_station == {
        "s1": StationScore(escape=Rate.of(2, 2), overkill=Rate.of(0, 0), escape_upper=1.0, overkill_upper=1.0),
        "s2": StationScore(
            escape=Rate.of(0, 1), overkill=Rate.of(1, 1), escape_upper=upper_bound(0, 1, 0.95), overkill_upper=1.0
        ),
    }
    assert "| s2 | 0.0% (0/1; 0.0% to 97.5%) | 95.00% |" in card.to_markdown()
    assert card.per_class["dent"].escape_upper == pytest.approx(upper_bound(1, 2, 0.95))
    assert card.per_class["good"].escape_upper is None
    assert (card.escape, card.overkill) == (Rate.of(1, 2), Rate.of(1, 2))
    assert "| s1 | 100.0% (2/2; 15.8% to 100.0%) | 100.00% | no parts | 100.00% |" in card.to_markdown()
    metrics = card.metrics("golden")
    assert (metrics["golden/escape_rate_at_s1"], metrics["golden/worst_station_escape_rate"]) == (1.0, 1.0)
    assert "golden/overkill_rate_at_s1" not in metrics


def test_metrics_name_no_more_than_twenty_stations() -> None:
    """However many there are, and the worst is told all the same."""
    many = [(verdict(f"p{n}", "OK", 0.1, station=f"s{n}"), "dent" if n == 49 else "good") for n in range(50)]
    metrics = score([*many, (verdict("more", "OK", 0.2, station="s9"), "good")], good_class="good").metrics("golden")
    assert sum("overkill_rate_at_" in name for name in metrics) == 20
    assert "golden/overkill_rate_at_s9" in metrics
    assert metrics["golden/worst_station_escape_rate"] == 1.0


def test_a_card_of_before_stations_were_counted_still_reads() -> None:
    """Candidates and the ledger of gates keep cards for years."""
    card = score([(verdict("a", "NG", 0.9, "dent"), "dent"), (verdict("b", "OK", 0.1), "good")], good_class="good")
    before = card.model_dump(mode="json")
    assert before.pop("per_station") == {}
    assert Scorecard.model_validate(before) == card
    assert "station" not in card.to_markdown()


def test_only_what_is_known_becomes_a_metric() -> None:
    """Without a defective part there is no escape rate to report."""
    metrics = score([(verdict("b", "OK", 0.1), "good")], good_class="good").metrics("golden")
    assert "golden/escape_rate" not in metrics
    assert metrics["golden/overkill_rate"] == 0.0


def test_helper_verdicts_are_contracts() -> None:
    """The helper makes real verdicts."""
    made = verdict("a", "OK", 0.25)
    assert isinstance(made, Verdict)
    assert made.decision is Decision.OK
    assert made.captured_at < datetime.now(UTC)
