"""The gate passes on evidence only, and says what is missing."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from inspection.contracts import Costs, Decision, Limits
from inspection.errors import IntegrityError
from inspection.release.gate import Answer, escape_check, gate, parts_needed, ranks_better
from inspection.release.scorecard import PartOutcome, Rate, Scorecard, StationScore, scorecard_of, upper_bound
from tests.release.making import card

LIMITS = Limits(escape_rate=0.05, overkill_rate=0.10)
COSTS = Costs(escape=10, overkill=1)
ORDER = [Answer.FAIL, Answer.INSUFFICIENT, Answer.PASS]


def test_enough_clean_parts_pass() -> None:
    """No escape in 60 shows less than 5 %, two overkills in 100 less than 10 %."""
    answer = gate(card(0, 60, 2, 100), None, LIMITS, COSTS)
    assert answer.answer is Answer.PASS
    assert (answer.need_more_defective, answer.need_more_good) == (0, 0)


def test_too_few_parts_are_insufficient_and_the_missing_number_is_right() -> None:
    """With 20 clean defective parts, 39 more are needed for 5 %: 59 in all."""
    answer = gate(card(0, 20, 0, 100), None, LIMITS, COSTS)
    assert answer.answer is Answer.INSUFFICIENT
    assert answer.need_more_defective == 39
    assert "need 39 more defective golden parts" in answer.why


def test_a_point_estimate_above_the_limit_fails_however_few_parts() -> None:
    """One escape in three is no matter of sample size."""
    answer = gate(card(1, 3, 0, 100), None, LIMITS, COSTS)
    assert answer.answer is Answer.FAIL
    assert "33.33%, above the limit" in answer.why


def test_no_parts_at_all_are_insufficient() -> None:
    """A golden set without defective parts shows nothing about escape."""
    answer = gate(card(0, 0, 0, 100), None, LIMITS, COSTS)
    assert (answer.answer, answer.need_more_defective) == (Answer.INSUFFICIENT, 59)


def test_a_limit_of_zero_can_never_be_shown() -> None:
    """It is said in words instead of a number that does not exist."""
    answer = gate(card(0, 500, 0, 100), None, Limits(escape_rate=0.0, overkill_rate=0.1), COSTS)
    assert answer.answer is Answer.INSUFFICIENT
    assert "set a limit above it" in answer.why


def test_significantly_worse_than_the_champion_fails_within_limits() -> None:
    """Twelve escapes in 1,000 meet a limit of 5 %, but the champion let none of these through."""
    answer = gate(card(12, 1000, 0, 200), card(0, 1000, 0, 200), LIMITS, COSTS)
    assert answer.answer is Answer.FAIL
    assert "12 parts missed only by the candidate" in answer.why


def test_overkill_may_rise_within_its_limit_where_it_saves_escapes() -> None:
    """Six more overkills for ten escapes less; not for none, not above the limit, and never escapes for overkill."""
    champion = card(10, 100, 0, 200)
    assert gate(card(0, 100, 6, 200), champion, LIMITS, COSTS).answer is Answer.PASS
    assert "escapes saved weigh 100, the overkill 6" in gate(card(0, 100, 6, 200), champion, LIMITS, COSTS).why
    assert gate(card(0, 100, 6, 200), card(0, 100, 0, 200), LIMITS, COSTS).answer is Answer.FAIL
    assert gate(card(0, 100, 30, 200), champion, LIMITS, COSTS).answer is Answer.FAIL
    rejects_all = gate(card(0, 100, 200, 200), card(100, 100, 0, 200), Limits(escape_rate=1, overkill_rate=1), COSTS)
    assert rejects_all.answer is Answer.FAIL
    assert "tells good from bad no better" in rejects_all.why
    cheap_escapes = Costs(escape=1, overkill=1000)
    assert gate(card(12, 1000, 0, 200), card(0, 1000, 12, 200), LIMITS, cheap_escapes).answer is Answer.FAIL


def test_a_threshold_alone_ranks_nothing_better() -> None:
    """More escapes saved at the same ranking is no better ranking; seeing a kind that the champion is blind to is."""

    def judged(scores: list[float], threshold: float) -> Scorecard:
        outcomes = [
            PartOutcome(part=f"p{i:03}", truth=["dent"] if i % 2 else [], decision=_said(s, threshold), score=s)
            for i, s in enumerate(scores)
        ]
        return card(0, 50, 0, 50).model_copy(update={"parts": outcomes})

    def ranks(ours: Scorecard, theirs: Scorecard) -> bool:
        return ranks_better({p.part: p for p in ours.parts}, {p.part: p for p in theirs.parts}, 0.95)

    blind = [0.2 + 0.001 * i if i % 4 != 1 else 0.9 for i in range(100)]
    seeing = [0.9 if i % 2 else s for i, s in enumerate(blind)]
    assert not ranks(judged(blind, 0.1), judged(blind, 0.5))
    assert ranks(judged(seeing, 0.5), judged(blind, 0.5))
    assert not ranks(judged(blind, 0.5), judged(seeing, 0.5))


def _said(score: float, threshold: float) -> Decision:
    return Decision.NG if score >= threshold else Decision.OK


def test_better_than_the_champion_does_not_replace_evidence() -> None:
    """A better candidate on ten defective parts is still INSUFFICIENT."""
    assert gate(card(0, 10, 0, 100), card(5, 10, 0, 100), LIMITS, COSTS).answer is Answer.INSUFFICIENT


def test_different_golden_parts_cannot_be_compared() -> None:
    """Scores on other parts are no comparison."""
    with pytest.raises(IntegrityError, match="same golden parts"):
        gate(card(0, 60, 0, 100), card(0, 61, 0, 100), LIMITS, COSTS)


def rates_of(escapes: Sequence[tuple[int, int]]) -> dict[str, Rate]:
    """So many escapes of so many defective parts, each with a name."""
    return {f"s{n}": Rate.of(*rate) for n, rate in enumerate(escapes)}


def at_stations(escapes: Sequence[tuple[int, int]]) -> dict[str, StationScore]:
    """Stations with such rates."""
    return {name: StationScore(escape=rate, overkill=Rate.of(0, 10)) for name, rate in rates_of(escapes).items()}


def test_a_station_that_lets_defects_through_fails_the_whole() -> None:
    """Five escapes in 300 are within 5 % on the whole, but all of them are one station's, of its eight."""
    whole = card(5, 300, 0, 100)
    assert gate(whole, None, LIMITS, COSTS).answer is Answer.PASS
    spread = whole.model_copy(update={"per_station": at_stations([(2, 100), (1, 100), (2, 100)])})
    assert gate(spread, None, LIMITS, COSTS).answer is Answer.PASS
    blind = whole.model_copy(update={"per_station": at_stations([(0, 146), (0, 146), (5, 8)])})
    answer = gate(blind, None, LIMITS, COSTS)
    assert answer.answer is Answer.FAIL
    assert (
        "escape by station: s2 5 of 8 defective parts, above the limit of 5.00% beyond chance, the other 2 not"
        in answer.why
    )


def test_a_class_that_is_let_through_fails_the_whole() -> None:
    """Five of 305 are within 5 % on the whole, but all of them are one kind of defect, and all of that kind."""
    caught = [PartOutcome(part=f"s{i}", truth=["scratch"], decision=Decision.NG, score=0.9) for i in range(300)]
    passed = [PartOutcome(part=f"c{i}", truth=["crack"], decision=Decision.OK, score=0.1) for i in range(5)]
    good = [PartOutcome(part=f"g{i}", truth=[], decision=Decision.OK, score=0.1) for i in range(100)]
    card = scorecard_of([*caught, *passed, *good], good_class="good", pictures=405)
    answer = gate(card, None, LIMITS, COSTS)
    assert answer.answer is Answer.FAIL
    assert "escape by class: crack 5 of 5 defective parts, above the limit of 5.00% beyond chance" in answer.why
    one = scorecard_of([*caught, *passed[:1], *good], good_class="good", pictures=401)
    assert gate(one, None, LIMITS.model_copy(update={"confidence": 0.99}), COSTS).answer is Answer.PASS


def test_few_parts_of_a_station_accuse_nobody() -> None:
    """One escape of two at one of ten stations is what chance does; a station alone is the whole, asked already."""
    few = escape_check("station", rates_of([(1, 2)] + [(0, 30)] * 9), 0.05, 0.95)
    assert few is not None
    assert few.answer is Answer.PASS
    assert escape_check("station", rates_of([(5, 8)]), 0.05, 0.95) is None
    with_nobody = escape_check("station", rates_of([(5, 8), (0, 0), (0, 9)]), 0.05, 0.95)
    assert with_nobody is not None
    assert "s0 5 of 8 defective parts, above the limit of 5.00% beyond chance, the other 1 not" in with_nobody.why
    assert escape_check("station", rates_of([(0, 0), (0, 0)]), 0.05, 0.95) is None


def outcomes(truth: str, count: int, decision: Decision, named: str = "") -> list[PartOutcome]:
    """So many parts of one kind, with one answer."""
    return [
        PartOutcome(part=f"{truth or 'good'}{named}{n}", truth=[truth] if truth else [], decision=decision,
                    named=[named] if named else [], score=0.5)
        for n in range(count)
    ]  # fmt: skip


def judged(*parts: PartOutcome) -> Scorecard:
    """A card of a product that knows dents, cracks and stains, with a hundred good parts passed."""
    good = outcomes("", 100, Decision.OK)
    names = ["good", "dent", "crack", "stain"]
    return scorecard_of([*parts, *good], good_class="good", classes=names, pictures=len(parts) + 100)


def test_a_class_with_few_golden_parts_is_named() -> None:
    """The whole passes by its dents; that nothing is known of stains, and little of cracks, stands beside it."""
    card = judged(*outcomes("dent", 100, Decision.NG, "dent"), *outcomes("crack", 3, Decision.NG, "crack"))
    answer = gate(card, None, LIMITS, COSTS)
    assert answer.answer is Answer.PASS
    assert "not shown for each by itself: stain (0 of 0, need 59 more), crack (0 of 3, need 56 more)." in answer.why
    assert upper_bound(0, 59, 0.95) <= 0.05 < upper_bound(0, 58, 0.95)
    many = {f"c{n}": Rate.of(0, n) for n in range(9)}
    check = escape_check("class", many, 0.05, 0.95)
    assert check is not None
    assert "c4 (0 of 4, need 55 more), 4 others" in check.why


def test_one_class_is_not_let_through_for_another_s_sake() -> None:
    """Ten cracks more escape and ten dents fewer: the whole is no worse, and yet it fails."""
    dents, cracks = outcomes("dent", 300, Decision.NG, "dent"), outcomes("crack", 300, Decision.NG, "crack")

    def passed(parts: list[PartOutcome]) -> list[PartOutcome]:
        escaped = {"decision": Decision.OK, "named": []}
        return [part.model_copy(update=escaped if n < 8 else {}) for n, part in enumerate(parts)]

    answer = gate(judged(*dents, *passed(cracks)), judged(*passed(dents), *cracks), LIMITS, COSTS)
    assert answer.answer is Answer.FAIL
    assert [check.name for check in answer.checks if check.answer is Answer.FAIL] == ["escape of a class against champion"]
    assert "crack 8 missed only by the candidate, 0 only by the champion, significantly worse" in answer.why
    assert gate(judged(*dents, *cracks), judged(*passed(dents), *cracks), LIMITS, COSTS).answer is Answer.PASS


def test_classes_that_were_mixed_up_fail_beside_a_champion_that_tells_them_apart() -> None:
    """Neither escape nor overkill sees it: dents called cracks. To let them pass instead helps nobody."""
    right = outcomes("dent", 100, Decision.NG, "dent") + outcomes("crack", 100, Decision.NG, "crack")
    swapped = [
        part.model_copy(update={"named": ["dent" if part.truth == ["crack"] else "crack"]}) if n % 5 == 0 else part
        for n, part in enumerate(right)
    ]
    answer = gate(judged(*swapped), judged(*right), LIMITS, COSTS)
    assert [check.name for check in answer.checks if check.answer is Answer.FAIL] == ["naming against champion"]
    assert "not named right against champion: 40 only by the candidate, 0 only by the champion" in answer.why
    few = [part if n % 40 else swapped[n] for n, part in enumerate(right)]  # five wrong names
    passed = [
        part.model_copy(update={"decision": Decision.OK, "named": []}) if part.named != part.truth else part for part in few
    ]
    answers = [gate(judged(*parts), judged(*right), LIMITS, COSTS).answer for parts in (few, passed, right)]
    assert answers == [Answer.PASS, Answer.FAIL, Answer.PASS]  # the names are tested together with two classes
    assert gate(judged(*right), judged(*swapped), LIMITS, COSTS).answer is Answer.PASS
    unnamed = [part.model_copy(update={"named": []}) for part in right]
    assert gate(judged(*right), judged(*unnamed), LIMITS, COSTS).answer is Answer.PASS


@pytest.mark.parametrize("parts", [[20] * 2, [5, 40, 160], [12] * 10, [60] * 40])
def test_stations_at_the_limit_are_seldom_accused(parts: list[int]) -> None:
    """With every station at the limit exactly, the check fails a model in at most 5 % of the golden sets drawn."""
    rng, accused = np.random.default_rng(1), 0
    for _ in range(2000 // len(parts)):
        found = escape_check("station", rates_of([(int(rng.binomial(n, 0.1)), n) for n in parts]), 0.1, 0.95)
        accused += found is not None and found.answer is Answer.FAIL
    assert binomtest(accused, 2000 // len(parts), 0.05, alternative="greater").pvalue > 1e-3


counts = st.integers(0, 80).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, counts, counts, st.booleans())
def test_one_more_miss_never_improves_the_answer(
    bad: tuple[int, int], good: tuple[int, int], champion: tuple[int, int], with_champion: bool
) -> None:
    """More escapes or more overkills: the same answer or a worse one, with and without a champion."""
    theirs = card(min(champion[0], bad[1]), bad[1], 0, good[1]) if with_champion else None
    before = ORDER.index(gate(card(*bad, *good), theirs, LIMITS, COSTS).answer)
    worse = card(min(bad[0] + 1, bad[1]), bad[1], min(good[0] + 1, good[1]), good[1])
    assert ORDER.index(gate(worse, theirs, LIMITS, COSTS).answer) <= before


rates = st.integers(0, 30).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(st.lists(rates, min_size=2, max_size=6), st.data())
def test_one_more_escape_at_a_station_never_improves_the_answer(
    stations: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Wherever it happens."""
    place = data.draw(st.integers(0, len(stations) - 1))
    misses, parts = stations[place]
    worse = [*stations[:place], (min(misses + 1, parts), parts), *stations[place + 1 :]]
    before, after = (escape_check("station", rates_of(rows), 0.1, 0.9) for rows in (stations, worse))
    if before is not None and after is not None:
        assert ORDER.index(after.answer) <= ORDER.index(before.answer)


@given(st.integers(0, 5), st.integers(0, 300), st.floats(0.005, 0.3), st.sampled_from([0.9, 0.95, 0.99]))
def test_the_missing_number_is_the_smallest_that_is_enough(misses: int, clean: int, limit: float, level: float) -> None:
    """With it the bound is within the limit; with one part less it is not."""
    parts = misses + clean
    more = parts_needed(misses, parts, limit, level)
    assert upper_bound(misses, parts + more, level) <= limit
    assert more == 0 or upper_bound(misses, parts + more - 1, level) > limit
