"""Thresholds rest on gaps between scores, obey the limits where they can, and count every rejection."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.contracts import ANY_DEFECT, Band, Limits, Recipe
from inspection.errors import UsageError
from inspection.release.thresholds import calibrate, sweep
from tests.release.making import product

CLASSES = ["good", "dent", "scratch"]


def made(good: list[float], bad: list[float], **changes: object) -> Recipe:
    """A recipe from defect scores of good and of defective parts."""
    total = np.array(good + bad)
    scores = np.stack([1 - total, total, np.zeros_like(total)], axis=1)
    labels = ["good"] * len(good) + ["dent"] * len(bad)
    return calibrate(scores, labels, CLASSES, product(**changes), version=3)


def band(good: list[float], bad: list[float], **changes: object) -> Band:
    """The band on any defect of that recipe."""
    return made(good, bad, **changes).thresholds[ANY_DEFECT]


def test_a_separated_set_puts_the_threshold_in_the_middle_of_the_gap() -> None:
    """Good up to 0.1, defective from 0.9: NG from 0.5, inconclusive from the gap's lower quarter."""
    found = band([0.0, 0.05, 0.1], [0.9, 1.0])
    assert (found.inconclusive, found.ng) == (pytest.approx(0.3), pytest.approx(0.5))


def test_one_part_of_each_kind_is_enough_for_a_sane_threshold() -> None:
    """Even saturated scores leave the threshold inside (0, 1)."""
    assert band([0.0], [1.0]).ng == 0.5


def test_without_defective_parts_nothing_good_is_rejected() -> None:
    """The threshold lies above every good score and below 1."""
    assert 0.3 < band([0.1, 0.3], []).inconclusive <= band([0.1, 0.3], []).ng < 1


def test_dear_escapes_pull_the_threshold_down() -> None:
    """With overlap, the cost ratio decides who is missed."""
    good, bad = [0.1, 0.2, 0.5], [0.3, 0.8, 0.9]
    loose = {"limits": Limits(escape_rate=1.0, overkill_rate=1.0)}
    assert band(good, bad, costs={"escape": 10.0, "overkill": 1.0}, **loose).ng < 0.3
    assert band(good, bad, costs={"escape": 1.0, "overkill": 10.0}, **loose).ng > 0.5


def drawn(rng: np.random.Generator, count: int, middle: float) -> np.ndarray:
    """Scores whose log-odds are normal, as those of networks are, roughly."""
    return 1 / (1 + np.exp(-rng.normal(middle, 2.0, count)))


def test_new_parts_cost_less_than_by_the_last_defects_place() -> None:
    """Over many small validation sets, on parts nobody has seen: against the threshold of least cost on validation."""
    rng = np.random.default_rng(0)
    new_good, new_bad = drawn(rng, 5000, -3.0), drawn(rng, 5000, 3.0)

    def cost(threshold: float) -> float:
        return 10 * float((new_bad < threshold).mean()) + float((new_good >= threshold).mean())

    ours, least = [], []
    for _ in range(40):
        good, bad = drawn(rng, 60, -3.0), drawn(rng, 40, 3.0)
        limits = Limits(escape_rate=1.0, overkill_rate=1.0)
        ours.append(cost(band(good.tolist(), bad.tolist(), costs={"escape": 10.0, "overkill": 1.0}, limits=limits).ng))
        curve = sweep(np.concatenate([good, bad]), np.repeat([False, True], [60, 40]))
        spent = 10 * curve.escapes + curve.overkills
        least.append(cost(float(curve.thresholds[int(np.argmin(spent))])))
    assert np.mean(ours) < 0.9 * np.mean(least)


def test_limits_come_before_costs() -> None:
    """An overkill limit of nought forbids what the cost ratio would like."""
    limits = Limits(escape_rate=0.5, overkill_rate=0.0)
    assert band([0.1, 0.2, 0.5], [0.3, 0.8, 0.9], limits=limits).ng == pytest.approx(0.65)


def test_when_no_threshold_meets_both_limits_doubt_is_spent_up_to_the_overkill_limit() -> None:
    """Parts the limits cannot tell apart become inconclusive instead of passing."""
    good, bad = [0.05] * 17 + [0.3, 0.4, 0.5], [0.2, 0.45, 0.9, 0.9]
    limits = Limits(escape_rate=0.0, overkill_rate=0.05)
    found = band(good, bad, limits=limits, costs={"escape": 1.0, "overkill": 10.0})
    assert (found.inconclusive, found.ng) == (pytest.approx((0.4 + 0.45) / 2), pytest.approx((0.5 + 0.9) / 2))


def test_several_pictures_of_a_part_count_once() -> None:
    """The worst picture speaks for its part."""
    scores = np.array([[0.9, 0.1, 0], [0.8, 0.2, 0], [0.2, 0.8, 0]])
    recipe = calibrate(scores, ["good", "dent", "dent"], CLASSES, product(), version=1, parts=["a", "b", "b"])
    assert recipe.thresholds[ANY_DEFECT].ng == pytest.approx(0.45)


@pytest.mark.parametrize(
    ("scores", "labels", "classes", "message"),
    [
        (np.zeros((0, 3)), [], CLASSES, "no validation scores"),
        (np.zeros((2, 3)), ["good"], CLASSES, "shape"),
        (np.zeros((1, 2)), ["good"], ["dent", "scratch"], "good class"),
    ],
)
def test_impossible_input_is_said_in_words(scores: np.ndarray, labels: list[str], classes: list[str], message: str) -> None:
    """Empty, ill-shaped, or a model without the good class."""
    with pytest.raises(UsageError, match=message):
        calibrate(scores, labels, classes, product(), version=1)


scores_list = st.lists(st.floats(0, 1), max_size=25)


@given(scores_list, scores_list)
def test_every_recipe_is_ordered_and_rests_on_no_score(good: list[float], bad: list[float]) -> None:
    """For any validation set: 0 < inconclusive <= ng <= 1, and the sweep's counts are those of a plain count."""
    if not good + bad:
        return
    found = band(good, bad)
    assert 0 < found.inconclusive <= found.ng <= 1
    curve = sweep(np.array(good + bad), np.array([False] * len(good) + [True] * len(bad)))
    for threshold, escapes, overkills in zip(curve.thresholds, curve.escapes, curve.overkills, strict=True):
        assert escapes == sum(s < threshold for s in bad)
        assert overkills == sum(s >= threshold for s in good)
