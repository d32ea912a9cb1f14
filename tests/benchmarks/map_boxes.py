"""Which rule makes the best boxes of a defect map: maps of trained networks against boxes that are known.

    python -m tests.benchmarks.map_boxes --work /tmp/maps
    python -m tests.benchmarks.map_boxes --network DIR

Rendered lids, as the demo's teacher and its student learn them, and DeepPCB's boards, cut into tiles, learnt with boxes and
without. Training takes some minutes each on one thread; ``--work`` keeps the networks, to compare other rules at once.
``--network`` is a folder ``trained`` of `tests.benchmarks.scorecards`, learnt from all boards in these tiles: it is judged
on all test boards, by the agent's own rule.
"""

import argparse
import csv
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from edge_agent import judge
from inspection.contracts import ANY_DEFECT, Band, Box, Limits, Recipe, Region, Tiling, sha256_hex, tiles_of
from inspection.data.pictures import decode_bgr, encode_png
from inspection.data.product import AugmentPlan, Product, TrainPlan
from inspection.data.snapshot_record import Example, Snapshot, Split
from inspection.demo.plan import LOOK, rendered_plan
from inspection.demo.renderer import GOOD, KINDS, PartSpec, render_with_truth
from inspection.release.map_score import Judged, points_right, score_pixels, score_regions
from inspection.training.distil import distil
from inspection.training.fit import train
from inspection.training.record import Trained, load_trained
from tests.benchmarks.sets import DATA, MOBILENET, MOBILENET_WEIGHTS, RealSet
from tests.benchmarks.sets import GOOD as GOOD_OF

Picture = NDArray[np.uint8]
Maps = NDArray[np.float32]
Rule = Callable[[Maps, Region], list[Box]]
"""From the class probabilities ``[K, h, w]`` of a tile's locations, good class first, to boxes in pixels of the frame."""

LIDS = {Split.TRAIN: 440, Split.VALIDATION: 110, Split.GOLDEN: 220}
BOARDS = {Split.TRAIN: 60, Split.VALIDATION: 20, Split.GOLDEN: 40}
GRID = Tiling(rows=3, columns=3, overlap=40)
_THREADS = 1


@dataclass(frozen=True)
class Frame:
    """A picture to judge, and the defects in it (none: a good one)."""

    picture: Picture
    boxes: tuple[Box, ...]


@dataclass
class Subject:
    """Labelled pictures to learn from, and the frames the maps are judged by, each cut into ``tiling``."""

    classes: list[str]
    plan: TrainPlan
    tiling: Tiling = field(default_factory=Tiling)
    examples: list[Example] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)

    def add(self, picture: Picture, label: str, boxes: Sequence[Box], split: Split, part: str) -> None:
        """One more picture; a second copy of one is left out."""
        data = encode_png(picture)
        digest = sha256_hex(data)
        if digest not in self.files:
            self.files[digest] = data
            self.examples.append(
                Example(picture=digest, label=label, part=part, group=part, split=split, boxes=list(boxes))
            )

    @property
    def snapshot(self) -> Snapshot:
        """What the network learns from."""
        ordered = sorted(self.examples, key=lambda e: e.picture)
        return Snapshot(product="subject", good_class=self.classes[0], classes=self.classes, examples=ordered)

    @property
    def product(self) -> Product:
        """As little of a product as a training needs."""
        limits, student = Limits(escape_rate=0.1, overkill_rate=0.1), rendered_plan().product.student
        good, classes = self.classes[0], self.classes
        return Product(
            name="subject",
            good_class=good,
            classes=classes,
            limits=limits,
            tiling=self.tiling,
            train=self.plan,
            student=student,
        )

    @property
    def recipe(self) -> Recipe:
        """What is more likely defective than good is rejected."""
        half = Band(inconclusive=0.5, ng=0.5)
        return Recipe(
            product="subject",
            version=1,
            good_class=self.classes[0],
            tiling=self.tiling,
            thresholds={ANY_DEFECT: half},
            limits=self.product.limits,
        )


def lids() -> Subject:
    """The made-up product, with the demo's look and its teacher's plan; five good parts to one of each kind of defect."""
    plan = rendered_plan().product.train.model_copy(update={"precision": "32"})
    subject = Subject([GOOD, *KINDS], plan)
    kinds = [GOOD] * 5 + list(KINDS)
    sides = [side for side, count in LIDS.items() for _ in range(count)]
    for index, side in enumerate(sides):
        kind = kinds[index % len(kinds)]
        picture, truth = render_with_truth(PartSpec(f"p{index}", 90, index, kind, LOOK))
        if side is Split.GOLDEN:
            subject.frames.append(Frame(picture, truth.boxes))
        else:
            subject.add(picture, kind, truth.boxes, side, f"p{index}")
    return subject


def boards(*, boxed: bool = True, epochs: int = 10, sizes: Mapping[Split, int] = BOARDS) -> Subject:
    """DeepPCB's boards, learnt and judged in tiles of 240 px, and as many templates without a defect to judge.

    Each is called by its largest defect. Without boxes (not ``boxed``) nothing is good for certain: the training templates
    are learnt from, too.
    """
    kinds = _kinds_of_boxes()
    plan = TrainPlan(
        backbone=MOBILENET,
        pretrained=str(MOBILENET_WEIGHTS),
        height=160,
        width=160,
        epochs=epochs,
        patience=epochs,
        precision="32",
        augment=AugmentPlan(rotate_90=True),
    )
    good = GOOD_OF["deeppcb_boards"]
    subject = Subject([good, *sorted({box.label for boxes in kinds.values() for box in boxes})], plan, GRID)
    items = sorted(RealSet.load("deeppcb_boards").items.values(), key=lambda item: item.name)
    rng = np.random.default_rng(0)
    for number, index in enumerate(rng.permutation([i for i, it in enumerate(items) if _tested(it, Split.TRAIN)])):
        if number >= sizes[Split.TRAIN] + sizes[Split.VALIDATION]:
            break
        side = Split.TRAIN if number < sizes[Split.TRAIN] else Split.VALIDATION
        path = items[index].path
        truth = kinds[path.name]
        label = max(truth, key=lambda b: b.width * b.height).label
        subject.add(decode_bgr(path.read_bytes()), label, truth if boxed else (), side, path.name)
        if not boxed:
            template = next(item for item in items if item.part == items[index].part and not item.boxes)
            subject.add(decode_bgr(template.path.read_bytes()), good, (), side, path.name)
    golden = rng.permutation([i for i, it in enumerate(items) if _tested(it, Split.GOLDEN)])[: sizes[Split.GOLDEN]]
    parts = {items[i].part for i in golden}
    shown = [item for item in items if item.part in parts]
    subject.frames += [Frame(decode_bgr(i.path.read_bytes()), tuple(kinds.get(i.path.name, ()))) for i in shown]
    return subject


def _tested(item: Any, side: Split) -> bool:
    return item.split is side and bool(item.boxes)


def _kinds_of_boxes() -> dict[str, list[Box]]:
    """The boxes of each board by its file's name; an import keeps the class of the board instead of the defect's kind."""
    found: dict[str, list[Box]] = defaultdict(list)
    with (DATA / "deeppcb_boards" / "boxes.csv").open(newline="") as table:
        for row in csv.DictReader(table):
            x0, y0, x1, y1 = (float(row[name]) for name in ("x0", "y0", "x1", "y1"))
            found[Path(row["path"]).name].append(Box(x=x0, y=y0, width=x1 - x0, height=y1 - y0, label=row["label"]))
    return found


def taught(subject: Subject, work: Path, teacher: Path | None = None) -> Trained:
    """The network: from ``work`` when it is there, else trained, or distilled from a ``teacher``."""
    if (work / "trained").is_dir():
        return load_trained(work / "trained")
    pictures = subject.files.__getitem__
    if teacher is None:
        return train(subject.snapshot, subject.product, pictures, work)
    return distil(load_trained(teacher / "trained"), subject.snapshot, subject.product, pictures, work)


@dataclass(frozen=True)
class Answer:
    """What a network says of a frame's tiles: scores ``[T, K]``, class probabilities of the locations ``[T, K, h, w]``."""

    frame: Frame
    tiles: list[Region]
    scores: Maps
    maps: Maps

    def judged(self, rule: Rule) -> Judged:
        """The frame's verdict, with a rule's boxes on its rejected tiles."""
        rejected = [i for i, row in enumerate(self.scores) if 1 - row[0] >= 0.5]
        found = [box for i in rejected for box in rule(self.maps[i], self.tiles[i])]
        return Judged(judge.to_show(found), self.frame.boxes, rejected=bool(rejected))

    @property
    def whole(self) -> Maps:
        """The frame's defect map, ``[h, w]``."""
        return judge.whole_map(1 - self.maps[:, 0], self.tiles)


def answers(subject: Subject, trained: Trained) -> Iterator[Answer]:
    """Every frame through the network, exactly as it is deployed."""
    graph = trained.deploy_graph()
    with torch.inference_mode():
        for frame in subject.frames:
            height, width = frame.picture.shape[:2]
            tiles = tiles_of(height, width, subject.recipe)
            shown = torch.from_numpy(np.stack(judge.cut(frame.picture, tiles)))
            logits, maps = graph.net(graph.preprocess(shown))
            yield Answer(frame, tiles, torch.softmax(logits, 1).numpy(), torch.softmax(maps, 1).numpy())


def _boxes_of(mask: NDArray[np.bool_], value: Maps, tile: Region) -> list[Box]:
    """A box round each connected area."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    right, down = tile.width / mask.shape[1], tile.height / mask.shape[0]
    found = []
    for i in sorted(range(1, count), key=lambda i: -int(stats[i, cv2.CC_STAT_AREA]))[: judge.MAX_REGIONS]:
        x, y, width, height = (int(v) for v in stats[i, :4])
        score = float(np.clip(value[labels == i].max(), 0, 1))
        left, top = tile.x + x * right, tile.y + y * down
        found.append(Box(x=left, y=top, width=width * right, height=height * down, label="", score=score))
    return found


def _fine(one: Maps, factor: int, how: int = cv2.INTER_LINEAR) -> Maps:
    return np.asarray(cv2.resize(one, None, fx=factor, fy=factor, interpolation=how), np.float32)


def _probability(odds: Maps) -> Maps:
    return np.asarray(1 / (1 + np.exp(-odds)), np.float32)


def share_of_peak(share: float, maps: Maps, tile: Region, *, factor: int = 4) -> list[Box]:
    """Areas above a share of the peak: at one half the rule before this one was measured."""
    fine = _fine(1 - maps[0], factor)
    return _boxes_of(fine >= share * fine.max(), fine, tile) if fine.max() >= 0.1 else []


def own_class(share: float, maps: Maps, tile: Region) -> list[Box]:
    """The same on the map of the strongest defect class alone, which the exported model does not give."""
    strongest = 1 + int(maps[1:].max(axis=(1, 2)).argmax())
    fine = _fine(np.ascontiguousarray(maps[strongest]), 4)
    return _boxes_of(fine >= share * fine.max(), fine, tile) if fine.max() >= 0.1 else []


def fixed(level: float, maps: Maps, tile: Region) -> list[Box]:
    """Areas above one level for all maps; the peak alone where a map stays below."""
    fine = _fine(1 - maps[0], 4)
    return _boxes_of(fine >= min(level, fine.max()), fine, tile)


def otsu(maps: Maps, tile: Region) -> list[Box]:
    """Areas above the level that divides the map's values best in two (Otsu 1979)."""
    fine = _fine(1 - maps[0], 4)
    gray = np.clip(fine * 255, 0, 255).astype(np.uint8)
    level, _ = cv2.threshold(gray, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return _boxes_of(gray > level, fine, tile)


def log_odds(
    share: float, maps: Maps, tile: Region, *, factor: int = 3, how: int = cv2.INTER_LINEAR, steps: int = 0
) -> list[Box]:
    """Areas above a share of the way from 0.1 to the peak, in log odds; ``steps``: the map in so many steps, as of int8."""
    one = 1 - maps[0]
    one = np.clip(np.round(one * steps) / steps if steps else one, 0.001, 0.999)
    if one.max() < 0.1:
        return []
    fine, floor = _fine(np.log(one / (1 - one)), factor, how), float(np.log(0.1 / 0.9))
    return _boxes_of(fine >= min(float(fine.max()), floor + share * (fine.max() - floor)), _probability(fine), tile)


def each_peak(share: float, maps: Maps, tile: Region) -> list[Box]:
    """The same rule for every local maximum (of 3 x 3 cells) above one half, each with a level of its own."""
    one = np.clip(1 - maps[0], 0.001, 0.999)
    odds, floor = np.log(one / (1 - one)), float(np.log(0.1 / 0.9))
    fine = _fine(odds, 3)
    peaks = np.argwhere((odds >= cv2.dilate(odds, np.ones((3, 3), np.uint8))) & (odds >= 0))
    found = []
    for row, column in sorted(map(tuple, peaks), key=lambda p: -odds[p])[: judge.MAX_REGIONS]:
        _, labels = cv2.connectedComponents((fine >= floor + share * (odds[row, column] - floor)).astype(np.uint8))
        inside = labels[3 * row + 1, 3 * column + 1]
        found += _boxes_of((labels == inside) & (inside > 0), _probability(fine), tile)
    return found


def in_force(maps: Maps, tile: Region) -> list[Box]:
    """What the agent does."""
    return judge.boxes(np.ascontiguousarray(1 - maps[0]), tile, "")


RULES: dict[str, Rule] = {
    "in force": in_force,
    **{f"{s:.0%} of the peak": partial(share_of_peak, s) for s in (0.3, 0.5, 0.7, 0.8, 0.9)},
    **{f"{s:.0%} of the class's peak": partial(own_class, s) for s in (0.5, 0.8)},
    **{f"above {s}": partial(fixed, s) for s in (0.5, 0.8, 0.95)},
    "Otsu": otsu,
    **{f"log odds {s}": partial(log_odds, s) for s in (0.5, 0.6, 0.7, 0.8)},
    **{f"log odds 0.7, {s} times finer": partial(log_odds, 0.7, factor=s) for s in (1, 4, 5, 8)},
    "log odds 0.7, cubic": partial(log_odds, 0.7, how=cv2.INTER_CUBIC),
    "log odds 0.7, 256 steps": partial(log_odds, 0.7, steps=255),
    "log odds 0.7, each peak": partial(each_peak, 0.7),
}


def row_of(name: str, rule_name: str, found: Sequence[Answer]) -> dict[str, Any]:
    """A rule's figures on a subject; milliseconds are those of a rejected tile."""
    rule = RULES[rule_name]
    score = score_regions([answer.judged(rule) for answer in found])
    took = []
    for answer in found[:50]:
        started = time.perf_counter()
        rule(answer.maps[0], answer.tiles[0])
        took.append((time.perf_counter() - started) * 1e3)
    rates = {"hit": score.hit, "hit, rejected": score.hit_rejected}
    rates |= {f"IoU {least}": rate for least, rate in score.overlap.items()}
    rates |= {"strongest on it": score.pointed, "regions right": score.right}
    row: dict[str, Any] = {"maps": name, "rule": rule_name}
    row |= {key: None if rate.value is None else round(rate.value, 3) for key, rate in rates.items()}
    row |= {"median IoU": round(score.median_iou or 0, 3), "median area": round(score.median_area or 0, 2)}
    return row | {"false regions": score.false_regions, "ms": round(statistics.median(took), 3)}


def map_row(name: str, found: Sequence[Answer]) -> dict[str, Any]:
    """The maps themselves, before any rule: the pointing game of pictures with a defect, and pixels."""
    whole = [Region(x=0, y=0, width=a.frame.picture.shape[1], height=a.frame.picture.shape[0]) for a in found]
    points = [points_right(a.whole, w, a.frame.boxes) for a, w in zip(found, whole, strict=True) if a.frame.boxes]
    sized = [cv2.resize(a.whole, a.frame.picture.shape[1::-1], interpolation=cv2.INTER_LINEAR) for a in found]
    pixels = score_pixels([np.asarray(one, np.float32) for one in sized], [a.frame.boxes for a in found])
    said = {"peak on it": statistics.mean(points), "pixel AUROC": pixels.auroc, "AUPRO": pixels.aupro}
    return {"maps": name, "rule": "the map itself"} | {key: round(value, 3) for key, value in said.items()}


SUBJECTS: dict[str, tuple[Callable[[], Subject], str, str | None]] = {
    "lids, resnet18": (lids, "lids", None),
    "lids, its student mobilenetv4_conv_small": (lids, "lids-student", "lids"),
    "DeepPCB boards, mobilenetv2_100": (boards, "boards", None),
    "DeepPCB boards, no boxes drawn": (partial(boards, boxed=False, epochs=6), "boards-bare", None),
}


def measure(work: Path | None = None, chosen: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """A row per network and rule, the map's own first."""
    torch.set_num_threads(_THREADS)
    cv2.setNumThreads(_THREADS)
    with tempfile.TemporaryDirectory() as fresh:
        folder = work or Path(fresh)
        for name in chosen or SUBJECTS:
            make, own, teacher = SUBJECTS[name]
            subject = make()
            found = list(answers(subject, taught(subject, folder / own, folder / teacher if teacher else None)))
            yield map_row(name, found)
            for rule_name in RULES:
                yield row_of(name, rule_name, found)


def measure_network(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of one network, which nobody trains here, on all test boards."""
    torch.set_num_threads(_THREADS)
    found = list(answers(boards(sizes={Split.TRAIN: 0, Split.VALIDATION: 0, Split.GOLDEN: 10**6}), load_trained(folder)))
    yield map_row("DeepPCB boards, all of them", found)
    yield row_of("DeepPCB boards, all of them", "in force", found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path)
    parser.add_argument("--maps", action="append", choices=list(SUBJECTS))
    parser.add_argument("--network", type=Path)
    asked = parser.parse_args()
    for line in measure_network(asked.network) if asked.network else measure(asked.work, asked.maps or ()):
        print(json.dumps(line), flush=True)  # noqa: T201 - a program's answer
