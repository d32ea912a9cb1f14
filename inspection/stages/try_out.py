"""`inspection train`: from a snapshot in the store, or a first try on a folder of pictures without any server."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inspection.contracts import Limits, Tiling
from inspection.data.importers import Item, read_directory
from inspection.data.product import Product
from inspection.data.products import save_product
from inspection.data.snapshot_record import UNUSUAL
from inspection.data.snapshots import build_snapshot, load_snapshot
from inspection.errors import UsageError
from inspection.models import catalogue
from inspection.release.gate import Answer, GateAnswer
from inspection.release.scorecard import Scorecard
from inspection.settings import Settings, load_settings, load_training
from inspection.stages.bring_in import import_directory
from inspection.stages.candidate import Candidate, folder_of
from inspection.stages.heritage import teacher_of_champion
from inspection.stages.material import Material, Say
from inspection.stages.teach import judge_teacher, teach, train_teacher
from inspection.store.session import Store
from inspection.training.engine import Compute, node_rank

TRY = "try"
TRY_LIMITS = Limits(escape_rate=0.05, overkill_rate=0.05)


@dataclass(frozen=True)
class Outcome:
    """What a training came to. ``run`` is None where no server kept it."""

    run: str | None
    card: Scorecard
    gate: GateAnswer

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        return {"run": self.run, "gate": self.gate.body(), "scorecard": self.card.model_dump(mode="json")}

    def in_words(self) -> str:
        """For people."""
        kept = f"MLflow run {self.run}; next: {self._next()}\n" if self.run else ""
        return f"{self.card.to_markdown()}\n{self.gate.why}\n{kept}"

    def _next(self) -> str:
        """What to do after gate 1. A bundle of a teacher that did not pass is hours of work that gate 2 would turn away."""
        if self.gate.answer is Answer.PASS:
            return f"inspection build-bundle {self.run}"
        if self.gate.answer is Answer.INSUFFICIENT:
            return "label more parts (gate 1 says above what it lacks), and train again"
        return "look in the tables above for what it gets wrong, label more of that or correct its labels, and train again"


def _tuned(product: Product, options: Mapping[str, Any]) -> Product:
    """The product with what the command line says about training."""
    size = options.get("size")
    given = {name: options.get(name) for name in ("backbone", "pretrained", "epochs")} | {"height": size, "width": size}
    plan = product.train.model_copy(update={name: value for name, value in given.items() if value is not None})
    return product.model_copy(update={"train": plan, "tiling": options.get("tiling") or product.tiling})


def train_snapshot(settings: Settings, store: Store, options: Mapping[str, Any], say: Say) -> Outcome | None:
    """Train on a snapshot (or on a new one of all labels of a product) and log it in MLflow.

    On all machines but the first of several: help with that, and keep nothing (None).
    """
    if settings.training.nodes > 1:
        if options.get("snapshot") is None:
            raise UsageError("several machines train on one snapshot: make it with `inspection snapshot`, and name it")
        if node_rank() > 0:
            help_train(settings, material_of(store, options), say)
            return None
    candidate = teach(settings, material_of(store, options), say, Compute.of(settings.training))
    if candidate.golden_1 is None or candidate.gate_1 is None:
        raise ValueError("teach() judges")
    return Outcome(candidate.run_id, candidate.golden_1, candidate.gate_1)


def help_train(settings: Settings, material: Material, say: Say) -> None:
    """Train along with the first machine, which judges and keeps what comes of it. The state folder is shared."""
    name = f"node-{node_rank()}"
    candidate = Candidate(
        folder=folder_of(settings, name),
        product=material.product.name,
        snapshot=material.snapshot.digest,
        run_id=name,
        started_at=datetime.now(UTC),
    )
    try:
        champion = teacher_of_champion(material, candidate.folder)
        train_teacher(material, candidate, champion, _keep_nothing, say, Compute.of(settings.training))
    finally:
        shutil.rmtree(candidate.folder, ignore_errors=True)
    say("this machine has helped; the first one judges and keeps the model")


def material_of(store: Store, options: Mapping[str, Any]) -> Material:
    """What to train on: a snapshot, whose product is its own, or a new one of all labels of ``product_name``.

    Raises UsageError when neither is named, or one is not there.
    """
    snapshot, product = options.get("snapshot"), options.get("product_name")
    if snapshot is None and product is None:
        raise UsageError("name a product with --product (all its labels are used), or a snapshot with --snapshot")
    if options.get("tiling") is not None:
        raise UsageError("--tiles belongs to --images: a product has a tiling of its own (`inspection product set`)")
    name = product or load_snapshot(store, str(snapshot)).product
    material = Material.load(store, name, snapshot or build_snapshot(store, name).digest)
    return replace(material, product=_tuned(material.product, options))


def product_of_images(images: Path, good: str, *, good_alone: bool = False) -> tuple[Product, list[Item]]:
    """A product with a new one's plan for a folder of pictures. UsageError when none is of the good class, or none of
    another, unless ``good_alone`` will do."""
    items = read_directory(images, good)
    defects = sorted({item.label for item in items} - {good})
    if not defects and not good_alone:
        raise UsageError(f"all {len(items)} pictures in {images} are {good!r}: some defective ones are needed")
    return Product(name=TRY, good_class=good, classes=[good, *(defects or [UNUSUAL])], limits=TRY_LIMITS), items


@contextmanager
def material_of_images(images: Path, good: str, folder: Path, say: Say, tiling: Tiling | None = None) -> Iterator[Material]:
    """The pictures of a folder in a store below ``folder``, while it is open. UsageError."""
    product = _tuned(product_of_images(images, good)[0], {"tiling": tiling})
    settings = load_settings(folder, {})
    with Store.open(settings.database_url, settings.blob_url) as store:
        with store.begin() as session:
            save_product(session, product)
        say(import_directory(settings, store, images, TRY, product.good_class).in_words())
        yield Material.load(store, TRY, build_snapshot(store, TRY).digest)


def train_from_images(images: Path, good: str, options: Mapping[str, Any], say: Say) -> Outcome:
    """A first try: everything in a temporary folder, nothing is kept but the answer. UsageError, ServerError (weights)."""
    product = _tuned(product_of_images(images, good)[0], options)
    plan = product.train  # what cannot be built is told before thousands of pictures are taken in
    catalogue.build(plan.backbone, len(product.classes), pretrained=plan.pretrained, height=plan.height, width=plan.width)
    with tempfile.TemporaryDirectory(prefix="escapement-try-") as folder:
        settings = load_settings(Path(folder), {})
        with Store.open(settings.database_url, settings.blob_url) as store:
            with store.begin() as session:
                save_product(session, product)
            say(import_directory(settings, store, images, TRY, product.good_class).in_words())
            return _judge(store, Path(folder), say)


def _keep_nothing(epoch: int, metrics: dict[str, float]) -> None:
    del epoch, metrics  # they are said, and kept nowhere


def _judge(store: Store, folder: Path, say: Say) -> Outcome:
    material = Material.load(store, TRY, build_snapshot(store, TRY).digest)
    candidate = Candidate(
        folder=folder / TRY, product=TRY, snapshot=material.snapshot.digest, run_id=TRY, started_at=datetime.now(UTC)
    )
    teacher = train_teacher(material, candidate, None, _keep_nothing, say, Compute.of(load_training(os.environ)).here)
    judgement = judge_teacher(material, teacher, None, who="inspection train")
    return Outcome(None, judgement.card, judgement.answer)
