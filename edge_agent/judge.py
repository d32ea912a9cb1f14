"""Scores, maps and a recipe in; decision, class and regions out. Pure: no clock, no I/O, no state.

The decision rule itself is `inspection.contracts.decide`, the one every evaluation uses. A frame cut into tiles has the
decision and the scores of its worst tile, and the novelty of its most novel one.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.pictures import Image
from edge_agent.runtime import Inference
from inspection.contracts import (
    ANY_DEFECT,
    Box,
    Decision,
    Outcome,
    Purpose,
    Recipe,
    Region,
    decide,
    defect_score,
    worst,
)

MAX_REGIONS = 12
_UPSAMPLE = 3
"""Odd, so that a cell's own value is among the finer ones."""
_MAP_FLOOR = 0.1
"""A map whose peak is below this shows no defect worth a box."""
_LEVEL = 0.7  # measured: tests/benchmarks/map_boxes.py, with the figures in inspection/models/README.md
_SURE = 0.999
_DOUBLE = 0.5


@dataclass(frozen=True)
class Judgement:
    """What was decided about one frame. ``defect_map`` float32 ``[h, w]`` in [0, 1] covers the inspected region;
    ``novelty`` is that of the most novel tile."""

    outcome: Outcome
    scores: dict[str, float]
    regions: list[Box]
    defect_map: NDArray[np.float32]
    novelty: float | None = None


def cut(image: Image, tiles: Sequence[Region]) -> list[Image]:
    """The tiles of a frame, uint8 ``[h, w, 3]`` each: views, nothing is copied."""
    return [image[t.y : t.y + t.height, t.x : t.x + t.width] for t in tiles]


def boxes(defect_map: NDArray[np.float32], tile: Region, label: str) -> list[Box]:
    """Where the map comes near its peak, strongest first, as boxes in pixels of the frame; none where it stays below 0.1.

    ``defect_map`` float32 ``[h, w]`` in [0, 1] covers ``tile``. A box is a connected area above the level that lies 0.7 of
    the way, in log odds, from 0.1 to the peak: a location votes for the verdict by its odds, and probabilities near 1 hide
    how much stronger the defect itself is than what lies round it. No box is smaller than a cell of the map.
    """
    if float(defect_map.max()) < _MAP_FLOOR:
        return []
    fine = cv2.resize(_log_odds(defect_map), None, fx=_UPSAMPLE, fy=_UPSAMPLE, interpolation=cv2.INTER_LINEAR)
    peak = float(fine.max())
    level = peak - (1 - _LEVEL) * max(0.0, peak - float(_log_odds(_MAP_FLOOR)))
    count, labels, stats, _ = cv2.connectedComponentsWithStats((fine >= level).astype(np.uint8), connectivity=8)
    cells = labels[_UPSAMPLE // 2 :: _UPSAMPLE, _UPSAMPLE // 2 :: _UPSAMPLE]
    found = []
    for i in _largest(np.asarray(stats, dtype=np.int32), count):
        left, top, width, height = (int(stats[i, column]) for column in range(4))
        x, wide = _side(left, width, tile.x, tile.width, defect_map.shape[1])
        y, high = _side(top, height, tile.y, tile.height, defect_map.shape[0])
        score = float(defect_map[cells == i].max(initial=_MAP_FLOOR))
        found.append(Box(x=x, y=y, width=wide, height=high, label=label, score=score))
    return sorted(found, key=_strength, reverse=True)


def _log_odds(probability: NDArray[np.float32] | float) -> NDArray[np.float32]:
    """Natural logarithm of the odds; probabilities end where networks, and int8 files above all, saturate."""
    clipped = np.clip(probability, 1 - _SURE, _SURE)
    return np.asarray(np.log(clipped / (1 - clipped)), np.float32)


def _side(start: int, length: int, first: int, pixels: int, cells: int) -> tuple[float, float]:
    """Start and length in pixels of what takes ``length`` of the fine map's values: at least a cell, within the tile."""
    missing = max(0, _UPSAMPLE - length)
    begin = min(max(start - missing / 2, 0), cells * _UPSAMPLE - length - missing)
    scale = pixels / (cells * _UPSAMPLE)
    return first + begin * scale, (length + missing) * scale


def _strength(box: Box) -> tuple[float, float]:
    return box.score, box.width * box.height


def _largest(stats: NDArray[np.int32], count: int) -> list[int]:
    """At most MAX_REGIONS components by area: noise must not make a verdict slow or large."""
    ranked = sorted(range(1, count), key=lambda i: int(stats[i, cv2.CC_STAT_AREA]), reverse=True)
    return ranked[:MAX_REGIONS]


def to_show(found: Iterable[Box]) -> list[Box]:
    """At most MAX_REGIONS of the boxes of a frame's tiles, strongest first, each defect once.

    Of two boxes that share half of the smaller one's area the stronger stands: where tiles overlap both show a defect.
    """
    kept: list[Box] = []
    for box in sorted(found, key=_strength, reverse=True):
        if len(kept) == MAX_REGIONS:
            break
        if not any(_double(box, other) for other in kept):
            kept.append(box)
    return kept


def _double(one: Box, other: Box) -> bool:
    across = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    down = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    smaller = min(one.width * one.height, other.width * other.height)
    return across > 0 and down > 0 and across * down >= _DOUBLE * smaller


def whole_map(maps: NDArray[np.float32], tiles: Sequence[Region]) -> NDArray[np.float32]:
    """One map over all tiles, float32 ``[h, w]``; where tiles overlap the higher value stands."""
    if len(tiles) == 1:
        return np.asarray(maps[0], np.float32)
    left, top = min(t.x for t in tiles), min(t.y for t in tiles)
    down, across = maps.shape[1] / tiles[0].height, maps.shape[2] / tiles[0].width  # cells per pixel
    corners = [(round((t.y - top) * down), round((t.x - left) * across)) for t in tiles]
    height, width = (max(c[i] for c in corners) + maps.shape[i + 1] for i in (0, 1))
    canvas = np.zeros((height, width), np.float32)
    for one, (y, x) in zip(maps, corners, strict=True):
        area = canvas[y : y + one.shape[0], x : x + one.shape[1]]
        np.maximum(area, one, out=area)
    return canvas


def judge(answer: Inference, tiles: Sequence[Region], classes: Sequence[str], recipe: Recipe) -> Judgement:
    """Judge one frame from its tiles' answers. KeyError when the recipe names a class the model does not know, ValueError
    when it asks for a novelty the model does not give."""
    scores = [dict(zip(classes, map(float, row), strict=True)) for row in answer.scores]
    most = None if answer.novelty is None else float(answer.novelty.max())  # of the frame: a tile beside an odd one, too
    outcomes = [decide(s, recipe, most) for s in scores]
    outcome = worst(outcomes)
    shown = max(
        (s for s, o in zip(scores, outcomes, strict=True) if o.decision is outcome.decision),
        key=lambda s: defect_score(s, recipe.good_class),
    )
    return Judgement(
        decide(shown, recipe, most), shown, _regions(answer, tiles, outcomes), whole_map(answer.defect_maps, tiles), most
    )


def _regions(answer: Inference, tiles: Sequence[Region], outcomes: Sequence[Outcome]) -> list[Box]:
    peaks = [float(defect_map.max()) for defect_map in answer.defect_maps]
    defective = [i for i, outcome in enumerate(outcomes) if outcome.defect_class is not None]
    strongest = sorted(defective, key=lambda i: peaks[i], reverse=True)[:MAX_REGIONS]  # one of each is enough
    found = [box for i in strongest for box in boxes(answer.defect_maps[i], tiles[i], str(outcomes[i].defect_class))]
    return to_show(found)


def near_threshold(scores: Mapping[str, float], recipe: Recipe, margin: float) -> bool:
    """True when some defect score lies within ``margin`` below the band where doubt begins."""
    for name, band in recipe.thresholds.items():
        score = defect_score(scores, recipe.good_class) if name == ANY_DEFECT else scores[name]
        if band.inconclusive - margin <= score < band.inconclusive:
            return True
    return False


def audited(verdict_id: str, share: float) -> bool:
    """True for ``share`` of all ids, decided by a hash of the id: reproducible, and blind to the scores."""
    draw = int.from_bytes(hashlib.sha256(b"audit" + verdict_id.encode()).digest()[:8], "big")
    return draw < share * 2**64


def why_keep(
    decision: Decision,
    verdict_id: str,
    scores: Mapping[str, float],
    recipe: Recipe,
    *,
    audit_share: float,
    margin: float,
    purpose: Purpose = Purpose.PRODUCTION,
) -> str | None:
    """Why the picture of a judged frame is kept, or None.

    The audit comes before the threshold: its share must stay a random sample of all OK parts, near ones included.
    A known part of a challenge is none of them: its picture is kept only as evidence of a reject or a doubt.
    """
    if decision is Decision.NG:
        return "ng"
    if decision is Decision.INCONCLUSIVE:
        return "inconclusive"
    if decision is not Decision.OK or purpose is Purpose.CHALLENGE:
        return None
    if audited(verdict_id, audit_share):
        return "audit"
    return "near_threshold" if near_threshold(scores, recipe, margin) else None
