"""Training of a teacher: a snapshot and a product's plan in, a `Trained` folder out.

Invariant: the golden side is never read here. On a processor the same seed gives the same weights; on a GPU as far as
PyTorch has deterministic ways to compute them there, which are asked for.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng

from inspection.contracts import canonical_json, sha256_hex
from inspection.data.product import Product, StudentPlan, TrainPlan
from inspection.data.snapshot_record import Snapshot
from inspection.errors import UsageError
from inspection.models import catalogue
from inspection.models.network import InspectionNet
from inspection.models.preprocess import Preprocess
from inspection.training.cache import Pictures
from inspection.training.engine import (
    BestEpoch,
    Compute,
    OnEpoch,
    choose_precision,
    choose_workers,
    devices_here,
    fit,
)
from inspection.training.loading import STEPS_FROM_LABELS, STEPS_FROM_WEIGHTS, SnapshotData
from inspection.training.module import Classifier, Tuning
from inspection.training.record import Trained, load_trained, save_trained

log = logging.getLogger(__name__)


def train(
    snapshot: Snapshot,
    product: Product,
    pictures: Pictures,
    workdir: Path,
    *,
    warm_start: Path | None = None,
    on_epoch: OnEpoch | None = None,
    compute: Compute | None = None,
    bookmarks: Path | None = None,
    keep_last: bool = False,
) -> Trained:
    """Train ``product.train.backbone`` on the training side of ``snapshot``; keep the best epoch on its validation side, or
    the last one, so that the validation side may judge.

    ``pictures``: sha256 -> file bytes. ``workdir`` receives the decoded pictures and the folder ``trained``.
    ``warm_start``: folder of a `Trained`; its weights are taken over where they fit, a known class keeps its own by name.
    ``on_epoch(epoch, metrics)`` is called after each epoch (from 0). ``bookmarks``: a folder where a training that was
    killed left where it was (default: ``workdir``); the same training goes on there, exactly on one device. Raises
    UsageError (also where it diverges in its first epoch), ServerError (hub weights).
    """
    started = time.monotonic()
    compute, plan = compute or Compute(), product.train
    with isolate_rng():
        torch.manual_seed(plan.seed)
        start = starting_network(snapshot, plan, warm_start)
        net, origin, epochs = start.net, start.origin, start.epochs(plan)
        tuning = start.tuning(plan, plan.learning_rate, epochs)
        data = load_data(snapshot, product, net, pictures, workdir, compute, start.steps(STEPS_FROM_LABELS))
        module = Classifier(net, tuning)
        precision = choose_precision(plan.precision, net, compute.accelerator)
        kept = fit(
            module,
            data,
            epochs=epochs,
            patience=plan.patience,
            precision=precision,
            compute=compute,
            bookmark=bookmark_of(bookmarks or workdir, snapshot, product, start, precision, compute, str(keep_last)),
            on_epoch=on_epoch,
            keep_last=keep_last,
            compile_network=plan.compile_network,
        )
    return keep(workdir / "trained", snapshot, net, kept, origin, precision, time.monotonic() - started)


def load_data(
    snapshot: Snapshot,
    product: Product,
    net: InspectionNet,
    pictures: Pictures,
    workdir: Path,
    compute: Compute,
    steps: int,
) -> SnapshotData:
    """The snapshot's pictures, decoded at the size of the plan; ``steps`` as for `SnapshotData`."""
    preprocess = Preprocess(product.train.height, product.train.width, net.spec.mean, net.spec.std)
    data = SnapshotData(snapshot, product.train, preprocess, choose_workers(compute), steps)
    data.decode(pictures, workdir, product)
    return data


_KEPT_SECONDS = 24 * 3600.0
_BOOKMARK = 4  # what is written in one; others are not gone on from
PROBE_EPOCHS = 2  # for weights that came from other pictures (README.md has the figures), and no more than
_PROBE_SHARE = 3  # one epoch in so many: the rest is the body's to learn in


@dataclass(frozen=True)
class Start:
    """A network before training; ``origin`` says in words where its weights came from: the champion (``warm``), or other
    pictures (``borrowed``)."""

    net: InspectionNet
    origin: str
    warm: bool = False
    borrowed: bool = False

    def tuning(self, plan: TrainPlan, learning_rate: float, epochs: int) -> Tuning:
        """How it learns in ``epochs`` (of `epochs`): what the plan leaves open depends on where the weights came from.

        Raises UsageError where the plan would have the head alone learn in all of them.
        """
        probe = min(PROBE_EPOCHS, epochs // _PROBE_SHARE) if self.borrowed else 0
        if plan.probe_epochs is not None:
            probe = plan.probe_epochs
        if probe >= epochs:
            raise UsageError(
                f"train.probe_epochs {probe} leaves nothing of {epochs} epochs: only the head would learn; lower it, or "
                "raise the epochs (train.epochs or warm_epochs; of a student, student.epochs or warm_epochs)"
            )
        return Tuning(
            learning_rate=learning_rate,
            weight_decay=plan.weight_decay,
            layer_decay=plan.layer_decay,
            probe_epochs=probe,
            average_share=plan.average_share,
        )

    def steps(self, from_nothing: int) -> int:
        """How many an epoch has at least: learnt weights want full batches more than steps."""
        return STEPS_FROM_WEIGHTS if self.borrowed else from_nothing

    def epochs(self, plan: TrainPlan | StudentPlan) -> int:
        """How long to train: less from a champion's weights, where the plan says so."""
        return plan.warm_epochs if self.warm and plan.warm_epochs else plan.epochs


def starting_network(snapshot: Snapshot, plan: TrainPlan, warm_start: Path | None) -> Start:
    """The champion's weights where they fit the plan, else the plan's pretrained ones."""
    count = len(snapshot.classes)
    common: Any = {"height": plan.height, "width": plan.width, "good_index": snapshot.classes.index(snapshot.good_class)}
    champion = load_trained(warm_start) if warm_start is not None else None
    if champion is not None and champion.backbone == catalogue.resolved(plan.backbone):
        net = catalogue.build(plan.backbone, count, pretrained="none", **common)
        return Start(net, take_over(net, snapshot.classes, champion), warm=True)
    net = catalogue.build(plan.backbone, count, pretrained=plan.pretrained, **common)
    refused = f"; no warm start: the champion is a {champion.backbone}" if champion is not None else ""
    return Start(net, f"pretrained: {plan.pretrained}{refused}", borrowed=plan.pretrained != "none")


def take_over(net: InspectionNet, classes: list[str], champion: Trained) -> str:
    """Copy the champion's weights where shapes match; a class both know keeps its row. Returns what was done, in words."""
    theirs = champion.network().state_dict()
    ours = net.state_dict()
    known = [c for c in classes if c in champion.classes]
    for name in ("head.classifier.weight", "head.classifier.bias"):
        rows = ours[name].clone()
        for c in known:
            rows[classes.index(c)] = theirs[name][champion.classes.index(c)]
        theirs[name] = rows
    fitting = {k: v for k, v in theirs.items() if k in ours and ours[k].shape == v.shape}
    net.load_state_dict(ours | fitting)
    return f"warm start from {len(fitting)} of {len(ours)} tensors, {len(known)} of {len(classes)} classes known"


def bookmark_of(
    folder: Path, snapshot: Snapshot, product: Product, start: Start, precision: str, compute: Compute, *more: str
) -> Path:
    """Where the bookmark of this very training lies: its name is a digest of all that the training follows from.

    Others, which nobody came back for in a day, are deleted: they are of labels that have changed since.
    """
    weights = start.net.state_dict()
    first = sha256_hex(b"".join(value.numpy(force=True).tobytes() for value in weights.values()))
    plans = product.model_dump(mode="json", include={"train", "student", "region", "tiling"})
    devices = [compute.accelerator, devices_here(compute), compute.nodes, compute.strategy]
    follows = [_BOOKMARK, snapshot.digest, plans, first, precision, devices, torch.__version__, *more]
    own = folder / f"bookmark-{sha256_hex(canonical_json(follows))[:16]}.ckpt"
    for other in folder.glob("bookmark-*"):
        if other != own and time.time() - other.stat().st_mtime > _KEPT_SECONDS:
            log.info("a training that nobody came back to is given up", extra={"bookmark": other.name})
            other.unlink()
    return own


def keep(
    folder: Path,
    snapshot: Snapshot,
    net: InspectionNet,
    kept: BestEpoch,
    origin: str,
    precision: str,
    seconds: float,
) -> Trained:
    """Write the best epoch's weights and the record; ``seconds``: of this process."""
    spec = net.spec
    record = Trained(
        folder=folder,
        backbone=spec.backbone,
        classes=snapshot.classes,
        good_class=snapshot.good_class,
        height=spec.height,
        width=spec.width,
        mean=spec.mean,
        std=spec.std,
        snapshot=snapshot.digest,
        started_from=origin,
        precision=precision,
        history=kept.history,
        best_epoch=kept.best_epoch,
        seconds=round(kept.seconds_before + seconds, 3),
    )
    return save_trained(record, kept.best_state)
