"""Which way of fine-tuning holds up with few pictures, and when the line changes: the same pictures, steps and seeds.

    python -m tests.benchmarks.recipes --set elpv --per-class 50 --seeds 3 --side 96 --epochs 12
    python -m tests.benchmarks.recipes --set xsdd --per-class 60 --side 64 --recipe "as it is"

Pretrained: the MobileNetV2 weights beside the sets. Every figure is of the set's own test side; "dark", "defocus" and so on
are accuracies on the test side as a line that has changed would show it (`DISTURBED`), which no training saw.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from inspection.contracts import Limits
from inspection.data.pictures import Image, decode_bgr
from inspection.data.product import AugmentPlan, Product, TrainPlan
from inspection.data.snapshot_record import Split
from inspection.training.cache import Pictures
from inspection.training.fit import train
from inspection.training.predict import predict
from tests.benchmarks.sets import GOOD, MOBILENET, MOBILENET_WEIGHTS, RealSet

RECIPES: dict[str, dict[str, Any]] = {
    "fine-tune": {"probe_epochs": 0, "layer_decay": 1.0},
    "probe, then fine-tune": {"probe_epochs": 2, "layer_decay": 1.0},
    "layer-wise rates": {"probe_epochs": 0, "layer_decay": 0.85},
    "probe and layer-wise rates": {"probe_epochs": 2, "layer_decay": 0.85},
    "both, weights averaged": {"probe_epochs": 2, "layer_decay": 0.85, "average_share": 0.1},
    "as it is": {},
    "flips and turns alone": {
        "augment": AugmentPlan(rotate_90=True, shift_scale=0, brightness_contrast=0, blur_noise=False)
    },
    "half the shift and brightness": {"augment": AugmentPlan(rotate_90=True, shift_scale=0.02, brightness_contrast=0.1)},
    "that, without blur and noise": {
        "augment": AugmentPlan(rotate_90=True, shift_scale=0.02, brightness_contrast=0.1, blur_noise=False)
    },
}


def _defocus(image: Image, side: int) -> Image:
    """A blur of 0.8 pixels of the network's."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 0.8 * max(1.0, min(image.shape[:2]) / side)), np.uint8)


def _noise(image: Image, _: int) -> Image:
    grain = np.random.default_rng(0).normal(0, 6, image.shape)
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def _shift(image: Image, _: int) -> Image:
    """A part that lies 4 % of the side off, the camera 3 % nearer."""
    height, width = image.shape[:2]
    moved = np.array([[1.03, 0, 0.04 * width], [0, 1.03, -0.04 * height]], np.float32)
    return np.asarray(cv2.warpAffine(image, moved, (width, height), borderMode=cv2.BORDER_REFLECT_101), np.uint8)


DISTURBED: dict[str, Callable[[Image, int], Image]] = {
    "dark": lambda image, _: np.asarray(cv2.convertScaleAbs(image, alpha=0.8), np.uint8),
    "bright": lambda image, _: np.asarray(cv2.convertScaleAbs(image, alpha=1.2), np.uint8),
    "shift": _shift,
    "defocus": _defocus,
    "noise": _noise,
}
"""What happens to a line: picture (uint8 BGR) and the network's side in pixels to the picture that would come."""


def product(real: RealSet, classes: list[str], plan: TrainPlan) -> Product:
    """As little of a product as a training needs."""
    limits = Limits(escape_rate=0.05, overkill_rate=0.05)
    return Product(name=real.name, good_class=GOOD[real.name], classes=classes, limits=limits, train=plan)


def _disturbed(real: RealSet, how: str, side: int) -> Pictures:
    """The set's pictures as a line that has changed would show them, without loss."""

    def picture(digest: str) -> bytes:
        image = decode_bgr(real.picture(digest))
        return cv2.imencode(".png", DISTURBED[how](image, side))[1].tobytes()

    return picture


def judge(real: RealSet, plan: TrainPlan, per_class: int | None, seed: int) -> dict[str, float]:
    """Train once; what the test side says."""
    snapshot = real.snapshot(per_class, seed)
    with tempfile.TemporaryDirectory() as folder:
        trained = train(snapshot, product(real, snapshot.classes, plan), real.picture, Path(folder))
        golden = snapshot.of(Split.GOLDEN)
        scores = predict(trained, golden, real.picture)
        changed = {how: predict(trained, golden, _disturbed(real, how, plan.height)) for how in DISTURBED}
    truth = np.array([snapshot.classes.index(e.label) for e in golden])
    return {
        "accuracy": float((scores.argmax(1) == truth).mean()),
        "balanced accuracy": float(balanced_accuracy_score(truth, scores.argmax(1))),
        "AUROC": float(roc_auc_score(truth != 0, 1 - scores[:, 0])),
        **{how: float((found.argmax(1) == truth).mean()) for how, found in changed.items()},
        "seconds": trained.seconds,
    }


def measure(
    name: str, per_class: int | None, seeds: int, side: int, epochs: int, chosen: list[str], **common: Any
) -> Iterator[dict[str, Any]]:
    """A row per recipe: mean and standard deviation over the seeds."""
    real = RealSet.load(name)
    for recipe in chosen:
        found = []
        for seed in range(seeds):
            plan = TrainPlan(
                backbone=MOBILENET,
                pretrained=str(MOBILENET_WEIGHTS),
                height=side,
                width=side,
                epochs=epochs,
                patience=epochs,
                seed=seed,
                **({"augment": AugmentPlan(rotate_90=True)} | common | RECIPES[recipe]),
            )
            found.append(judge(real, plan, per_class, seed))
        row: dict[str, Any] = {"set": name, "per class": per_class or "all", "recipe": recipe}
        for key in found[0]:
            values = [one[key] for one in found]
            row[key] = round(statistics.mean(values), 4)
            row[f"{key}, sd"] = round(statistics.stdev(values), 4) if seeds > 1 else 0.0
        yield row


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--set", default="elpv", choices=sorted(GOOD))
    parser.add_argument("--per-class", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--recipe", action="append", choices=sorted(RECIPES))
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    asked = parser.parse_args()
    rows = measure(
        asked.set, asked.per_class, asked.seeds, asked.side, asked.epochs, asked.recipe or list(RECIPES),
        learning_rate=asked.learning_rate,
    )  # fmt: skip
    for line in rows:
        print(json.dumps(line), flush=True)  # noqa: T201 - a program's answer
