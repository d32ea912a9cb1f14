"""The subjects of `tests.benchmarks.training_speed`: trainings that go on for ever, and take steps only when told to."""

import io
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning
import psutil
import timm
import torch
from lightning.fabric.utilities import move_data_to_device
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from inspection.data.product import TrainPlan
from inspection.data.snapshot_record import Example, Split
from inspection.models import catalogue
from inspection.training.draws import TrainingDraws
from inspection.training.engine import Compute, choose_precision, fit
from inspection.training.fit import load_data
from inspection.training.loading import SnapshotData
from inspection.training.module import Classifier, Tuning
from tests.benchmarks.recipes import product
from tests.benchmarks.sets import RealSet

OURS, SYNTHETIC, PEER = "ours", "ours, synthetic input", "plain"
_FOR_EVER = 10**6


@dataclass(frozen=True)
class Asked:
    """What a subject trains. ``workers``: None is the product's choice."""

    set: str
    backbone: str
    side: int
    batch: int
    steps: int
    accelerator: str
    workers: int | None
    compile: bool
    kind: str = OURS
    folder: str = ""

    def of(self, kind: str, **changed: Any) -> "Asked":
        """The same for another kind of subject."""
        return replace(self, kind=kind, **changed)

    def within(self, folder: str) -> "Asked":
        """Where decoded pictures are shared."""
        return replace(self, folder=folder)

    def written(self) -> str:
        """For `read`."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, written: str) -> "Asked":
        """What `written` wrote."""
        return cls(**json.loads(written))


class OverError(Exception):
    """Nobody asks for another turn."""


@dataclass
class Turns:
    """Measures ``steps`` after a few that bring its loading processes to their pace; between turns it waits."""

    batch: int
    steps: int
    lead: int
    loader: "Endless | None" = None
    _began: tuple[float, float, float] = (0.0, 0.0, 0.0)
    _answer: Any = field(default_factory=lambda: sys.stdout)

    def before(self, step: int) -> None:
        """Called when a step has its batch and is about to begin."""
        place = step % (self.lead + self.steps)
        if place == 0:
            self._tell(step)
            if not sys.stdin.readline():
                raise OverError
        if place == self.lead:
            self._began = self._now()

    def _tell(self, step: int) -> None:
        if step == 0:
            print("ready", file=self._answer, flush=True)
            return
        wall, processor, waited = (now - then for now, then in zip(self._now(), self._began, strict=True))
        pictures = self.batch * self.steps
        said = {
            "pictures/s": pictures / wall,
            "pictures per processor second": pictures / processor,
            "waiting": waited / wall,
        }
        print(json.dumps(said), file=self._answer, flush=True)

    def _now(self) -> tuple[float, float, float]:
        """Wall and processor seconds (with loading processes), and seconds waited for batches."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        own = psutil.Process()
        times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
        assert self.loader is not None
        return time.perf_counter(), sum(t.user + t.system for t in times), self.loader.waited


class Endless:
    """Epoch after epoch of a loader as if they were one; ``waited`` seconds for its batches."""

    def __init__(self, loader: Any) -> None:
        self._loader, self.waited = loader, 0.0

    def __len__(self) -> int:
        return _FOR_EVER

    def __iter__(self) -> Iterator[Any]:
        for epoch in itertools.count():
            if isinstance(draws := getattr(self._loader, "batch_sampler", None), TrainingDraws):
                draws.set_epoch(epoch)
            batches = iter(self._loader)
            while True:
                began = time.perf_counter()
                batch = next(batches, None)
                self.waited += time.perf_counter() - began
                if batch is None:
                    break
                yield batch


class EndlessData(SnapshotData):
    """Our pictures; or one batch of them, which stays on the device."""

    synthetic: torch.device | None = None
    turns: Turns

    def train_dataloader(self, draws: TrainingDraws) -> Any:
        """See the class."""
        loader: Any = super().train_dataloader(draws)
        if self.synthetic is not None:
            loader = [move_data_to_device(next(iter(loader)), self.synthetic)] * 1000
        self.turns.loader = Endless(loader)
        return self.turns.loader


class Ours(Classifier):
    """The product's module, in turns."""

    turns: Turns

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Whose turn it is."""
        self.turns.before(batch_idx)


def run_ours(asked: Asked, turns: Turns) -> None:
    """The product's own loop, from the snapshot on."""
    real = RealSet.load(asked.set)
    whole = real.snapshot()
    train = whole.of(Split.TRAIN) + [_training(e) for e in whole.of(Split.VALIDATION)[2:]]
    snapshot = whole.model_copy(update={"examples": train + whole.of(Split.VALIDATION)[:2]})
    plan = TrainPlan(
        backbone=asked.backbone, pretrained="none", height=asked.side, width=asked.side, batch_size=asked.batch
    )
    net = catalogue.build(plan.backbone, len(snapshot.classes), pretrained="none", height=asked.side, width=asked.side)
    compute = Compute(accelerator=asked.accelerator, devices=1)
    if asked.workers is not None:
        compute = replace(compute, num_workers=asked.workers)
    data = load_data(snapshot, product(real, snapshot.classes, plan), net, real.picture, Path(asked.folder), compute, 1)
    data.__class__, data.turns = EndlessData, turns  # type: ignore[attr-defined]  # the subclass has them
    if asked.kind == SYNTHETIC:
        on_gpu = torch.cuda.is_available() and asked.accelerator in {"auto", "gpu", "cuda"}
        data.synthetic = torch.device("cuda", 0) if on_gpu else torch.device("cpu")  # type: ignore[attr-defined]
    module = Ours(net, Tuning(plan.learning_rate, plan.weight_decay))
    module.turns = turns
    precision = choose_precision("auto", net, asked.accelerator)
    mark = Path(asked.folder) / f"{asked.kind}.ckpt"
    fit(
        module, data, epochs=1, patience=1, precision=precision, compute=compute, bookmark=mark,
        compile_network=asked.compile,
    )  # fmt: skip


def _training(example: Example) -> Example:
    return example.model_copy(update={"split": Split.TRAIN})


class Files(Dataset[tuple[Any, int]]):
    """Files that are decoded each time, as torchvision's ``ImageFolder`` does."""

    def __init__(self, files: list[tuple[Path, int]], transform: Any) -> None:
        self._files, self._transform = files, transform

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, label = self._files[index]
        with Image.open(io.BytesIO(path.read_bytes())) as picture:
            return self._transform(picture.convert("RGB")), label


class Plain(lightning.LightningModule):
    """A network, cross-entropy, AdamW."""

    def __init__(self, backbone: str, classes: int, turns: Turns) -> None:
        super().__init__()
        self.net, self.turns = timm.create_model(backbone, num_classes=classes), turns

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Whose turn it is."""
        self.turns.before(batch_idx)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """One step's loss."""
        images, labels = batch
        return nn.functional.cross_entropy(self.net(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The usual one."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def run_plain(asked: Asked, turns: Turns) -> None:
    """What a good engineer writes in an hour."""
    real = RealSet.load(asked.set)
    items = [item for item in real.items.values() if item.split is not Split.GOLDEN]
    classes = sorted({item.label for item in items})
    transform = v2.Compose([
        v2.Resize((asked.side, asked.side)),
        v2.RandomHorizontalFlip(),
        v2.RandomVerticalFlip(),
        v2.ColorJitter(brightness=0.2, contrast=0.2),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ])  # fmt: skip
    workers = asked.workers or 0
    loader = DataLoader(
        Files([(item.path, classes.index(item.label)) for item in items], transform),
        batch_size=asked.batch, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )  # fmt: skip
    turns.loader = Endless(loader)
    trainer = lightning.Trainer(
        accelerator=asked.accelerator, devices=1, max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Plain(asked.backbone, len(classes), turns), turns.loader)


def run(asked: Asked) -> None:
    """Be the subject; standard output is for turns alone."""
    answer, sys.stdout = sys.stdout, sys.stderr
    turns = Turns(asked.batch, asked.steps, lead=2 * (asked.workers or 0) + 2, _answer=answer)
    try:
        run_plain(asked, turns) if asked.kind == PEER else run_ours(asked, turns)
    except OverError:
        return
