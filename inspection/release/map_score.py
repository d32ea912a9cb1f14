"""Where verdicts point: their regions, and defect maps, against the boxes that people drew.

Invariants: pure; boxes are in pixels of the whole picture, on both sides; a defective picture without boxes is not counted,
since nobody knows where its defect is; a rate over nothing is None. Boxes of one picture are not independent of each other:
the exact intervals are those of the counts, and too narrow where pictures hold many.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from sklearn.metrics import auc, roc_auc_score
from torchvision.ops import box_iou

from inspection.contracts import Box, Decision, Region, Verdict
from inspection.data.snapshot_record import Example
from inspection.release.scorecard import Rate

OVERLAPS = (0.1, 0.3, 0.5)
"""Overlaps (intersection over union) that true boxes are counted at."""
_HIT = 0.3
_PRO_LIMIT = 0.3  # of false positive pixels, as in the paper
_LEVELS = 301


@dataclass(frozen=True)
class Judged:
    """One judged picture: the boxes its verdict shows, strongest first, the boxes people drew (none: a good picture), and
    whether it was rejected."""

    regions: Sequence[Box]
    truth: Sequence[Box]
    rejected: bool = True


class MapScore(BaseModel):
    """How well regions lie on defects.

    A true box is ``hit`` when the centre of a region lies in it, or a region overlaps it by 0.3 (IoU); ``hit_rejected``
    counts those on rejected pictures alone, since a passed one shows no region; ``overlap`` counts by the best IoU alone.
    ``pointed`` counts rejected pictures whose strongest region has its centre in a true box (the pointing game of Zhang et
    al. 2018, played with regions); ``right`` counts regions that hit a true box. ``median_iou`` is of the best region for
    each true box on rejected pictures (0 without one), ``median_area`` that region's area in areas of the true box, where
    they overlap. ``good_marked`` counts good pictures with a region, which hold ``false_regions`` together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hit: Rate
    hit_rejected: Rate
    overlap: dict[float, Rate]
    pointed: Rate
    right: Rate
    median_iou: float | None
    median_area: float | None
    good_marked: Rate
    false_regions: int

    def metrics(self, prefix: str) -> dict[str, float]:
        """Flat numbers for a tracking server, ``<prefix>/boxes_hit`` and so on; what is None is left out."""
        values = {
            "boxes_hit": self.hit.value,
            "boxes_hit_rejected": self.hit_rejected.value,
            **{f"boxes_overlap_{least:.1f}": rate.value for least, rate in self.overlap.items()},
            "pointed": self.pointed.value,
            "regions_right": self.right.value,
            "median_iou": self.median_iou,
            "median_area": self.median_area,
            "good_marked": self.good_marked.value,
        }
        return {f"{prefix}/{name}": value for name, value in values.items() if value is not None}

    def to_markdown(self) -> str:
        """A table for people."""
        lines = [
            "| | value |",
            "|---|---|",
            f"| true boxes hit | {self.hit} |",
            f"| of them on rejected pictures | {self.hit_rejected} |",
            *(f"| true boxes overlapped by {least:.0%} or more | {rate} |" for least, rate in self.overlap.items()),
            f"| strongest region on a true box | {self.pointed} |",
            f"| regions that hit a true box | {self.right} |",
            f"| median overlap (IoU) | {_number(self.median_iou)} |",
            f"| median area, in areas of the true box | {_number(self.median_area)} |",
            f"| good pictures with a region | {self.good_marked} |",
        ]
        return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"


def score_verdicts(judged: Iterable[tuple[Verdict, Example]], good_class: str) -> MapScore | None:
    """The score of verdicts' regions on the pictures they were made of; None where no picture has a box."""
    pictures = [
        Judged(verdict.regions, example.boxes, verdict.decision is not Decision.OK)
        for verdict, example in judged
        if example.boxes or example.label == good_class
    ]
    return score_regions(pictures) if any(one.truth for one in pictures) else None


def score_regions(pictures: Sequence[Judged]) -> MapScore:
    """The score of regions on pictures, good ones (without true boxes) included."""
    marked = [_Marked.of(one) for one in pictures if one.truth]
    rejected = [one for one in marked if one.rejected]
    good = [one for one in pictures if not one.truth]
    best = [float(value) for one in rejected for value in one.iou.max(axis=0, initial=0.0)]
    areas = [area for one in rejected for area in one.areas()]
    boxes = sum(one.boxes for one in marked)
    return MapScore(
        hit=Rate.of(sum(one.boxes_hit for one in marked), boxes),
        hit_rejected=Rate.of(sum(one.boxes_hit for one in rejected), len(best)),
        overlap={least: Rate.of(sum(one.overlapped(least) for one in marked), boxes) for least in OVERLAPS},
        pointed=Rate.of(sum(one.pointed for one in rejected), len(rejected)),
        right=Rate.of(sum(int(one.hits.any(axis=1).sum()) for one in marked), sum(len(one.hits) for one in marked)),
        median_iou=median(best) if best else None,
        median_area=median(areas) if areas else None,
        good_marked=Rate.of(sum(bool(one.regions) for one in good), len(good)),
        false_regions=sum(len(one.regions) for one in good),
    )


@dataclass(frozen=True)
class _Marked:
    """A picture with true boxes. Rows are its regions, columns its true boxes: ``iou`` float ``[R, T]``, ``inside`` bool
    (the region's centre lies in the true box), ``ratio`` float (the region's area over the true box's)."""

    iou: NDArray[np.float64]
    inside: NDArray[np.bool_]
    ratio: NDArray[np.float64]
    rejected: bool

    @classmethod
    def of(cls, one: Judged) -> "_Marked":
        regions, truth = _corners(one.regions), _corners(one.truth)
        centre = (regions[:, None, :2] + regions[:, None, 2:]) / 2
        within = (centre >= truth[None, :, :2]) & (centre <= truth[None, :, 2:])
        iou = box_iou(torch.from_numpy(regions), torch.from_numpy(truth)).numpy()
        return cls(iou, np.all(within, axis=2), _area(regions)[:, None] / _area(truth)[None], one.rejected)

    @property
    def boxes(self) -> int:
        return self.iou.shape[1]

    @property
    def hits(self) -> NDArray[np.bool_]:
        return np.asarray(self.inside | (self.iou >= _HIT), np.bool_)

    @property
    def boxes_hit(self) -> int:
        return int(self.hits.any(axis=0).sum())

    @property
    def pointed(self) -> bool:
        return bool(self.inside[:1].any())

    def overlapped(self, least: float) -> int:
        return int((self.iou >= least).any(axis=0).sum())

    def areas(self) -> list[float]:
        """For each true box that a region overlaps: the best region's area over the true one's."""
        if not len(self.iou):
            return []
        best = self.iou.argmax(axis=0)
        return [float(self.ratio[row, column]) for column, row in enumerate(best) if self.iou[row, column] > 0]


def _corners(boxes: Sequence[Box]) -> NDArray[np.float64]:
    corners = [(b.x, b.y, b.x + b.width, b.y + b.height) for b in boxes]
    return np.array(corners, np.float64).reshape(-1, 4)


def _area(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1]), np.float64)


def points_right(defect_map: NDArray[np.float32], covered: Region, boxes: Sequence[Box]) -> bool:
    """The pointing game (Zhang et al. 2018): whether the map's peak lies in a true box, or within half a cell of one.

    ``defect_map`` float32 ``[h, w]`` covers ``covered``; a peak is the centre of its cell.
    """
    height, width = defect_map.shape
    row, column = divmod(int(defect_map.argmax()), width)
    wide, high = covered.width / width, covered.height / height
    x, y = covered.x + (column + 0.5) * wide, covered.y + (row + 0.5) * high
    return any(
        box.x - wide / 2 <= x <= box.x + box.width + wide / 2 and box.y - high / 2 <= y <= box.y + box.height + high / 2
        for box in boxes
    )


@dataclass(frozen=True)
class PixelScore:
    """How well maps separate boxed pixels from all others, whatever threshold makes boxes of them, both in [0, 1].

    ``auroc`` over all pixels; ``aupro``: the area under the per-region overlap up to 30 % false positive pixels, divided by
    0.3 (Bergmann et al. 2020), which counts a small defect as much as a large one.
    """

    auroc: float
    aupro: float


def score_pixels(maps: Sequence[NDArray[np.float32]], truth: Sequence[Sequence[Box]]) -> PixelScore:
    """The score of maps float32 ``[h, w]`` at the pictures' own size, good pictures included.

    ValueError when no pixel is boxed, or all are.
    """
    levels, boxed, regions = [], [], []
    for one, boxes in zip(maps, truth, strict=True):
        mask = np.zeros(one.shape, np.bool_)
        for box in boxes:
            area = slice(round(box.y), round(box.y + box.height)), slice(round(box.x), round(box.x + box.width))
            mask[area] = True
            regions.append(np.sort(one[area], axis=None))
        levels.append(one.ravel())
        boxed.append(mask.ravel())
    values, inside = np.concatenate(levels), np.concatenate(boxed)
    if not inside.any() or inside.all():
        raise ValueError("pixels of both kinds are needed: in a true box, and outside of all")
    return PixelScore(float(roc_auc_score(inside, values)), _aupro(values[~inside], regions))


def _aupro(outside: NDArray[np.float32], regions: Sequence[NDArray[np.float32]]) -> float:
    """``regions``: the values in each true box, sorted. Between two levels of the map the curve is a straight line."""
    outside = np.sort(outside)
    chosen = np.quantile(outside, 1 - np.linspace(0, _PRO_LIMIT, _LEVELS), method="higher")
    levels = np.unique([*chosen, np.nextafter(outside[-1], np.float32(np.inf))])[::-1]  # the highest: nothing outside
    reached = np.array([1 - np.searchsorted(outside, level, "left") / len(outside) for level in levels])
    overlaps = np.mean([1 - np.searchsorted(one, levels, "left") / len(one) for one in regions if len(one)], axis=0)
    # From nothing, through the levels, to everything: a map with few levels reaches far beyond the limit at once.
    rates = np.concatenate([[0.0], reached, [1.0]])
    overlap = np.concatenate([[0.0], overlaps, [1.0]])
    grid = np.linspace(0, _PRO_LIMIT, 1 + _LEVELS)
    return float(auc(grid, np.interp(grid, rates, overlap)) / _PRO_LIMIT)
