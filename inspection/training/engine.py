"""Runs a Lightning module to its best epoch, quietly, on whatever this machine has, and goes on after a kill."""

# ruff: noqa: ARG002  # Lightning calls its hooks with more than we need

import logging
import math
import os
import pickle
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from inspection.errors import UsageError
from inspection.settings import Training
from inspection.training.compiling import CompiledSteps
from inspection.training.draws import TrainingDraws
from inspection.training.loading import SnapshotData
from inspection.training.module import Classifier

log = logging.getLogger(__name__)

UNFINISHED = ".unfinished"
MOST_WORKERS = 12
OnEpoch = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Compute:
    """Where to train. The defaults take one process per GPU of this machine, or the processor.

    ``num_workers``: loading processes of each device; None: `workers_for` them.
    ``bookmark_seconds``: so often what is needed to go on after a kill is written down (0: after each step).
    """

    accelerator: str = "auto"
    devices: int | Literal["auto"] = "auto"
    nodes: int = 1
    strategy: str = "auto"
    num_workers: int | None = None
    bookmark_seconds: float = 60.0

    @classmethod
    def of(cls, settings: Training) -> Self:
        """As the settings say."""
        return cls(settings.accelerator, settings.devices, settings.nodes, num_workers=settings.workers)

    @property
    def here(self) -> Self:
        """The same on this machine alone."""
        return replace(self, nodes=1)

    @property
    def alone(self) -> Self:
        """The same on one device of this machine, in this process."""
        return replace(self, devices=1, nodes=1, strategy="auto")


@dataclass
class BestEpoch(Callback):
    """Keeps the weights of the best epoch in memory; stops after ``patience`` epochs without a better one.

    Better: lower loss on the validation side, then higher balanced accuracy; with ``keep_last`` every epoch is, so that the
    validation side has chosen nothing and may judge. An epoch with a metric that is not finite has ``diverged``: it ends
    the training and is no part of ``history``. ``seconds_before``: what earlier processes, which were killed, had trained.
    """

    module: Classifier
    patience: int
    keep_last: bool = False
    on_epoch: OnEpoch | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best_state: dict[str, Tensor] = field(default_factory=dict)
    best_score: tuple[float, float] = (-math.inf, 0.0)
    diverged: int | None = None
    seconds_before: float = 0.0
    _began: float = field(default_factory=time.monotonic)

    def on_train_start(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """A training that goes on tells its whole story, and may have been at its end."""
        for epoch, metrics in enumerate(self.history):
            self._tell(trainer, epoch, metrics)
        self._stop_if_stale(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """Runs after the epoch's validation."""
        metrics = self.module.epoch_metrics()
        epoch = len(self.history)
        if not all(map(math.isfinite, metrics.values())):
            self.diverged = epoch
            self._stop_if_stale(trainer)
            return
        self.history.append(metrics)
        score = (-metrics["val_loss"], metrics["val_balanced_accuracy"])
        if self.keep_last or score > self.best_score:
            self.best_score, self.best_epoch = score, epoch
            self.best_state = {k: v.detach().cpu().clone() for k, v in self.module.judged.state_dict().items()}
        self._stop_if_stale(trainer)
        self._tell(trainer, epoch, metrics)

    def _tell(self, trainer: lightning.Trainer, epoch: int, metrics: dict[str, float]) -> None:
        if self.on_epoch is not None and trainer.is_global_zero:
            self.on_epoch(epoch, metrics)

    def _stop_if_stale(self, trainer: lightning.Trainer) -> None:
        stale = bool(self.history) and len(self.history) - 1 - self.best_epoch >= self.patience
        if stale or self.diverged is not None:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """What was found so far, for a process that goes on."""
        return self.found() | {"seconds_before": self.seconds_before + time.monotonic() - self._began}

    def found(self) -> dict[str, Any]:
        """The same for one that does not."""
        names = ("history", "best_epoch", "best_state", "best_score", "diverged", "seconds_before")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        for name, value in state_dict.items():
            setattr(self, name, value)


class Bookmark(Callback):
    """Writes down where a training is, so that it can go on there; the file is complete or not there.

    It keeps where the draws are, too: Lightning's own keeping of a loader's state is lost when the optimizer asks how many
    steps there will be (2.6), and loading processes are at work before Lightning names the epoch that goes on.
    """

    def __init__(self, path: Path, every_seconds: float, draws: TrainingDraws) -> None:
        self._path, self._every, self._draws = path, every_seconds, draws
        self._written = time.monotonic()
        self._epoch, self._given = 0, 0

    def on_train_batch_end(
        self, trainer: lightning.Trainer, _: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Not after an epoch's last step: what comes there belongs to it."""
        if not trainer.is_last_batch:
            self._epoch, self._given = trainer.current_epoch, batch_idx + 1
            self._write_if_due(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """After its validation."""
        self._epoch, self._given = trainer.current_epoch + 1, 0
        self._write_if_due(trainer)

    def state_dict(self) -> dict[str, Any]:
        """How many batches of which epoch were given."""
        return {"epoch": self._epoch, "given": self._given}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The next one comes first."""
        self._draws.set_epoch(state_dict["epoch"])
        self._draws.start = state_dict["given"]

    def _write_if_due(self, trainer: lightning.Trainer) -> None:
        due = time.monotonic() - self._written >= self._every
        if trainer.world_size > 1:  # all write, or none
            due = bool(trainer.strategy.broadcast(due))
        if not due:
            return
        unfinished = self._path.with_suffix(UNFINISHED)
        trainer.save_checkpoint(unfinished)
        if trainer.is_global_zero:
            unfinished.replace(self._path)
        self._written = time.monotonic()


class _Result(Callback):
    """Hands what was found to the process that asked on each machine, where others trained."""

    def __init__(self, keeper: BestEpoch, path: Path) -> None:
        self._keeper, self._path = keeper, path

    def on_train_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """Once a machine: its processes have found the same."""
        if trainer.local_rank == 0:
            torch.save(self._keeper.found(), self._path)


def fit(
    module: Classifier,
    data: SnapshotData,
    *,
    epochs: int,
    patience: int,
    precision: str,
    compute: Compute,
    bookmark: Path,
    on_epoch: OnEpoch | None = None,
    keep_last: bool = False,
    compile_network: bool = False,
) -> BestEpoch:
    """Train ``module`` on ``data``; the module's network ends with the weights of the best epoch (`BestEpoch`).

    ``bookmark``: the file to go on from when it is there, and to write meanwhile; deleted at the end. Whoever names it
    makes sure that it belongs to this very training. ``on_epoch`` hears of all epochs at the end where several processes
    train. A training that diverges ends there; UsageError where no epoch before was sound.
    """
    strategy, draws = choose_strategy(compute), data.draws(devices_here(compute) * compute.nodes)
    apart = "spawn" in strategy
    keeper = BestEpoch(module, patience, keep_last, None if apart else on_epoch)
    result = bookmark.with_suffix(f".result{node_rank()}")
    callbacks: list[Callback] = [keeper, Bookmark(bookmark, compute.bookmark_seconds, draws)]
    callbacks += [_Result(keeper, result)] if apart else []
    callbacks += [CompiledSteps(module.net)] if compile_network else []
    module.to(memory_format=torch.channels_last)
    bookmark.parent.mkdir(parents=True, exist_ok=True)
    if apart:  # tensors that share memory would be handed over by one descriptor twice
        torch.multiprocessing.set_sharing_strategy("file_system")  # type: ignore[no-untyped-call]  # torch has no types here
    with _quiet():
        trainer = _trainer(compute, strategy, precision, epochs, callbacks)
        begun = str(bookmark) if _readable(bookmark) else None
        trainer.fit(module, data.train_dataloader(draws), data.val_dataloader(), ckpt_path=begun, weights_only=True)
    if apart:
        keeper.load_state_dict(torch.load(result, weights_only=True))
        result.unlink()
        for epoch, metrics in enumerate(keeper.history):
            if on_epoch is not None:
                on_epoch(epoch, metrics)
    for left in (bookmark, bookmark.with_suffix(UNFINISHED)):
        left.unlink(missing_ok=True)
    if keeper.diverged is not None:
        _tell_divergence(keeper, keeper.diverged)
    module.net.load_state_dict(keeper.best_state)
    return keeper


def _tell_divergence(keeper: BestEpoch, epoch: int) -> None:
    """Epochs are counted from 1 for people."""
    if not keeper.history:
        raise UsageError(
            f"training diverged in epoch {epoch + 1}: a loss is no number, and there is no epoch before it to keep; lower "
            "train.learning_rate (a student's: student.learning_rate), or set train.precision to 32"
        )
    log.warning("training diverged in epoch %d and ended there: epoch %d is kept", epoch + 1, keeper.best_epoch + 1)


def _trainer(compute: Compute, strategy: str, precision: str, epochs: int, callbacks: list[Callback]) -> lightning.Trainer:
    """Lightning's, which keeps, shows and writes nothing by itself."""
    return lightning.Trainer(
        accelerator=compute.accelerator,
        devices=compute.devices,
        num_nodes=compute.nodes,
        strategy=strategy,
        precision=_LIGHTNING_PRECISION[precision],
        max_epochs=epochs,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        gradient_clip_val=1.0,
        use_distributed_sampler=False,
        deterministic="warn" if _on_gpu(compute.accelerator) else None,
    )


def _readable(bookmark: Path) -> bool:
    """Whether there is one to go on from; one that the disk spoilt is thrown away, and the training begins anew."""
    if not bookmark.exists():
        return False
    try:
        torch.load(bookmark, weights_only=True, mmap=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        log.warning("%s cannot be read (%s): the training begins anew", bookmark, error)
        bookmark.unlink()
        return False
    return True


_LIGHTNING_PRECISION: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def choose_precision(wanted: str, net: nn.Module, accelerator: str) -> str:
    """Turn "auto" into "32", "bf16" or "16"; README.md has the measurements behind it.

    GPU: bf16 where it has it, else 16. Processor: bf16 only where it has bf16 instructions and the network is made of
    dense convolutions; depthwise ones run slower in bf16.
    """
    if wanted != "auto":
        return wanted
    if _on_gpu(accelerator):
        return "bf16" if torch.cuda.is_bf16_supported() else "16"
    dense = all(m.groups == 1 for m in net.modules() if isinstance(m, nn.Conv2d))
    return "bf16" if dense and _cpu_has_bf16() else "32"


def choose_workers(compute: Compute) -> int:
    """Loading processes of each device of this machine."""
    if compute.num_workers is not None:
        return compute.num_workers
    return workers_for(devices_here(compute) if _on_gpu(compute.accelerator) else 0, len(os.sched_getaffinity(0)))


def node_rank() -> int:
    """Which of several machines this is, from 0: as Lightning reads it."""
    return LightningEnvironment().node_rank()


def choose_strategy(compute: Compute) -> str:
    """Several devices are trained on by processes that know of nothing but the training: Lightning's own choice would run
    the whole command once for each."""
    if compute.strategy != "auto":
        return compute.strategy
    return "ddp_spawn" if compute.nodes > 1 or devices_here(compute) > 1 else "auto"


def devices_here(compute: Compute) -> int:
    """How many devices of this machine train."""
    if isinstance(compute.devices, int):
        return compute.devices
    return torch.cuda.device_count() if _on_gpu(compute.accelerator) else 1


def workers_for(gpus: int, cores: int) -> int:
    """A processor that trains needs its cores itself: 0. A GPU gets its share of them but one, which feeds it, and no more
    than `MOST_WORKERS` (README.md has what one core loads)."""
    return max(1, min(MOST_WORKERS, cores // gpus - 1)) if gpus else 0


def _on_gpu(accelerator: str) -> bool:
    return accelerator in {"auto", "gpu", "cuda"} and torch.cuda.is_available()


def _cpu_has_bf16() -> bool:
    # torch names no public function for it; where this one is gone, float32 is right, only slower.
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe()) if probe is not None else False


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's banner and its advice about loaders; everything else stays audible."""
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Pictures are cached decoded: loading in the training process is measured to be fast enough.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            # A teacher is in evaluation mode on purpose.
            warnings.filterwarnings("ignore", message=".*module\\(s\\) in eval mode.*")
            # Lightning walks its loaders with a part of torch's pytree that is going away.
            warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)
            # It is: `Bookmark` keeps where the draws are.
            warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
            # We count epochs ourselves and log nothing through Lightning.
            warnings.filterwarnings("ignore", message=".*number of training batches.*logging interval.*")
            yield
    finally:
        logger.setLevel(before)
