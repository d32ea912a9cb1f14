"""What the product ships on each real set, beside the published figure: teacher, student in float, student in int8.

    python -m tests.benchmarks.scorecards --set elpv --side 128 --epochs 12 --out results.jsonl --work /tmp/scorecards
    python -m tests.benchmarks.scorecards --render results.jsonl

Trains, distils, exports and quantizes with the product's own functions, without servers; learns from the set's training
side (a fifth of it validates) and judges on its test side. ``--pretrained file`` is the MobileNetV2 beside the sets, for
whichever of the two networks has that name; others start from random weights. ``--per-class`` takes fewer pictures,
``--tiles 3x3+40`` cuts each into tiles, as a product's tiling does. Rows that ``--out`` holds already are not measured
again, and networks that ``--work`` holds are not trained again.
"""

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inspection.cli.common import TilesType
from inspection.contracts import Limits, tile_count
from inspection.data.product import AugmentPlan, Product, StudentPlan, TrainPlan
from inspection.data.snapshot_record import Example, Snapshot, Split
from inspection.models.tiles import worst_tile
from inspection.release.evaluate import judged
from inspection.release.export import export_onnx
from inspection.release.measure import Latency, compare_latency, scores_of
from inspection.release.quantize import quantize_int8
from inspection.release.scorecard import score
from inspection.release.thresholds import calibrate
from inspection.stages.material import Frames
from inspection.training.distil import distil
from inspection.training.fit import train
from inspection.training.predict import predict
from inspection.training.record import Trained, load_trained
from tests.benchmarks.judging import Scores, Side, markdown, of_classes, of_defects
from tests.benchmarks.sets import DATA, GOOD, MOBILENET, MOBILENET_WEIGHTS, RealSet

PUBLISHED = {
    "elpv": "accuracy 88.4 % (VGG-19, Deitsch 2019; another split)",
    "xsdd": "accuracy 95.1 % (RepVGG+SA, Feng 2021; another split)",
    "deeppcb_crops": "none of crops (whole boards: 98.6 % mAP)",
    "deeppcb_boards": "98.6 % mAP, 98.2 % F (detection, with the template as a second input)",
}
STUDENT = StudentPlan().backbone
_LIMITS = Limits(escape_rate=0.05, overkill_rate=0.05)
_RUNS = 100
SHOWN = (
    "set", "px", "tiles", "per class", "judge", "accuracy", "balanced accuracy", "macro F1", "AUROC",
    "escape at 5% overkill, curve", "escape at 2% overkill, curve", "threshold of validation at 5%: escape",
    "threshold of validation at 5%: overkill", "equal verdicts", "CPU s", "ms", "best ms", "bytes", "published",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What is trained: a teacher and a student, on ``per_class`` pictures of each class (None: all) of a set."""

    set: str
    side: int
    epochs: int
    student_epochs: int
    teacher: str = MOBILENET
    student: str = STUDENT
    pretrained: str = "file"
    per_class: int | None = None
    seed: int = 0
    tiles: str = "1x1"

    @property
    def plan(self) -> TrainPlan:
        """The teacher's, with the product's own defaults for all that is not asked for."""
        return TrainPlan(
            backbone=self.teacher,
            pretrained=self._weights(self.teacher),
            height=self.side,
            width=self.side,
            epochs=self.epochs,
            patience=self.epochs,
            seed=self.seed,
            augment=AugmentPlan(rotate_90=True),
        )

    def product(self, classes: list[str]) -> Product:
        """As little of a product as a training needs."""
        student = StudentPlan(backbone=self.student, pretrained=self._weights(self.student), epochs=self.student_epochs)
        return Product(
            name=self.set,
            good_class=GOOD[self.set],
            classes=classes,
            limits=_LIMITS,
            train=self.plan,
            student=student,
            tiling=TilesType().convert(self.tiles, None, None),
        )

    def _weights(self, backbone: str) -> str:
        return str(MOBILENET_WEIGHTS) if self.pretrained == "file" and backbone == MOBILENET else "none"

    def folder(self, below: Path, who: str) -> Path:
        """A network's own; students of one teacher find it again."""
        told = asdict(self)
        if who == "teacher":
            told = {name: value for name, value in told.items() if not name.startswith("student")}
        folder = below / "-".join([who, *("".join(c if c.isalnum() else "_" for c in str(v)) for v in told.values())])
        folder.mkdir(parents=True, exist_ok=True)
        return folder


@dataclass(frozen=True)
class Timed:
    """A network and what learning it took, in seconds of the clock and of the processor."""

    trained: Trained
    wall: float
    cpu: float


@dataclass(frozen=True)
class Judge:
    """Someone who scores: on the validation and on the test side ``[N, K]``; what learning took in all, and what a device
    would take."""

    name: str
    validation: Scores
    golden: Scores
    wall: float
    cpu: float
    latency: Latency | None = None
    length: int | None = None


def timed(folder: Path, learn: Callable[[], Trained]) -> Timed:
    """A network from its folder when it is there, else learnt now. Seconds are those of the learning, whenever it was."""
    note = folder / "took.json"
    if note.exists():
        return Timed(load_trained(folder / "trained"), **json.loads(note.read_text()))
    wall, cpu = time.perf_counter(), time.process_time()
    trained = learn()
    took = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    note.write_text(json.dumps(took))
    return Timed(trained, **took)


@dataclass(frozen=True)
class Shown:
    """What files of one snapshot are shown, and how what they say becomes scores of pictures."""

    real: RealSet
    snapshot: Snapshot
    product: Product

    def of(self, side: Split) -> Frames:
        """The frames of a side, tile after tile."""
        return Frames(self.snapshot.of(side), self.real.picture, self.product)

    def scores(self, file: Path, side: Split) -> Scores:
        """Of each picture: those of its worst tile."""
        good = self.snapshot.classes.index(self.snapshot.good_class)
        return worst_tile(scores_of(file, self.of(side)), tile_count(self.product), good)

    def predicted(self, trained: Trained, side: Split) -> Scores:
        """Of the network itself."""
        return predict(trained, self.snapshot.of(side), self.real.picture, framed=self.product)


def files(trained: Trained, shown: Shown, folder: Path) -> tuple[Path, Path]:
    """The float and the plain int8 file of a network, made as `inspection.stages.build_search` makes them."""
    exact, small, plans = folder / "float.onnx", folder / "int8.onnx", shown.product
    export_onnx(trained.deploy_graph(), exact)
    chosen = shown.of(Split.TRAIN).sample(plans.student.calibration_pictures, plans.train.seed)
    quantize_int8(exact, (f[None] for f in chosen), small, float_stem=True)
    return exact, small


def shipped(name: str, spent: tuple[float, float], pair: tuple[Path, Path], shown: Shown) -> Iterator[Judge]:
    """The float file and the int8 file, timed in turns on a common size of frame, or of tile."""
    sizes = sorted((f.shape for f in shown.of(Split.GOLDEN)[:64]), key=lambda s: s[0] * s[1])
    height, width, _ = sizes[len(sizes) // 2]
    times = compare_latency(*pair, (height, width, 3), runs=_RUNS)
    for path, kind, took in zip(pair, ("float", "int8"), (times.float_model, times.int8_model), strict=True):
        scored = shown.scores(path, Split.VALIDATION), shown.scores(path, Split.GOLDEN)
        yield Judge(f"{name}, {kind} file", *scored, *spent, took, path.stat().st_size)


def judges(asked: Asked, real: RealSet, snapshot: Snapshot, work: Path) -> Iterator[Judge]:
    """Teacher, its files, and the student's files; a student has cost its teacher's training, too."""
    product = asked.product(snapshot.classes)
    shown = Shown(real, snapshot, product)
    ours = {who: asked.folder(work, who) for who in ("teacher", "student")}
    teacher = timed(ours["teacher"], lambda: train(snapshot, product, real.picture, ours["teacher"]))
    spent = (teacher.wall, teacher.cpu)
    validation, golden = (shown.predicted(teacher.trained, side) for side in (Split.VALIDATION, Split.GOLDEN))
    yield Judge("teacher", validation, golden, *spent)
    yield from shipped("teacher", spent, files(teacher.trained, shown, ours["teacher"]), shown)
    student = timed(ours["student"], lambda: distil(teacher.trained, snapshot, product, real.picture, ours["student"]))
    spent = (spent[0] + student.wall, spent[1] + student.cpu)
    yield from shipped("student", spent, files(student.trained, shown, ours["student"]), shown)


def subsets(name: str) -> dict[str, set[str]]:
    """Parts of a test side that its README wants told apart: name to the paths in ``labels.csv``."""
    with (DATA / name / "labels.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    if name == "elpv":
        return {kind: {r["path"] for r in rows if r["cell_type"] == kind} for kind in ("mono", "poly")}
    if name == "deeppcb_crops":
        known = {r["group"] for r in rows if r["split"] == "train"}
        return {"boards never seen": {r["path"] for r in rows if r["group"] not in known}}
    return {}


def by_subset(real: RealSet, golden: Sequence[Example], side: Side) -> dict[str, float]:
    """Accuracy on each of the `subsets`."""
    right = np.asarray(side.scores).argmax(1) == side.truth
    found = {}
    for name, paths in subsets(real.name).items():
        inside = [str(real.items[e.picture].path.relative_to((DATA / real.name).resolve())) in paths for e in golden]
        found[f"accuracy, {name}"] = float(right[inside].mean())
    return found


def row_of(judge: Judge, asked: Asked, real: RealSet, snapshot: Snapshot) -> dict[str, Any]:
    """All figures of a judge."""
    product, validation, golden = asked.product(snapshot.classes), snapshot.of(Split.VALIDATION), snapshot.of(Split.GOLDEN)
    sides = [
        Side(scores, [e.label for e in examples], snapshot.classes, snapshot.good_class)
        for scores, examples in ((judge.validation, validation), (judge.golden, golden))
    ]
    recipe = calibrate(
        judge.validation, sides[0].labels, snapshot.classes, product, version=1, parts=[e.part for e in validation]
    )
    pairs = judged(judge.golden, snapshot.classes, golden, recipe)
    card = score(pairs, good_class=product.good_class, classes=product.classes, confidence=_LIMITS.confidence)
    return {
        "asked": asdict(asked),
        "judge": judge.name,
        **of_classes(sides[1]),
        **by_subset(real, golden, sides[1]),
        **of_defects(sides[1], sides[0]),
        "recipe: escape": card.escape.value,
        "recipe: escape at most": card.escape_upper,
        "recipe: overkill": card.overkill.value,
        "recipe: overkill at most": card.overkill_upper,
        "wall s": round(judge.wall, 1),
        "CPU s": round(judge.cpu, 1),
        "ms": judge.latency and round(judge.latency.p50_ms, 3),
        "best ms": judge.latency and round(judge.latency.best_ms, 3),
        "bytes": judge.length,
        "decisions": [verdict.decision.value for verdict, _ in pairs],
    }


def measure(asked: Asked, work: Path) -> Iterator[dict[str, Any]]:
    """A row per judge. "equal verdicts": what share of an int8 file's its float file decides alike, each by its recipe."""
    real = RealSet.load(asked.set)
    snapshot = real.snapshot(asked.per_class, asked.seed)
    before: list[str] = []
    for judge in judges(asked, real, snapshot, work):
        row = row_of(judge, asked, real, snapshot)
        decisions = row.pop("decisions")
        if judge.name.endswith("int8 file"):
            row["equal verdicts"] = float(np.mean([a == b for a, b in zip(decisions, before, strict=True)]))
        before = decisions
        yield row


def render(rows: Sequence[dict[str, Any]]) -> str:
    """The table, the published figure beside it."""
    shown = []
    for row in rows:
        asked = row["asked"]
        weights = "" if asked["pretrained"] == "file" else ", from scratch"
        network = asked["teacher" if row["judge"].startswith("teacher") else "student"].partition("?")[0]
        extra = {
            "set": asked["set"],
            "px": asked["side"],
            "per class": asked["per_class"] or "all",
            "tiles": asked.get("tiles", "1x1"),
            "judge": f"{row['judge']} ({network}{weights})",
            "published": PUBLISHED.get(asked["set"], ""),
        }
        shown.append(row | extra)
    return markdown(shown, SHOWN)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--set", default="elpv", choices=sorted(PUBLISHED))
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--student-epochs", type=int, help="default: as the teacher")
    parser.add_argument("--teacher", default=MOBILENET)
    parser.add_argument("--student", default=STUDENT)
    parser.add_argument("--pretrained", default="file", choices=["file", "none"])
    parser.add_argument("--per-class", type=int, action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiles", default="1x1")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--render", type=Path)
    given = vars(parser.parse_args())
    out, work, table, budgets = (given.pop(name) for name in ("out", "work", "render", "per_class"))
    if table is not None:
        print(render(read(table)))  # noqa: T201 - a program's answer
        return
    given["student_epochs"] = given["student_epochs"] or given["epochs"]
    with tempfile.TemporaryDirectory() as fresh:
        for budget in budgets or [None]:
            asked = Asked(**given, per_class=budget)
            if any(row["asked"] == asdict(asked) and row["judge"] == "student, int8 file" for row in read(out)):
                continue
            for row in measure(asked, work or Path(fresh)):
                print(json.dumps(row), flush=True)  # noqa: T201 - a program's answer
                append(out, row)


def read(path: Path | None) -> list[dict[str, Any]]:
    """The rows of a file, none when there is no such file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path is not None and path.exists() else []


def append(path: Path | None, row: dict[str, Any]) -> None:
    """One row more."""
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
