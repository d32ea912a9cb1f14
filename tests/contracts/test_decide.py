"""The decision rule, by its algebra."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from inspection.contracts import ANY_DEFECT, Band, Decision, Limits, Outcome, Recipe, decide, defect_score, worst

DEFECTS = ("dent", "scratch", "stain")
SEVERITY = [Decision.OK, Decision.INCONCLUSIVE, Decision.NG, Decision.ERROR]
UNIT = st.floats(0, 1)


@st.composite
def score_sets(draw: st.DrawFn) -> dict[str, float]:
    """Class probabilities that sum to one."""
    weights = draw(st.lists(st.floats(0.001, 1), min_size=4, max_size=4))
    return {name: weight / math.fsum(weights) for name, weight in zip(("ok", *DEFECTS), weights, strict=True)}


BANDS = st.tuples(UNIT, UNIT).map(lambda pair: Band(inconclusive=min(pair), ng=max(pair)))
THRESHOLDS = st.dictionaries(st.sampled_from((ANY_DEFECT, *DEFECTS)), BANDS, min_size=1)


def recipe(thresholds: dict[str, Band], unfamiliar: float | None = None) -> Recipe:
    return Recipe(
        product="lid",
        version=1,
        good_class="ok",
        thresholds=thresholds,
        limits=Limits(escape_rate=0.01, overkill_rate=0.05),
        unfamiliar=unfamiliar,
    )


def severity(outcome: Outcome) -> int:
    return SEVERITY.index(outcome.decision)


@given(score_sets(), THRESHOLDS)
def test_ok_means_below_every_band(scores: dict[str, float], thresholds: dict[str, Band]) -> None:
    """OK if and only if no score reaches its band; NG if and only if one reaches its upper edge."""
    against = {n: defect_score(scores, "ok") if n == ANY_DEFECT else scores[n] for n in thresholds}
    outcome = decide(scores, recipe(thresholds))
    assert (outcome.decision is Decision.OK) == all(against[n] < band.inconclusive for n, band in thresholds.items())
    assert (outcome.decision is Decision.NG) == any(against[n] >= band.ng for n, band in thresholds.items())


@given(score_sets(), THRESHOLDS)
def test_a_class_is_named_exactly_when_it_is_not_ok(scores: dict[str, float], thresholds: dict[str, Band]) -> None:
    """The named class is a defect, never the good class or the star."""
    outcome = decide(scores, recipe(thresholds))
    assert (outcome.defect_class in DEFECTS) == (outcome.decision is not Decision.OK)
    assert (outcome.defect_class is None) == (outcome.decision is Decision.OK)


@given(score_sets(), THRESHOLDS, st.sampled_from((ANY_DEFECT, *DEFECTS)), BANDS)
def test_another_band_never_softens_a_decision(
    scores: dict[str, float], thresholds: dict[str, Band], name: str, band: Band
) -> None:
    """Adding a threshold can only make the verdict as bad or worse."""
    assume(name not in thresholds)
    assert severity(decide(scores, recipe(thresholds | {name: band}))) >= severity(decide(scores, recipe(thresholds)))


@given(score_sets(), THRESHOLDS, st.sampled_from((ANY_DEFECT, *DEFECTS)), st.floats(0, 1))
def test_lower_thresholds_are_stricter(
    scores: dict[str, float], thresholds: dict[str, Band], name: str, factor: float
) -> None:
    """Moving a band down can only make the verdict as bad or worse."""
    assume(name in thresholds)
    band = thresholds[name]
    lower = Band(inconclusive=band.inconclusive * factor, ng=band.ng * factor)
    assert severity(decide(scores, recipe(thresholds | {name: lower}))) >= severity(decide(scores, recipe(thresholds)))


@given(score_sets(), THRESHOLDS)
def test_the_order_of_scores_and_thresholds_does_not_matter(scores: dict[str, float], thresholds: dict[str, Band]) -> None:
    """A JSON document with its keys in another order decides the same."""
    backwards = dict(reversed(thresholds.items()))
    assert decide(dict(reversed(scores.items())), recipe(backwards)).decision is decide(scores, recipe(thresholds)).decision


@given(score_sets(), THRESHOLDS, UNIT, UNIT)
def test_an_unfamiliar_picture_is_never_ok_and_a_familiar_one_is_judged_by_its_scores(
    scores: dict[str, float], thresholds: dict[str, Band], limit: float, novelty: float
) -> None:
    """Only OK changes, only to INCONCLUSIVE, only at the limit or above; the words name both numbers."""
    by_scores, found = decide(scores, recipe(thresholds)), decide(scores, recipe(thresholds, limit), novelty)
    if by_scores.decision is not Decision.OK or novelty < limit:
        assert found == by_scores
        return
    assert (found.decision, found.defect_class) == (Decision.INCONCLUSIVE, None)
    assert found.reason == f"unlike anything the model has learnt: novelty {novelty:.2f}, limit {limit:.2f}"


@given(score_sets(), THRESHOLDS, UNIT, UNIT, UNIT, UNIT)
def test_more_novelty_and_a_lower_limit_are_stricter(
    scores: dict[str, float], thresholds: dict[str, Band], limit: float, novelty: float, more: float, less: float
) -> None:
    """Neither can make a verdict better."""
    before = severity(decide(scores, recipe(thresholds, limit), novelty))
    assert severity(decide(scores, recipe(thresholds, limit), max(novelty, more))) >= before
    assert severity(decide(scores, recipe(thresholds, limit * less), novelty)) >= before


@given(score_sets(), THRESHOLDS, UNIT)
def test_a_novelty_that_no_recipe_asks_for_decides_nothing(
    scores: dict[str, float], thresholds: dict[str, Band], novelty: float
) -> None:
    """A guarded model with a recipe of before."""
    assert decide(scores, recipe(thresholds), novelty) == decide(scores, recipe(thresholds))


@pytest.mark.parametrize("novelty", [None, math.nan, -0.1, 1.1])
def test_a_recipe_that_asks_for_a_novelty_passes_nothing_without_one(novelty: float | None) -> None:
    """None, or what is no share: an error, also for a part that would be NG."""
    for good in (1.0, 0.0):
        with pytest.raises(ValueError, match="asks for a novelty"):
            decide({"ok": good, "dent": 1 - good}, recipe({"dent": Band(inconclusive=0.5, ng=0.6)}, 0.9), novelty)


@given(st.lists(st.builds(Outcome, st.sampled_from(SEVERITY), st.just(None)), min_size=1))
def test_the_worst_of_tiles_is_the_worst(outcomes: list[Outcome]) -> None:
    """No tile is better than the whole."""
    assert severity(worst(outcomes)) == max(severity(outcome) for outcome in outcomes)


def test_no_tiles_are_an_error() -> None:
    """Nothing inspected is not OK."""
    with pytest.raises(ValueError, match="empty"):
        worst([])


def test_a_threshold_without_a_score_is_an_error() -> None:
    """A recipe for another model must never pass silently."""
    with pytest.raises(KeyError, match="stain"):
        decide({"ok": 1.0, "dent": 0.0}, recipe({"stain": Band(inconclusive=0.1, ng=0.2)}))
    with pytest.raises(KeyError, match="ok"):
        decide({"fine": 1.0, "dent": 0.0}, recipe({ANY_DEFECT: Band(inconclusive=0.1, ng=0.2)}))


def test_the_any_defect_band_names_the_likeliest_defect() -> None:
    """Several weak defects together reach the band; the strongest is named."""
    scores = {"ok": 0.4, "dent": 0.25, "scratch": 0.3, "stain": 0.05}
    assert decide(scores, recipe({ANY_DEFECT: Band(inconclusive=0.4, ng=0.6)})) == Outcome(Decision.NG, "scratch")


@pytest.mark.parametrize(
    ("thresholds", "said"),
    [
        ({}, "at least one"),
        ({"ok": {"inconclusive": 0.1, "ng": 0.2}}, "good class"),
        ({"dent": {"inconclusive": 0.3, "ng": 0.2}}, "above ng"),
        ({"dent": {"inconclusive": 0.3, "ng": 1.2}}, "less than or equal to 1"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(thresholds: dict[str, dict[str, float]], said: str) -> None:
    """Before it can judge anything."""
    with pytest.raises(ValidationError, match=said):
        Recipe.model_validate(recipe({"dent": Band(inconclusive=0, ng=1)}).model_dump() | {"thresholds": thresholds})
