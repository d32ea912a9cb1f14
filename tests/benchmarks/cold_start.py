"""What good pictures alone tell: novelty on the real sets, by how many good pictures it learnt from.

    python -m tests.benchmarks.cold_start --set elpv --side 128 --good 25 --good 100

Pretrained: the MobileNetV2 weights beside the sets; learnt from training pictures of the good class, judged on the test
side. ``deeppcb_boards`` is cut into tiles: learnt from templates, judged on tiles of tested boards.
"""

import argparse
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from inspection.contracts import Box
from inspection.data.importers import Item
from inspection.data.snapshot_record import Split
from inspection.models import catalogue
from inspection.models.deploy import ColdStartGraph
from inspection.models.novelty import learn_novelty
from tests.benchmarks.sets import GOOD, MOBILENET, MOBILENET_WEIGHTS, RealSet

SIDES = {"elpv": 128, "xsdd": 128, "deeppcb_crops": 96, "deeppcb_boards": 128}
TILE = 160  # pixels of a board's tile: 16 to a board
_MOST = 500  # test pictures of each kind, for a run of about a minute
_TOUCHES = 40  # square pixels of a box in a tile that make it defective; tiles touched by less are left out


@dataclass(frozen=True)
class Shot:
    """A frame uint8 ``[H, W, 3]``, its part, and for a tile with a defect the boxes in it, in pixels of the tile."""

    frame: NDArray[np.uint8]
    part: str
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Trial:
    """What is learnt from and judged: good pictures of the training side, good and defective ones of the test side."""

    learn: list[Shot]
    good: list[Shot]
    defective: list[Shot]


def _read(item: Item) -> Shot:
    frame = cv2.imread(str(item.path))
    assert frame is not None
    return Shot(np.asarray(frame, np.uint8), item.part)


def _some(items: Iterable[Item], most: int, seed: int) -> list[Item]:
    ordered = sorted(items, key=lambda item: item.name)
    return [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))[:most]]


def pictures(name: str, good: int, seed: int) -> Trial:
    """Whole pictures of a set; ``good`` of them to learn from."""
    items, fine = RealSet.load(name).items.values(), GOOD[name]
    test = [item for item in items if item.split is Split.GOLDEN]
    return Trial(
        [_read(i) for i in _some((i for i in items if i.split is not Split.GOLDEN and i.label == fine), good, seed)],
        [_read(i) for i in _some((i for i in test if i.label == fine), _MOST, 0)],
        [_read(i) for i in _some((i for i in test if i.label != fine), _MOST, 0)],
    )


def _tiles(item: Item) -> Iterator[Shot]:
    board = _read(item).frame
    for y in range(0, board.shape[0] - TILE + 1, TILE):
        for x in range(0, board.shape[1] - TILE + 1, TILE):
            inside = [_clipped(box, x, y) for box in item.boxes]
            touched = tuple(box for box in inside if box is not None and box.width * box.height >= _TOUCHES)
            if touched or not any(inside):
                yield Shot(board[y : y + TILE, x : x + TILE], item.part, touched)


def _clipped(box: Box, x: int, y: int) -> Box | None:
    left, top = max(box.x - x, 0.0), max(box.y - y, 0.0)
    width, height = min(box.x + box.width - x, TILE) - left, min(box.y + box.height - y, TILE) - top
    return Box(x=left, y=top, width=width, height=height, label=box.label) if width > 0 and height > 0 else None


def boards(good: int, seed: int) -> Trial:
    """Tiles of boards; ``good`` template tiles to learn from. Templates of the test side stay out: they are too clean."""
    items, fine = RealSet.load("deeppcb_boards").items.values(), GOOD["deeppcb_boards"]
    templates = _some((i for i in items if i.split is not Split.GOLDEN and i.label == fine), good, seed)
    rng, each = np.random.default_rng(seed), -(-good // len(templates))
    tiled = ([*_tiles(template)] for template in templates)
    learn = [shots[k] for shots in tiled for k in rng.permutation(len(shots))[:each]][:good]
    tested = _some((i for i in items if i.split is Split.GOLDEN and i.label != fine), 60, 0)
    shots = [shot for item in tested for shot in _tiles(item)]
    return Trial(learn, [s for s in shots if not s.boxes][:_MOST], [s for s in shots if s.boxes][:_MOST])


def judge(graph: ColdStartGraph, shots: Sequence[Shot]) -> tuple[NDArray[np.float32], list[tuple[float, float]]]:
    """Novelty ``[N]`` in [0, 1], and where each map is highest, as (x, y) in pixels."""
    novelty, peaks = [], []
    with torch.inference_mode():
        for shot in shots:
            scores, found = graph(torch.from_numpy(np.ascontiguousarray(shot.frame))[None])
            row, column = divmod(int(found[0].argmax()), found.shape[-1])
            height, width = shot.frame.shape[:2]
            peaks.append(((column + 0.5) * width / found.shape[-1], (row + 0.5) * height / found.shape[-2]))
            novelty.append(float(scores[0, 1]))
    return np.array(novelty, np.float32), peaks


def _points_at(peak: tuple[float, float], boxes: Sequence[Box], slack: float) -> bool:
    x, y = peak
    return any(b.x - slack <= x <= b.x + b.width + slack and b.y - slack <= y <= b.y + b.height + slack for b in boxes)


def trial(name: str, good: int, side: int, seed: int) -> dict[str, Any]:
    """One row: learn, judge, say."""
    chosen = boards(good, seed) if name == "deeppcb_boards" else pictures(name, good, seed)
    net = catalogue.build(MOBILENET, 2, pretrained=str(MOBILENET_WEIGHTS), height=side, width=side).eval()
    started = time.perf_counter()
    batches = (torch.from_numpy(np.ascontiguousarray(shot.frame))[None] for shot in chosen.learn)
    graph = ColdStartGraph(net, learn_novelty(net, batches, [shot.part for shot in chosen.learn], seed=seed)).eval()
    learnt = time.perf_counter() - started
    fine, _ = judge(graph, chosen.good)
    bad, peaks = judge(graph, chosen.defective)
    truth = np.repeat([False, True], [len(fine), len(bad)])
    row = {
        "set": name, "px": side, "good": len(chosen.learn), "seed": seed,
        "AUROC": round(float(roc_auc_score(truth, np.concatenate([fine, bad]))), 3),
        "escape at 5 % overkill": round(float((bad <= np.quantile(fine, 0.95)).mean()), 3),
        "unseen good at 0.5 or more": round(float((fine >= 0.5).mean()), 3),
        "defective at 0.5 or more": round(float((bad >= 0.5).mean()), 3),
        "seconds to learn": round(learnt, 1),
    }  # fmt: skip
    if boxed := [(peak, shot.boxes) for peak, shot in zip(peaks, chosen.defective, strict=True) if shot.boxes]:
        slack = TILE / graph.novelty.size[0]
        row["map points at a defect"] = round(float(np.mean([_points_at(p, b, slack) for p, b in boxed])), 3)
    return row


def measure(
    names: Sequence[str] = tuple(SIDES),
    goods: Sequence[int] = (25, 100, 1000),
    seeds: int = 1,
    side: int | None = None,
) -> Iterator[dict[str, Any]]:
    """A row per set, number of good pictures and seed; a set has as many as it has."""
    for name in names:
        for good in goods:
            for seed in range(seeds):
                yield trial(name, good, side or SIDES[name], seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--set", action="append", choices=sorted(SIDES))
    parser.add_argument("--good", action="append", type=int)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--side", type=int)
    asked = parser.parse_args()
    for line in measure(asked.set or tuple(SIDES), asked.good or (25, 100, 1000), asked.seeds, asked.side):
        print(json.dumps(line), flush=True)  # noqa: T201 - a program's answer
