"""What a recipe promises of escapes holds as often as it says, whatever the scores are, however its edge was chosen."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import binomtest

from inspection.contracts import ANY_DEFECT, Limits, Promise, Recipe
from inspection.release.guarantee import Guarantee, guarantee
from inspection.release.scorecard import upper_bound
from inspection.release.thresholds import calibrate, sweep
from tests.release.making import product

CLASSES = ["good", "dent", "scratch"]
UNLIKELY = 1e-3  # a level that is kept fails one of these exact tests in a thousand; the seeds are fixed
Floats = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]


def made(good: Floats, bad: Floats, limits: Limits) -> Recipe:
    """A recipe from defect scores ``[N]`` or ``[N, pictures]`` of good and of defective parts."""
    kinds = {kind: part if part.ndim == 2 else part[:, None] for kind, part in (("good", good), ("dent", bad))}
    total = np.concatenate([part.ravel() for part in kinds.values()])
    scores = np.stack([1 - total, total, np.zeros_like(total)], axis=1)
    labels = [kind for kind, part in kinds.items() for _ in range(part.size)]
    names = [f"{kind}{n // part.shape[1]}" for kind, part in kinds.items() for n in range(part.size)]
    return calibrate(scores, labels, CLASSES, product(limits=limits), version=1, parts=names)


def promised(good: Floats, bad: Floats, limits: Limits) -> Promise:
    """What that recipe promises."""
    found = made(good, bad, limits).promise
    assert found is not None
    return found


def asked(scores: list[float], limits: Limits) -> Guarantee:
    """The guarantee of defective parts with these scores, with candidates between them."""
    curve = sweep(np.array(scores), np.ones(len(scores), dtype=bool))
    return guarantee(curve.thresholds, curve.escapes, curve.defective, limits)


def logits(middle: float, spread: float = 2.0) -> Draw:
    """Scores whose log-odds are normal."""
    return lambda rng, count: np.asarray(expit(rng.normal(middle, spread, count)), np.float64)


def coarse(middle: float) -> Draw:
    """The same in steps of a tenth: most scores have ties, some are 0 or 1."""
    return lambda rng, count: np.round(logits(middle)(rng, count), 1)


def several(middle: float) -> Draw:
    """Three pictures of each part, which resemble each other: ``[count, 3]``."""

    def draw(rng: np.random.Generator, count: int) -> Floats:
        return np.asarray(expit(rng.normal(middle, 2.0, (count, 1)) + rng.normal(0.0, 1.0, (count, 3))), np.float64)

    return draw


def with_blind_spot(rng: np.random.Generator, count: int) -> Floats:
    """Most defective parts are plain to see; three in a hundred look like good ones."""
    return np.where(rng.random(count) < 0.03, logits(-3.0)(rng, count), logits(4.0, 1.0)(rng, count))


SHAPES: dict[str, tuple[Draw, Draw]] = {
    "separable": (logits(-6.0, 1.0), logits(6.0, 1.0)),
    "overlapping": (logits(-2.0), logits(2.0)),
    "with ties": (coarse(-2.5), coarse(2.5)),
    "several pictures": (several(-4.0), several(2.0)),
    "a blind spot": (logits(-3.0), with_blind_spot),
}


def worst_picture(scores: Floats) -> Floats:
    """Sorted scores of parts."""
    return np.sort(scores.max(axis=1) if scores.ndim == 2 else scores)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("limit", "defective"), [(0.02, 40), (0.10, 60)])
def test_what_a_recipe_promises_is_broken_no_more_often_than_it_says(shape: str, limit: float, defective: int) -> None:
    """Calibrated from 120 draws at 90 % confidence, with too few parts for the limit and with enough: at most 10 % of the
    promises are broken, but for chance."""
    rng, limits = np.random.default_rng(11), Limits(escape_rate=limit, overkill_rate=0.2, confidence=0.9)
    draw_good, draw_bad = SHAPES[shape]
    line, draws = worst_picture(draw_bad(rng, 200_000)), 120
    broken = 0
    for _ in range(draws):
        said = promised(draw_good(rng, 60), draw_bad(rng, defective), limits)
        broken += np.searchsorted(line, said.edge, side="left") / line.size > said.escape_rate
    assert binomtest(broken, draws, 0.1, alternative="greater").pvalue > UNLIKELY


@pytest.mark.parametrize(("parts", "limit"), [(40, 0.10), (60, 0.02), (80, 0.05), (300, 0.02)])
def test_the_promise_holds_for_whichever_threshold_is_chosen(parts: int, limit: float) -> None:
    """Somebody who knows the truth picks the worst threshold of each of 4,000 draws: some promise is broken in 5 % of them
    at most. (Scores are uniform, so a threshold is its own escape rate; any others are these, stretched.)"""
    limits = Limits(escape_rate=limit, overkill_rate=1.0)
    rates = _rates(parts, limits)
    escapes = np.sort(np.random.default_rng(3).random((4000, parts)), axis=1)  # of thresholds just below each next part
    broken = int((escapes > rates).any(axis=1).sum())
    assert binomtest(broken, 4000, 0.05, alternative="greater").pvalue > UNLIKELY


def _rates(parts: int, limits: Limits) -> Floats:
    found = asked(list(np.linspace(0.01, 0.99, parts)), limits)
    return np.array([found.rate_below(misses) for misses in range(parts)])


def test_an_uncorrected_bound_would_be_broken_more_often() -> None:
    """The same worst choice against the plain Clopper-Pearson bound of each threshold: the test above can fail."""
    plain = np.array([upper_bound(misses, 80, 0.95) for misses in range(80)])
    escapes = np.sort(np.random.default_rng(3).random((4000, 80)), axis=1)
    broken = int((escapes > plain).any(axis=1).sum())
    assert binomtest(broken, 4000, 0.05, alternative="greater").pvalue < 1e-9


def test_the_guaranteed_threshold_spends_the_risk_it_is_given() -> None:
    """Of 4,000 draws the limit is exceeded in at most 5 %, and in more than 1 %: it is not bought dearer than need be."""
    rng, limits, exceeded = np.random.default_rng(5), Limits(escape_rate=0.05, overkill_rate=1.0), 0
    for _ in range(4000):
        threshold = asked(list(rng.random(160)), limits).threshold
        assert threshold is not None
        exceeded += threshold > 0.05
    assert binomtest(exceeded, 4000, 0.05, alternative="greater").pvalue > UNLIKELY
    assert exceeded > 0.01 * 4000


def test_the_edge_moves_down_where_doubt_is_affordable() -> None:
    """One defective part of 160 scores as some good ones do: they become doubtful, and the limit can be promised."""
    good = np.concatenate([np.linspace(0.01, 0.15, 195), np.full(5, 0.3)])
    bad = np.concatenate([[0.25], np.linspace(0.8, 0.99, 159)])
    recipe = made(good, bad, Limits(escape_rate=0.02, overkill_rate=0.1))
    assert recipe.promise is not None
    assert recipe.thresholds[ANY_DEFECT].inconclusive == recipe.promise.edge == pytest.approx(0.2)
    assert recipe.promise.within_limit
    assert recipe.promise.words == (
        "with 95% confidence at most 2.0% of defective parts score below 0.200 and pass, "
        "shown by 0 of 160 defective validation parts"
    )


def test_where_it_is_too_dear_the_recipe_says_how_little_it_promises() -> None:
    """Thirty of 200 good parts look worse than that part: nothing moves, one miss stays, and more than 2 % is promised."""
    good = np.concatenate([np.linspace(0.01, 0.15, 170), np.full(30, 0.3)])
    bad = np.concatenate([[0.25], np.linspace(0.8, 0.99, 159)])
    recipe = made(good, bad, Limits(escape_rate=0.02, overkill_rate=0.1))
    assert recipe.promise is not None
    assert recipe.thresholds[ANY_DEFECT].inconclusive == recipe.promise.edge > 0.3
    assert (recipe.promise.misses, recipe.promise.within_limit) == (1, False)
    assert recipe.promise.escape_rate > upper_bound(1, 160, 0.95)
    assert "2.0% could be promised below 0.200 only, where 30 of 200 good parts are rejected" in recipe.promise.words


@pytest.mark.parametrize(
    ("parts", "limit", "words"),
    [
        (60, 0.005, "no threshold can promise 0.50%: 60 defective parts can at best promise 5.0%, need 559 more; with"),
        (60, 0.0, "no number of parts can promise that nothing escapes; with 95% confidence at most 6.0%"),
        (60, 1.0, "with 95% confidence at most 6.0% of defective parts"),
        (0, 0.1, "without defective validation parts nothing is promised of escapes: need 30"),
        (0, 1.0, "without defective validation parts nothing is promised of escapes"),
    ],
)
def test_what_cannot_be_promised_is_said_with_the_number_that_is_lacking(parts: int, limit: float, words: str) -> None:
    """Too few parts, a limit of nought, no limit, no parts at all."""
    said = promised(np.linspace(0.0, 0.2, 100), np.linspace(0.8, 1.0, parts), Limits(escape_rate=limit, overkill_rate=0.1))
    assert said.words.startswith(words)


def test_the_number_that_is_lacking_is_the_smallest_that_is_enough() -> None:
    """With it a clean set promises the limit, with one part less it does not."""
    limits = Limits(escape_rate=0.02, overkill_rate=0.1)
    more = asked([0.9] * 60, limits).need_more
    assert more == 94
    assert asked([0.9] * (60 + more), limits).threshold is not None
    assert asked([0.9] * (60 + more - 1), limits).threshold is None


scores_lists = st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=1, max_size=60)
limits_of = st.builds(
    Limits,
    escape_rate=st.sampled_from([0.02, 0.1, 0.3]),
    overkill_rate=st.just(0.2),
    confidence=st.sampled_from([0.8, 0.95]),
)


def reach(found: Guarantee) -> float:
    """The threshold, with 0 for none."""
    return found.threshold or 0.0


@given(scores_lists, limits_of, st.data())
def test_one_more_miss_never_raises_the_threshold(scores: list[float], limits: Limits, data: st.DataObject) -> None:
    """Any part that scores lower moves the guaranteed threshold down, or not at all."""
    place = data.draw(st.integers(0, len(scores) - 1))
    lower = [*scores[:place], data.draw(st.floats(0, scores[place])), *scores[place + 1 :]]
    assert reach(asked(lower, limits)) <= reach(asked(scores, limits))


@given(st.integers(1, 200), limits_of)
def test_more_misses_never_promise_more(parts: int, limits: Limits) -> None:
    """The promised rate rises with the misses below the edge, and is never below what a single bound would say."""
    rates = _rates(parts, limits)
    assert (np.diff(rates) >= 0).all()
    assert all(rate >= min(limits.escape_rate, upper_bound(k, parts, limits.confidence)) for k, rate in enumerate(rates))


@given(scores_lists, limits_of)
def test_a_stricter_limit_never_raises_the_threshold(scores: list[float], limits: Limits) -> None:
    """Half the rate, or more confidence."""
    free = reach(asked(scores, limits))
    assert reach(asked(scores, limits.model_copy(update={"escape_rate": limits.escape_rate / 2}))) <= free
    assert reach(asked(scores, limits.model_copy(update={"confidence": 0.99}))) <= free


@given(scores_lists, limits_of)
def test_equal_scores_stay_together(scores: list[float], limits: Limits) -> None:
    """All parts of a score are below the threshold or none is, and no more are than the limit allows."""
    found = asked(scores, limits)
    if found.threshold is not None:
        below = sum(score < found.threshold for score in scores)
        assert found.threshold not in scores or found.threshold == 1.0
        assert upper_bound(below, len(scores), limits.confidence) <= limits.escape_rate


@settings(max_examples=40)
@given(scores_lists, scores_lists, limits_of)
def test_names_and_order_do_not_matter(good: list[float], bad: list[float], limits: Limits) -> None:
    """Parts in another order, of another defect class, under other names: the same thresholds and the same promise."""
    total = np.array(good + bad)
    labels = ["good"] * len(good) + ["dent"] * len(bad)
    parts = [f"p{n}" for n in range(len(total))]
    order = np.random.default_rng(len(total)).permutation(len(total))
    there = {"good": "good", "dent": "scratch"}

    def recipe(rows: npt.NDArray[np.intp], named: list[str], called: list[str]) -> Recipe:
        scores = np.stack([1 - total, total, np.zeros_like(total)], axis=1)[rows]
        return calibrate(scores, named, CLASSES, product(limits=limits), version=1, parts=called)

    first = recipe(np.arange(len(total)), labels, parts)
    assert recipe(order, [there[labels[i]] for i in order], [f"q{i}" for i in order]).promise == first.promise


@settings(max_examples=40)
@given(scores_lists, scores_lists, limits_of)
def test_the_promise_counts_what_passes(good: list[float], bad: list[float], limits: Limits) -> None:
    """Misses are the defective parts below the edge in force, and the edge is the recipe's."""
    recipe = made(np.array(good), np.array(bad), limits)
    assert recipe.promise is not None
    assert recipe.promise.edge == recipe.thresholds[ANY_DEFECT].inconclusive
    assert recipe.promise.misses == sum(score < recipe.promise.edge for score in bad)
    assert recipe.promise.parts == len(bad)
    assert recipe.promise.within_limit == (recipe.promise.escape_rate <= limits.escape_rate)
