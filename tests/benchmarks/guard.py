"""What the novelty guard is worth: a class is left out of training and calibration, and its parts are shown all the same.

    python -m tests.benchmarks.guard --set xsdd --side 96 --epochs 6

Pretrained: the MobileNetV2 weights beside the sets. Every figure is of the set's test side, of which nothing was learnt:
the share of the left-out class's parts that are not passed, by scores alone and with the guard, and the good parts that
only the guard rejects.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inspection.contracts import Decision, Limits, Recipe, decide
from inspection.data.pictures import decode_bgr
from inspection.data.product import AugmentPlan, Product, TrainPlan
from inspection.data.snapshot_record import Example, Snapshot, Split
from inspection.models.deploy import GuardedGraph
from inspection.models.novelty import learn_novelty
from inspection.release.guard import GUARD_SHARE, unfamiliar_limit
from inspection.release.thresholds import calibrate
from inspection.training.fit import train
from inspection.training.record import Trained
from tests.benchmarks.sets import GOOD, MOBILENET, MOBILENET_WEIGHTS, RealSet

Rows = tuple[NDArray[np.float32], NDArray[np.float32]]


def product(real: RealSet, classes: list[str], side: int, epochs: int) -> Product:
    """As little of a product as a training needs."""
    plan = TrainPlan(
        backbone=MOBILENET, pretrained=str(MOBILENET_WEIGHTS), height=side, width=side, epochs=epochs, patience=epochs,
        augment=AugmentPlan(rotate_90=True),
    )  # fmt: skip
    limits = Limits(escape_rate=0.05, overkill_rate=0.05)
    return Product(name=real.name, good_class=GOOD[real.name], classes=classes, limits=limits, train=plan)


def without(snapshot: Snapshot, name: str) -> Snapshot:
    """The same, but for a class on the sides that teach and calibrate."""
    kept = [e for e in snapshot.examples if e.label != name or e.split is Split.GOLDEN]
    classes = [c for c in snapshot.classes if c != name]
    return Snapshot(product=snapshot.product, good_class=snapshot.good_class, classes=classes, examples=kept)


def guarded(real: RealSet, snapshot: Snapshot, trained: Trained) -> GuardedGraph:
    """The trained network with the novelty of its own features, learnt from its good training pictures."""
    graph = trained.deploy_graph()
    good = [e for e in snapshot.of(Split.TRAIN) if e.label == snapshot.good_class]
    frames = (torch.from_numpy(decode_bgr(real.picture(e.picture)))[None] for e in good)
    return GuardedGraph(graph, learn_novelty(graph.net, frames, [e.part for e in good])).eval()


def ask(graph: GuardedGraph, real: RealSet, examples: Sequence[Example]) -> Rows:
    """Scores and novelty."""
    rows = []
    with torch.inference_mode():
        for example in examples:
            scores, _, novelty = graph(torch.from_numpy(decode_bgr(real.picture(example.picture)))[None])
            rows.append((scores[0].numpy(), float(novelty[0])))
    return np.stack([scores for scores, _ in rows]), np.array([value for _, value in rows], np.float32)


def rejected(rows: Rows, classes: Sequence[str], recipe: Recipe) -> NDArray[np.bool_]:
    """Which pictures are not OK."""
    said = [decide(dict(zip(classes, map(float, s), strict=True)), recipe, float(n)) for s, n in zip(*rows, strict=True)]
    return np.array([outcome.decision is not Decision.OK for outcome in said])


def trial(name: str, left_out: str, side: int, epochs: int, share: float, per_class: int | None) -> dict[str, Any]:
    """One row: train without the class, calibrate, show it."""
    real = RealSet.load(name)
    snapshot = without(real.snapshot(per_class, 0), left_out)
    with tempfile.TemporaryDirectory() as folder:
        made = product(real, snapshot.classes, side, epochs)
        trained = train(snapshot, made, real.picture, Path(folder))
        graph = guarded(real, snapshot, trained)
    validation, golden = snapshot.of(Split.VALIDATION), snapshot.of(Split.GOLDEN)
    known = ask(graph, real, validation)
    alone = calibrate(known[0], [e.label for e in validation], snapshot.classes, made, version=1)
    fine = [i for i, e in enumerate(validation) if e.label == snapshot.good_class]
    limit = unfamiliar_limit(known[1][fine], [validation[i].part for i in fine], share)
    both = alone.model_copy(update={"unfamiliar": limit})
    shown = ask(graph, real, golden)
    by_scores, with_guard = (rejected(shown, snapshot.classes, recipe) for recipe in (alone, both))
    truth = np.array([e.label for e in golden])
    new, good = truth == left_out, truth == snapshot.good_class
    return {
        "set": name, "left out": left_out, "parts": int(new.sum()), "good": int(good.sum()), "limit": round(limit, 4),
        "left out, rejected by scores": round(float(by_scores[new].mean()), 4),
        "left out, rejected with guard": round(float(with_guard[new].mean()), 4),
        "left out, at the limit": round(float((shown[1][new] >= limit).mean()), 4),
        "good, rejected by scores": round(float(by_scores[good].mean()), 4),
        "good, rejected by the guard alone": round(float((with_guard & ~by_scores)[good].mean()), 4),
        "good, at the limit": round(float((shown[1][good] >= limit).mean()), 4),
    }  # fmt: skip


def measure(
    name: str,
    side: int,
    epochs: int,
    share: float = GUARD_SHARE,
    chosen: Sequence[str] = (),
    per_class: int | None = None,
) -> Iterator[dict[str, Any]]:
    """A row per defect class of a set."""
    classes = RealSet.load(name).snapshot(None, 0).classes[1:]
    for left_out in chosen or classes:
        yield trial(name, left_out, side, epochs, share, per_class)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--set", default="xsdd", choices=sorted(GOOD))
    parser.add_argument("--left-out", action="append", default=[])
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--share", type=float, default=GUARD_SHARE)
    parser.add_argument("--per-class", type=int)
    asked = parser.parse_args()
    for line in measure(asked.set, asked.side, asked.epochs, asked.share, asked.left_out, asked.per_class):
        print(json.dumps(line), flush=True)  # noqa: T201 - a program's answer
