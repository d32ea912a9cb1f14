"""Scores and a recipe decide; tiles cover everything; boxes lie in the frame."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_agent.judge import MAX_REGIONS, audited, boxes, cut, judge, near_threshold, to_show, whole_map, why_keep
from edge_agent.runtime import Inference
from inspection.contracts import Box, Decision, Purpose, Recipe, Region, Tiling, decide, tiles_of
from tests.edge_agent.helpers import CLASSES, recipe

WHOLE = Region(x=0, y=0, width=64, height=48)


def tiled(rows: int, columns: int, overlap: int = 0, region: Region | None = None) -> Recipe:
    return recipe().model_copy(update={"tiling": Tiling(rows=rows, columns=columns, overlap=overlap), "region": region})


@given(st.integers(20, 300), st.integers(20, 300), st.integers(1, 4), st.integers(1, 4), st.integers(0, 8))
def test_tiles_have_one_size_and_cover_the_frame(height: int, width: int, rows: int, columns: int, overlap: int) -> None:
    """Every pixel is inspected, by tiles that fit one batch."""
    seen = np.zeros((height, width), bool)
    tiles = tiles_of(height, width, tiled(rows, columns, overlap))
    for tile in tiles:
        assert tile.x + tile.width <= width
        assert tile.y + tile.height <= height
        seen[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] = True
    assert len(tiles) == rows * columns
    assert len({(t.width, t.height) for t in tiles}) == 1
    assert seen.all()
    (shape,) = {tile.shape for tile in cut(np.zeros((height, width, 3), np.uint8), tiles)}
    assert shape == (tiles[0].height, tiles[0].width, 3)


def test_a_region_outside_the_frame_is_refused() -> None:
    """A recipe for a larger camera must not be applied to a part of its region."""
    with pytest.raises(ValueError, match="does not lie in the frame"):
        tiles_of(48, 64, tiled(1, 1, region=Region(x=10, y=0, width=60, height=40)))


@given(hnp.arrays(np.float32, (8, 8), elements=st.floats(0, 1, width=32)))
def test_boxes_lie_in_the_frame_and_are_few(defect_map: np.ndarray) -> None:
    """At most a dozen boxes, strongest first, none outside."""
    found = boxes(defect_map, WHOLE, "dent")
    assert len(found) <= MAX_REGIONS
    assert [b.score for b in found] == sorted((b.score for b in found), reverse=True)
    for box in found:
        assert box.x + box.width <= 64 + 1e-6
        assert box.y + box.height <= 48 + 1e-6


@given(hnp.arrays(np.float32, (8, 8), elements=st.floats(0, 1, width=32)))
def test_a_map_that_shows_something_has_a_box_round_its_peak(defect_map: np.ndarray) -> None:
    """However flat or noisy it is: at least one box, none smaller than a cell, and the strongest reaches the peak."""
    found = boxes(defect_map, WHOLE, "dent")
    assert bool(found) is bool(defect_map.max() >= 0.1)
    assert all(box.width >= 8 - 1e-6 and box.height >= 6 - 1e-6 for box in found)
    if found and len(found) < MAX_REGIONS:
        assert found[0].score == float(defect_map.max())


@given(hnp.arrays(np.float32, (8, 8), elements=st.floats(0, 1, width=32)), st.integers(0, 40), st.integers(0, 40))
def test_a_box_moves_with_its_tile(defect_map: np.ndarray, x: int, y: int) -> None:
    """The same map of a tile elsewhere gives the same boxes, elsewhere."""
    here = boxes(defect_map, WHOLE, "dent")
    there = boxes(defect_map, Region(x=x, y=y, width=WHOLE.width, height=WHOLE.height), "dent")
    assert [(b.x + x, b.y + y, b.width, b.height, b.score) for b in here] == [
        pytest.approx((b.x, b.y, b.width, b.height, b.score)) for b in there
    ]


def test_the_glow_round_a_defect_is_not_boxed() -> None:
    """Probabilities hide it: 0.95 is above half of 0.999, but its odds are fifty times lower."""
    glow = np.full((12, 12), 0.02, np.float32)
    glow[2:10, 2:10] = 0.95
    glow[5:7, 5:7] = 0.999
    (box,) = boxes(glow, Region(x=0, y=0, width=120, height=120), "stain")
    assert 20 <= box.width <= 40
    assert 20 <= box.height <= 40
    assert box.x <= 50
    assert box.x + box.width >= 70


def test_two_defects_are_two_boxes() -> None:
    """Strongest first, the weaker one with a score of its own."""
    defect_map = np.full((12, 12), 0.01, np.float32)
    defect_map[2, 2], defect_map[9, 9] = 0.99, 0.98
    first, second = boxes(defect_map, WHOLE, "dent")
    assert (first.score, second.score) == (pytest.approx(0.99), pytest.approx(0.98))
    assert first.x < second.x


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50), st.floats(1, 30), st.floats(0, 1)), max_size=30))
def test_what_is_shown_is_few_and_each_defect_once(drawn: list[tuple[float, float, float, float]]) -> None:
    """Strongest first; showing it again changes nothing; what was left out is stronger than nothing that stands for it."""
    found = [Box(x=x, y=y, width=side, height=side, label="dent", score=score) for x, y, side, score in drawn]
    kept = to_show(found)
    assert to_show(kept) == kept
    assert len(kept) <= MAX_REGIONS
    assert [b.score for b in kept] == sorted((b.score for b in kept), reverse=True)
    assert bool(kept) is bool(found)
    if found:
        assert kept[0].score == max(b.score for b in found)


def test_a_defect_two_tiles_show_is_boxed_once() -> None:
    """It lies where the tiles overlap; the other one, in the second tile alone, keeps its box."""
    rule = tiled(1, 2, overlap=16, region=Region(x=0, y=0, width=64, height=40))
    tiles = tiles_of(48, 64, rule)
    assert [(t.x, t.width) for t in tiles] == [(0, 40), (24, 40)]
    maps = np.full((2, 5, 5), 0.01, np.float32)
    maps[0, 1, 4] = 0.97
    maps[1, 1, 1] = 0.99  # both at x 32 to 40
    maps[1, 4, 4] = 0.98
    scores = np.array([[0.1, 0.8, 0.1]] * 2, np.float32)
    found = judge(Inference(scores, maps), tiles, CLASSES, rule).regions
    assert [pytest.approx(box.score) for box in found] == [0.99, 0.98]
    assert found[0].x <= 36 <= found[0].x + found[0].width


def test_a_box_lies_on_the_defect() -> None:
    """One hot cell of the map gives one box around that cell's pixels."""
    defect_map = np.zeros((8, 8), np.float32)
    defect_map[2, 5] = 0.9
    (box,) = boxes(defect_map, WHOLE, "dent")
    assert box.x <= 5.5 * 8 <= box.x + box.width
    assert box.y <= 2.5 * 6 <= box.y + box.height
    assert box.width <= 3 * 8
    assert boxes(np.zeros((8, 8), np.float32), WHOLE, "dent") == []


@given(hnp.arrays(np.float64, (4, 3), elements=st.floats(0.01, 1)))
def test_the_worst_tile_decides(raw: np.ndarray) -> None:
    """The frame's decision is the worst of its tiles', and its scores are those of a tile that decided so."""
    scores = (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)
    rule = tiled(2, 2)
    found = judge(Inference(scores, np.zeros((4, 8, 8), np.float32)), tiles_of(48, 64, rule), CLASSES, rule)
    each = [decide(dict(zip(CLASSES, map(float, row), strict=True)), rule).decision for row in scores]
    order = [Decision.OK, Decision.INCONCLUSIVE, Decision.NG]
    assert found.outcome.decision is max(each, key=order.index)
    assert decide(found.scores, rule) == found.outcome


def test_regions_come_with_defects_only() -> None:
    """An OK part has no boxes, whatever its map says."""
    hot = np.ones((1, 8, 8), np.float32)
    tiles = tiles_of(48, 64, recipe())
    good = judge(Inference(np.array([[0.9, 0.05, 0.05]], np.float32), hot), tiles, CLASSES, recipe())
    bad = judge(Inference(np.array([[0.1, 0.8, 0.1]], np.float32), hot), tiles, CLASSES, recipe())
    assert (good.outcome.decision, good.regions) == (Decision.OK, [])
    assert bad.outcome.defect_class == "scratch"
    assert bad.regions[0].label == "scratch"


def test_the_audit_is_reproducible_and_near_its_share() -> None:
    """The same ids are drawn again; of 4,000 ids about a tenth is (six standard deviations wide)."""
    drawn = [audited(f"id-{i}", 0.1) for i in range(4000)]
    assert drawn == [audited(f"id-{i}", 0.1) for i in range(4000)]
    assert abs(sum(drawn) - 400) < 6 * (4000 * 0.1 * 0.9) ** 0.5
    assert not any(audited(f"id-{i}", 0.0) for i in range(100))
    assert all(audited(f"id-{i}", 1.0) for i in range(100))


@pytest.mark.parametrize(
    ("decision", "good", "share", "why"),
    [
        (Decision.NG, 0.1, 1.0, "ng"),
        (Decision.INCONCLUSIVE, 0.5, 1.0, "inconclusive"),
        (Decision.OK, 0.75, 0.0, "near_threshold"),
        (Decision.OK, 0.75, 1.0, "audit"),
        (Decision.OK, 0.99, 0.0, None),
        (Decision.ERROR, 0.99, 1.0, None),
    ],
)
def test_pictures_are_kept_for_a_reason(decision: Decision, good: float, share: float, why: str | None) -> None:
    """Rejects, doubts, near misses and a random share of the passed."""
    scores = {"good": good, "scratch": 1 - good, "dent": 0.0}
    assert why_keep(decision, "an-id", scores, recipe(), audit_share=share, margin=0.1) == why


@pytest.mark.parametrize(
    ("decision", "good", "why"),
    [
        (Decision.NG, 0.1, "ng"),
        (Decision.INCONCLUSIVE, 0.5, "inconclusive"),
        (Decision.OK, 0.75, None),
        (Decision.OK, 0.99, None),
    ],
)
def test_a_known_part_is_neither_audited_nor_near(decision: Decision, good: float, why: str | None) -> None:
    """What a challenge shows is no sample of the line: only its rejects and doubts are kept, as evidence."""
    scores = {"good": good, "scratch": 1 - good, "dent": 0.0}
    kept = why_keep(decision, "an-id", scores, recipe(), audit_share=1.0, margin=0.1, purpose=Purpose.CHALLENGE)
    assert kept == why


@given(st.floats(0, 1), st.floats(0, 0.3))
def test_near_threshold_is_below_the_band(good: float, margin: float) -> None:
    """Only what was judged OK can be near the threshold."""
    scores = {"good": good, "scratch": 1 - good, "dent": 0.0}
    if near_threshold(scores, recipe(), margin):
        assert decide(scores, recipe()).decision is Decision.OK


def test_the_map_of_a_tiled_frame_covers_it_whole() -> None:
    """Each tile's cells lie where the tile lies; where tiles overlap the higher value stands."""
    tiles = tiles_of(80, 120, tiled(2, 3, overlap=10))
    maps = np.full((6, 8, 8), 0.1, np.float32)
    maps[5, 7, 7] = 0.9  # the last cell of the last tile
    found = whole_map(maps, tiles)
    assert found[-1, -1] == np.float32(0.9)
    assert (found > 0).all()
    assert found.shape[1] / found.shape[0] == pytest.approx(120 / 80, rel=0.15)
    assert whole_map(maps[:1], tiles[:1]).shape == (8, 8)
