"""Regions are scored against the boxes people drew, by counts with intervals; maps by their pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc, roc_curve

from inspection.contracts import Box, Region
from inspection.data.snapshot_record import Example, Split
from inspection.release.map_score import (
    OVERLAPS,
    Judged,
    MapScore,
    points_right,
    score_pixels,
    score_regions,
    score_verdicts,
)
from inspection.release.scorecard import Rate
from tests.release.making import verdict


def box(x: float, y: float, width: float, height: float) -> Box:
    """A box of no class in particular."""
    return Box(x=x, y=y, width=width, height=height, label="dent")


def example(label: str, *boxes: Box) -> Example:
    """A golden picture."""
    return Example(picture="a" * 64, label=label, part="p", group="p", split=Split.GOLDEN, boxes=list(boxes))


boxes = st.builds(box, st.floats(0, 90), st.floats(0, 90), st.floats(1, 40), st.floats(1, 40))
pictures = st.builds(Judged, st.lists(boxes, max_size=4), st.lists(boxes, max_size=4), st.booleans())


def test_counts_by_hand() -> None:
    """Two pictures with three true boxes, one of them passed; two good pictures, one of them marked twice."""
    found = score_regions(
        [
            Judged([box(10, 10, 20, 10), box(70, 70, 4, 4)], [box(10, 10, 10, 10), box(60, 60, 30, 30)]),
            Judged([], [box(0, 0, 5, 5)], rejected=False),
            Judged([box(0, 0, 5, 5), box(50, 50, 5, 5)], []),
            Judged([], []),
        ]
    )
    assert found.hit == Rate.of(2, 3)  # the first by its overlap of one half, the second by a centre in it
    assert found.hit_rejected == Rate.of(2, 2)
    assert found.overlap == {0.1: Rate.of(1, 3), 0.3: Rate.of(1, 3), 0.5: Rate.of(1, 3)}
    assert found.pointed == Rate.of(1, 1)  # the strongest region's centre lies on the true box's edge
    assert found.right == Rate.of(2, 2)
    assert found.median_iou == pytest.approx((0.5 + 16 / 900) / 2)
    assert found.median_area == pytest.approx((2 + 16 / 900) / 2)
    assert (found.good_marked, found.false_regions) == (Rate.of(1, 2), 2)


def test_a_region_over_half_the_picture_hits_nothing() -> None:
    """The right neighbourhood is not the right place: neither its centre nor its overlap is on the defect."""
    found = score_regions([Judged([box(0, 0, 100, 50)], [box(5, 5, 20, 20)])])
    assert (found.hit.count, found.pointed.count, found.right.count) == (0, 0, 0)
    assert found.median_area == pytest.approx(12.5)


@given(st.lists(boxes, min_size=1, max_size=5))
def test_true_boxes_shown_as_regions_are_perfect(truth: list[Box]) -> None:
    """Whoever says the truth is right everywhere, at every overlap."""
    found = score_regions([Judged(truth, truth)])
    rates = [found.hit, found.hit_rejected, found.pointed, found.right, *found.overlap.values()]
    assert {rate.value for rate in rates} == {1.0}
    assert (found.median_iou, found.median_area) == (pytest.approx(1.0), pytest.approx(1.0))


@given(st.lists(pictures, max_size=6), boxes)
def test_one_more_region_never_hides_a_true_box(shown: list[Judged], more: Box) -> None:
    """More regions can only cost precision; and what overlaps much overlaps a little."""
    before = score_regions(shown)
    after = score_regions([Judged([*one.regions, more], one.truth, one.rejected) for one in shown])
    assert after.hit.count >= before.hit.count
    for least in OVERLAPS:
        assert after.overlap[least].count >= before.overlap[least].count
    assert before.overlap[0.1].count >= before.overlap[0.3].count >= before.overlap[0.5].count
    assert before.overlap[0.3].count <= before.hit.count
    assert MapScore.model_validate_json(before.model_dump_json()) == before


def test_a_defect_nobody_drew_a_box_on_is_not_counted() -> None:
    """Nobody knows where it is; and without any box there is nothing to say."""
    shown = verdict("a", "NG", 0.9, "dent").model_copy(update={"regions": [box(1, 1, 5, 5)]})
    passed = verdict("b", "OK", 0.1)
    assert score_verdicts([(shown, example("dent")), (passed, example("good"))], "good") is None
    found = score_verdicts(
        [(shown, example("dent", box(1, 1, 5, 5))), (shown, example("dent")), (passed, example("good"))], "good"
    )
    assert found is not None
    assert (found.hit, found.right, found.good_marked) == (Rate.of(1, 1), Rate.of(1, 1), Rate.of(0, 1))


def test_a_passed_defect_is_a_box_not_hit_but_not_the_map_s_fault() -> None:
    """An escape shows no region; the second count leaves it out."""
    passed = verdict("a", "OK", 0.1)
    found = score_verdicts([(passed, example("dent", box(1, 1, 5, 5)))], "good")
    assert found is not None
    assert (found.hit, found.hit_rejected) == (Rate.of(0, 1), Rate.of(0, 0))
    assert (found.median_iou, found.median_area, found.pointed.value) == (None, None, None)


def test_what_is_told_is_what_was_counted() -> None:
    """Metrics leave out what is nothing's rate; the table says "no parts" there."""
    found = score_regions([Judged([box(1, 1, 5, 5)], [box(1, 1, 5, 5)])])
    told = found.metrics("map")
    assert (told["map/boxes_hit"], told["map/boxes_overlap_0.5"], told["map/median_area"]) == (1.0, 1.0, 1.0)
    assert "map/good_marked" not in told
    assert "| true boxes hit | 100.0% (1/1; 2.5% to 100.0%) |" in found.to_markdown()
    assert "| good pictures with a region | no parts |" in found.to_markdown()


@pytest.mark.parametrize(("x", "right"), [(38.0, True), (40.0, True), (44.0, True), (45.1, False)])
def test_the_map_s_peak_points_within_half_a_cell(x: float, right: bool) -> None:
    """Cells are 10 pixels wide, and the peak's centre is at (40, 15) of the picture."""
    defect_map = np.zeros((4, 8), np.float32)
    defect_map[1, 3] = 1.0
    covered = Region(x=5, y=0, width=80, height=40)
    assert points_right(defect_map, covered, [box(x, 12, 20, 6)]) is right
    assert not points_right(defect_map, covered, [])


@given(st.integers(0, 2**32 - 1))
def test_with_one_box_the_overlap_is_the_true_positive_rate(seed: int) -> None:
    """Of one region the per-region overlap curve is the ROC curve (Bergmann et al. 2020), cut at 0.3."""
    rng = np.random.default_rng(seed)
    one = rng.random((20, 30)).astype(np.float32)
    one[5:10, 10:20] += 0.2
    found = score_pixels([one], [[box(10, 5, 10, 5)]])
    mask = np.zeros(one.shape, bool)
    mask[5:10, 10:20] = True
    false, true, _ = roc_curve(mask.ravel(), one.ravel())
    assert found.auroc == pytest.approx(auc(false, true))
    grid = np.linspace(0, 0.3, 2000)
    assert found.aupro == pytest.approx(auc(grid, np.interp(grid, false, true)) / 0.3, abs=0.01)


def test_a_perfect_map_scores_one_and_a_flat_one_by_chance() -> None:
    """However many boxes; a flat map's curve is the diagonal."""
    drawn = [[box(2, 2, 4, 4), box(10, 10, 6, 3)], []]
    perfect = np.zeros((2, 20, 20), np.float32)
    perfect[0, 2:6, 2:6] = perfect[0, 10:13, 10:16] = 1.0
    assert score_pixels(list(perfect), drawn).aupro == pytest.approx(1.0, abs=0.01)
    flat = score_pixels(list(np.full((2, 20, 20), 0.3, np.float32)), drawn)
    assert (flat.auroc, flat.aupro) == (pytest.approx(0.5), pytest.approx(0.15, abs=0.01))


def test_pixels_of_one_kind_are_refused() -> None:
    """Without a box there is nothing to find."""
    with pytest.raises(ValueError, match="both kinds"):
        score_pixels([np.zeros((4, 4), np.float32)], [[]])
