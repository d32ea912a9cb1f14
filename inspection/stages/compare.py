"""`compare-backbones`: the same pictures, budgets, seeds and epochs for each network; a report that opens without a server.

Invariants: what was finished is not done again, and a training that was killed goes on where it was; no training begins
before every network could be built with its weights at its size; every network keeps its last epoch and is judged on the
validation side, which chose nothing; the golden side is not looked at; pictures are decoded once for all networks, in
nobody's training time; an int8 file counts only where it answers as its float file does.
"""

import fcntl
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from pydantic import BaseModel, ConfigDict, Field
from sklearn.metrics import balanced_accuracy_score

from inspection.contracts import canonical_json, sha256_hex
from inspection.data.budgets import telling, within
from inspection.data.product import Product
from inspection.data.snapshot_record import Snapshot, Split
from inspection.errors import UsageError
from inspection.models import catalogue
from inspection.models.families import Backbone, default_of, member, members_of
from inspection.models.preprocess import Preprocess
from inspection.release.comparison import Budget, Device, Trial, conclusion, standings
from inspection.release.comparison_page import page
from inspection.release.registry import Registry, Run
from inspection.settings import Settings, Training
from inspection.stages.compare_device import timed
from inspection.stages.evidence import commit
from inspection.stages.material import Frames, Material, Say
from inspection.training.cache import Workshop, working_pictures
from inspection.training.engine import Compute
from inspection.training.fit import train
from inspection.training.predict import predict
from inspection.training.record import Trained, load_trained

REPORT = "comparison.html"
_RECIPE = 2  # how networks are trained and judged: what another one found is not set beside it
_CALIBRATION_FRAMES = 64
_ANSWERED_FRAMES = 500


class Asked(BaseModel):
    """What is compared. ``backbones``: names or families (no: the default of each family); ``pretrained``: "hub", "none",
    or a file of weights, by real name; networks it does not name use ``otherwise``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbones: list[str] = []
    budgets: list[Budget] = Field(default=[50, 200, None], min_length=1)
    seeds: int = Field(default=3, ge=1)
    epochs: int = Field(default=12, ge=1)
    size: int = Field(default=224, ge=32)
    pretrained: dict[str, str] = {}
    otherwise: str = "hub"
    device: bool = True

    @property
    def names(self) -> list[str]:
        """Real names, each once, in the order asked for."""
        asked = self.backbones or [m.name for m in members_of() if default_of(m.family) == m]
        return list(dict.fromkeys(catalogue.resolved(name) for name in asked))

    def weights_of(self, backbone: str) -> str:
        """Where a network's first weights come from. UsageError when a file is given for one that is not compared."""
        given = {catalogue.resolved(name): file for name, file in self.pretrained.items()}
        if strangers := sorted(given.keys() - set(self.names)):
            raise UsageError(f"weights are given for {strangers[0]}, which is not compared: name it with --backbone, too")
        known = _known(backbone)
        nobody_publishes = known is not None and known.licence is None
        return given.get(backbone, "none" if nobody_publishes else self.otherwise)


def _known(backbone: str) -> Backbone | None:
    """What is known of a network, whatever options its name has."""
    return member(catalogue.parse_backbone(backbone)[0])


@dataclass(frozen=True)
class Cell:
    """One training of a comparison."""

    backbone: str
    budget: Budget
    seed: int

    def __str__(self) -> str:
        budget = "all pictures" if self.budget is None else f"{self.budget} of each class"
        return f"{self.backbone}, {budget}, seed {self.seed}"

    @property
    def key(self) -> str:
        """Its file's name."""
        plain = "".join(c if c.isalnum() or c in "._-" else "_" for c in self.backbone)
        return f"{plain}-{self.budget or 'all'}-{self.seed}"


def cells(asked: Asked) -> list[Cell]:
    """All trainings, the cheapest budgets first: what is wrong with the pictures is seen soon."""
    budgets = sorted(asked.budgets, key=lambda b: (b is None, b or 0))
    return [Cell(name, budget, seed) for budget in budgets for name in asked.names for seed in range(asked.seeds)]


@dataclass(frozen=True)
class Comparison:
    """A comparison and its folder, whose name follows from what is compared on what."""

    material: Material
    asked: Asked
    folder: Path
    compute: Compute

    @classmethod
    def of(cls, material: Material, asked: Asked, below: Path, training: Training) -> "Comparison":
        """Below a folder that outlives the program; on one machine. UsageError on a budget of nothing.

        A budget that no class has more pictures than is all of them, and is compared once.
        """
        asked = asked.model_copy(update={"budgets": telling(material.snapshot, asked.budgets)})
        shown = material.product.model_dump(mode="json", include={"train", "region", "tiling"})
        files = {Path(file) for file in [*asked.pretrained.values(), asked.otherwise]}
        weights = {str(file): sha256_hex(file.read_bytes()) for file in files if file.is_file()}
        least = material.product.student.min_agreement
        follows = [_RECIPE, material.snapshot.digest, asked.model_dump(mode="json"), shown, least, weights]
        follows += [torch.__version__, timm.__version__]
        return cls(material, asked, below / sha256_hex(canonical_json(follows))[:12], Compute.of(training).here)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Its folder, made where it is not there, and held: two programs would train in each other's files. UsageError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"this comparison is being made by another program (in {self.folder}): wait for it"
                ) from None
            yield

    def check(self) -> None:
        """UsageError or ServerError where a network that is still to be trained cannot be built: before hours of others."""
        for name in dict.fromkeys(cell.backbone for cell in cells(self.asked) if not self.has(cell)):
            plan, classes = self._product(Cell(name, None, 0)).train, self.material.snapshot.classes
            catalogue.build(name, len(classes), pretrained=plan.pretrained, height=plan.height, width=plan.width)

    def has(self, cell: Cell) -> bool:
        """Whether this training is over."""
        return self._file(cell).exists()

    @property
    def missing(self) -> list[str]:
        """What is not trained, or not timed where that was asked for, in words."""
        untimed = [name for name in self.asked.names if self.asked.device and not self._timing_of(name).exists()]
        return [str(cell) for cell in cells(self.asked) if not self.has(cell)] + [f"{name} on a device" for name in untimed]

    def _timing_of(self, backbone: str) -> Path:
        """What a device takes, once it is known."""
        return self.folder / f"{self._timed_cell(backbone).key}.device.json"

    def _file(self, cell: Cell) -> Path:
        """What its training came to, once it is over."""
        return self.folder / f"{cell.key}.json"

    def trial(self, cell: Cell, say: Say) -> Trial:
        """What a training came to; trained now, where it was not before."""
        file = self._file(cell)
        if file.exists():
            return Trial.model_validate_json(file.read_bytes())
        trained, snapshot = self._train(cell)
        trial = self._judged(cell, trained, snapshot)
        say(f"{cell}: {balanced(trial):.1%} balanced accuracy, {trained.seconds:.0f} s")
        if self.asked.device and cell == self._timed_cell(cell.backbone):
            shutil.rmtree(self._weights_of(cell), ignore_errors=True)
            trained.folder.rename(self._weights_of(cell))
        _keep(file, trial)
        return trial

    @property
    def _work(self) -> Path:
        """Decoded pictures of all trainings, and the network that is trained."""
        return self.folder / "work"

    def _weights_of(self, cell: Cell) -> Path:
        """Where a network waits to be timed; the next one is trained in the folder it was trained in."""
        return self._work / cell.key

    def clear(self) -> None:
        """Once all is known: decoded pictures and weights would fill a disk."""
        shutil.rmtree(self._work, ignore_errors=True)

    def _timed_cell(self, backbone: str) -> Cell:
        """The network that stands for its kind on a device: that of the last budget's first seed."""
        return next(c for c in reversed(cells(self.asked)) if c.backbone == backbone and c.seed == 0)

    def _train(self, cell: Cell) -> tuple[Trained, Snapshot]:
        snapshot = within(self.material.snapshot, cell.budget, cell.seed)
        product = self._product(cell)
        self._decode(snapshot, product)
        trained = train(
            snapshot,
            product,
            self.material.picture,
            self._work,
            compute=self.compute,
            bookmarks=self.folder / "bookmarks",
            keep_last=True,
        )
        return trained, snapshot

    def _decode(self, snapshot: Snapshot, product: Product) -> None:
        """Leave the pictures where the training looks for them: the first network would pay for all, in the report."""
        size = product.train.height, product.train.width
        # Any colours will do: pictures are kept as they are, and normalized in the network.
        anyones = Preprocess(*size, catalogue.IMAGENET_MEAN, catalogue.IMAGENET_STD)
        workshop = Workshop(anyones, snapshot.classes, snapshot.good_class, product)
        for side in filter(None, (snapshot.of(Split.TRAIN), snapshot.of(Split.VALIDATION))):
            working_pictures(side, self.material.picture, workshop, self._work)

    def _product(self, cell: Cell) -> Product:
        asked, product = self.asked, self.material.product
        plan = product.train.model_copy(
            update={
                "backbone": cell.backbone,
                "pretrained": asked.weights_of(cell.backbone),
                "epochs": asked.epochs,
                "patience": asked.epochs,
                "height": asked.size,
                "width": asked.size,
                "seed": product.train.seed + cell.seed,
                "warm_start": False,
            }
        )
        return product.model_copy(update={"train": plan})

    def _judged(self, cell: Cell, trained: Trained, snapshot: Snapshot) -> Trial:
        judging = snapshot.of(Split.VALIDATION)
        scores = predict(trained, judging, self.material.picture, framed=self.material.product)
        known = _known(cell.backbone)
        return Trial(
            backbone=cell.backbone,
            family=known.family if known is not None else cell.backbone,
            budget=cell.budget,
            seed=cell.seed,
            pictures=len(snapshot.of(Split.TRAIN)),
            seconds=trained.seconds,
            started_from=trained.started_from,
            parts=[e.part for e in judging],
            truth=[e.label for e in judging],
            named=[snapshot.classes[i] for i in scores.argmax(1)],
        )

    def device(self, backbone: str, say: Say) -> Device:
        """What the network costs on a device like this one; timed once."""
        file = self._timing_of(backbone)
        if file.exists():
            return Device.model_validate_json(file.read_bytes())
        weights = self._weights_of(self._timed_cell(backbone))
        sample = self._sample(Split.TRAIN, _CALIBRATION_FRAMES), self._sample(Split.VALIDATION, _ANSWERED_FRAMES)
        device = timed(load_trained(weights), *sample, self.material.product.student.min_agreement, weights)
        say(f"{backbone}: {device.float_ms:.1f} ms in float, {device.in_int8} in int8")
        _keep(file, device)
        return device

    def _sample(self, side: Split, count: int) -> Frames:
        """The same of a side for every network, decoded as they are asked for."""
        return self.material.frames(self.material.of(side)).sample(count, self.material.product.train.seed)

    def report(self, trials: list[Trial], devices: list[Device]) -> tuple[Path, list[str]]:
        """Write the page; returns it with the conclusion. Options of a name are left out where the name alone will do."""
        short = _short([t.backbone for t in trials])
        trials = [t.model_copy(update={"backbone": short[t.backbone]}) for t in trials]
        devices = [d.model_copy(update={"backbone": short[d.backbone]}) for d in devices]
        found = standings(trials)
        said = conclusion(found, trials, devices)
        path = self.folder / REPORT
        plan, asked = self.material.product.train, self.asked
        recipe = f"{asked.epochs} epochs, {asked.size} px, learning rate {plan.learning_rate:g}"
        snapshot = self.material.snapshot.digest
        path.write_text(page(self.material.product.name, snapshot, recipe, found, trials, devices, said))
        return path, said

    @property
    def frozen(self) -> "Frozen":
        """What is compared."""
        return Frozen(product=self.material.product, snapshot=self.material.snapshot.digest, asked=self.asked)

    def facts(self) -> Mapping[str, Any]:
        """For a run's parameters."""
        return {"compare": self.asked.model_dump(mode="json"), "snapshot": self.material.snapshot.digest}


def _keep(file: Path, record: BaseModel) -> None:
    """Under its name only when it is whole: what is there is not made again."""
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(record.model_dump_json())
    unfinished.replace(file)


def _short(names: list[str]) -> dict[str, str]:
    plain = {name: name.partition("?")[0] for name in names}
    ambiguous = {short for short in plain.values() if list(plain.values()).count(short) > 1}
    return {name: name if short in ambiguous else short for name, short in plain.items()}


def balanced(trial: Trial) -> float:
    """One trial's own figure."""
    return float(balanced_accuracy_score(trial.truth, trial.named))


@dataclass(frozen=True)
class Outcome:
    """The report's file and the conclusion; the MLflow run, where a server keeps it."""

    report: Path
    conclusion: list[str]
    run: str | None = None


def compare(comparison: Comparison, say: Say, run: "LoggedRun | None" = None) -> Outcome:
    """Everything, in turn. It may be killed and begun again: what was finished is there.

    UsageError where another program is at work on the same comparison.
    """
    with comparison.alone():
        comparison.check()
        todo = cells(comparison.asked)
        say(f"{len(todo)} trainings on snapshot {comparison.material.snapshot.digest}, in {comparison.folder}")
        trials = []
        for cell in todo:
            trials.append(comparison.trial(cell, say))
            if run is not None:
                run.trial(cell, trials[-1])
        devices = [comparison.device(name, say) for name in comparison.asked.names] if comparison.asked.device else []
        report, said = comparison.report(trials, devices)
        comparison.clear()
    if run is not None:
        run.finish(report, said, devices)
    return Outcome(report, said, run.id if run is not None else None)


class Frozen(BaseModel):
    """What a run compared, to do it again: the product as it was, the snapshot's id, what was asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    product: Product
    snapshot: str
    asked: Asked


class LoggedRun:
    """A comparison in MLflow: a run, and one nested in it for each training, as soon as it is known."""

    def __init__(self, registry: Registry, comparison: Comparison, run: Run) -> None:
        self._registry, self._product, self._run = registry, comparison.material.product.name, run
        run.params(comparison.facts())
        self.id = run.id
        record = comparison.folder / "runs" / f"{run.id}.json"
        record.parent.mkdir(parents=True, exist_ok=True)
        _keep(record, comparison.frozen)

    def trial(self, cell: Cell, trial: Trial) -> None:
        """One training."""
        with self._registry.run(self._product, str(cell), kind="trial", parent=self._run) as nested:
            facts = {"backbone": cell.backbone, "budget": cell.budget or "all", "seed": cell.seed}
            nested.params(facts | {"family": trial.family, "started_from": trial.started_from})
            nested.metrics(
                {
                    "validation/balanced_accuracy": balanced(trial),
                    "train/seconds": trial.seconds,
                    "train/pictures": float(trial.pictures),
                }
            )

    def finish(self, report: Path, said: list[str], devices: list[Device]) -> None:
        """The report, the conclusion, what a device would take."""
        self._run.text(REPORT, report.read_text())
        self._run.text("conclusion.md", "\n\n".join(said))
        self._run.json("devices.json", [d.model_dump(mode="json") for d in devices])


def compare_in_mlflow(settings: Settings, comparison: Comparison, say: Say) -> Outcome:
    """The same, kept by the MLflow server; each attempt is a run of its own. ServerError where none answers."""
    registry = Registry(settings.mlflow_url)
    name = f"compare-backbones {comparison.folder.name}"
    with registry.run(comparison.material.product.name, name, kind="comparison", commit=commit()) as run:
        return compare(comparison, say, LoggedRun(registry, comparison, run))
