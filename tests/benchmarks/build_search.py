"""What the search for the device's file finds: how fast each build is, and on a real set what each of them loses.

    python -m tests.benchmarks.build_search speed
    python -m tests.benchmarks.build_search set --set xsdd --side 64 --student mobilenetv4_conv_small --qat-epochs 3

``speed``: random weights, frames of the model's size and of a camera; times as fast as float on ONNX Runtime, medians of
turns, and of the least disturbed turn of each; one thread, batch 1. ``set``: a teacher from the weights beside the sets, a
student distilled from it, and every build on the set's own test side. A row a line, as JSON. Target (NUMBERS): 3 times as
fast, at most 0.5 points lost, at least 99.5 % equal verdicts.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score

from inspection.contracts import OPENVINO, Limits
from inspection.data.product import Product, StudentPlan, TrainPlan
from inspection.data.snapshot_record import Split
from inspection.models import catalogue
from inspection.models.deploy import DeployGraph
from inspection.release.export import Graph, export_onnx
from inspection.release.measure import scores_of
from inspection.release.search import FLOAT, PLAIN
from inspection.release.trials import Trial, score, time_in_turns
from inspection.stages.build_search import Frames, Search, Student, quantize
from inspection.stages.material import Material
from inspection.stages.shrink import device_graph, rule_of
from inspection.training.distil import distil
from inspection.training.fit import train
from inspection.training.predict import predict
from inspection.training.qat import train_rounded
from tests.benchmarks.sets import GOOD, MOBILENET, MOBILENET_WEIGHTS, RealSet

BACKBONES = ("mobilenetv4_conv_small", "mobilenetv2_100", "efficientnet_lite0", "mobilenetv3_small_100", "resnet18")
FRAMES = ((224, 224), (480, 640), (1080, 1920))
QUANTIZERS = (PLAIN, "minmax", "stem", "tensor")
CLASSES = 4


def noise(side: int, count: int = 8) -> list[NDArray[np.uint8]]:
    """Calibration frames ``[side, side, 3]``; what is on them does not matter for speed."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(count)]


def speed(backbones: Sequence[str], runs: int, side: int = 224) -> Iterator[dict[str, Any]]:
    """One row per network, frame size, runtime and file."""
    for backbone in backbones:
        with tempfile.TemporaryDirectory() as folder:
            files = {name: Path(folder, f"{name}.onnx") for name in (FLOAT, *QUANTIZERS)}
            net = catalogue.build(backbone, CLASSES, pretrained="none", height=side, width=side).eval()
            export_onnx(DeployGraph(net), files[FLOAT])
            for name in QUANTIZERS:
                quantize(files[FLOAT], noise(side), name, files[name])
            for height, width in FRAMES:
                for runtime in ("onnxruntime", OPENVINO):
                    tried = [Trial(files[FLOAT], "onnxruntime"), *(Trial(file, runtime) for file in files.values())]
                    times = [t.times for t in time_in_turns(tried, CLASSES, (height, width, 3), runs)]
                    for name, taken in zip(files, times[1:], strict=True):
                        yield {
                            "backbone": backbone,
                            "frame": f"{width}x{height}",
                            "runtime": runtime,
                            "build": name,
                            "ms": round(float(np.median(taken)), 2),
                            "times_as_fast": round(float(np.median(times[0] / taken)), 2),
                            "best_ms": round(float(taken.min()), 2),
                            "best_times_as_fast": round(float(times[0].min() / taken.min()), 2),
                        }


@dataclass(frozen=True)
class _RealMaterial(Material):
    """A real set in the place of the store."""

    real: RealSet | None = None

    def picture(self, sha256: str) -> bytes:
        """The file itself."""
        assert self.real is not None
        return self.real.picture(sha256)


def on_set(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row per build, on the validation side as the search sees it and on the set's own test side."""
    real = RealSet.load(asked.set)
    snapshot = real.snapshot(asked.per_class)
    quantizers, runtimes = ["minmax", "stem", "percentile", "entropy", "tensor"], ["onnxruntime", OPENVINO]
    side = {"height": asked.side, "width": asked.side}
    product = Product(
        name=real.name,
        good_class=GOOD[real.name],
        classes=snapshot.classes,
        limits=Limits(escape_rate=0.05, overkill_rate=0.05),
        train=TrainPlan(
            backbone=MOBILENET, pretrained=str(MOBILENET_WEIGHTS), epochs=asked.epochs, learning_rate=8e-4, **side
        ),
        student=StudentPlan.model_validate(
            {"backbone": asked.student, "pretrained": asked.pretrained, "epochs": asked.student_epochs,
             "learning_rate": asked.learning_rate, "quantizers": quantizers, "runtimes": runtimes,
             "qat_epochs": asked.qat_epochs, "min_agreement": asked.agreement,
             "max_balanced_accuracy_drop": asked.drop}
        ),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        material = _RealMaterial(product, snapshot, None, real)  # type: ignore[arg-type]  # the set is its store
        teacher = train(snapshot, product, real.picture, folder / "teacher")
        made = distil(teacher, snapshot, product, real.picture, folder / "student")
        wanted = predict(teacher, snapshot.of(Split.VALIDATION), real.picture)
        student = Student(folder / "student", made, device_graph(material, made))
        search = Search(material, [student], rule_of(material, snapshot.classes, 1), lambda _: None, teacher=wanted)

        def rounded(frames: Frames) -> Graph:
            trained = train_rounded(made, teacher, snapshot, product, real.picture, folder / "rounded", frames)
            return device_graph(material, trained)

        chosen = search.run(rounded if asked.qat_epochs else None)
        golden = snapshot.of(Split.GOLDEN)
        frames = material.frames(golden)
        truth = np.array([snapshot.classes.index(e.label) for e in golden])
        exact = scores_of(folder / "student-float.onnx", frames)
        for one in chosen.found:
            row = one.model_dump(exclude={"build", "file", "length"}) | {"build": str(one.build)}
            if one.error is None:
                said = score([Trial(folder / one.file, one.build.runtime)], len(snapshot.classes), frames)[0]
                scores = np.asarray(said.scores, np.float32)
                accuracy = [float(balanced_accuracy_score(truth, some.argmax(1))) for some in (exact, scores)]
                row |= {
                    "test_pictures": len(truth),
                    "test_same_class": float((exact.argmax(1) == scores.argmax(1)).mean()),
                    "test_balanced_accuracy": accuracy[1],
                    "test_points_lost": 100 * (accuracy[0] - accuracy[1]),
                }
            shown = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
            yield shown | {"shipped": one == chosen.measured}


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    timed = commands.add_parser("speed")
    timed.add_argument("--runs", type=int, default=60)
    timed.add_argument("--backbones", nargs="+", default=BACKBONES)
    judged = commands.add_parser("set")
    judged.add_argument("--set", default="xsdd", choices=sorted(GOOD))
    judged.add_argument("--per-class", type=int, default=None)
    judged.add_argument("--side", type=int, default=64)
    judged.add_argument("--epochs", type=int, default=6)
    judged.add_argument("--student", default="mobilenetv4_conv_small")
    judged.add_argument("--pretrained", default="none")
    judged.add_argument("--student-epochs", type=int, default=15)
    judged.add_argument("--learning-rate", type=float, default=2e-3)
    judged.add_argument("--qat-epochs", type=int, default=3)
    judged.add_argument("--agreement", type=float, default=0.995)
    judged.add_argument("--drop", type=float, default=0.005)
    asked = parser.parse_args()
    for row in speed(asked.backbones, asked.runs) if asked.command == "speed" else on_set(asked):
        print(json.dumps(row), flush=True)  # noqa: T201 - a benchmark prints


if __name__ == "__main__":
    main()
