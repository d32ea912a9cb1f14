"""Runs a Lightning module to its best epoch, quietly, on whatever this machine has."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from inspection.training.loading import SnapshotData
from inspection.training.module import Classifier

OnEpoch = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Compute:
    """Where to train. The defaults take one process per GPU of this machine, or the processor."""

    accelerator: str = "auto"
    devices: int | str = "auto"
    nodes: int = 1
    strategy: str = "auto"
    num_workers: int = 0


@dataclass
class BestEpoch(Callback):
    """Keeps the weights of the best epoch in memory; stops after ``patience`` epochs without a better one.

    Better: higher balanced accuracy on the validation side, then lower loss.
    """

    module: Classifier
    patience: int
    on_epoch: OnEpoch | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best_state: dict[str, Tensor] = field(default_factory=dict)
    best_score: tuple[float, float] = (-1.0, 0.0)

    def on_train_epoch_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """Runs after the epoch's validation."""
        metrics = self.module.epoch_metrics()
        epoch = len(self.history)
        self.history.append(metrics)
        score = (metrics["val_balanced_accuracy"], -metrics["val_loss"])
        if score > self.best_score:
            self.best_score, self.best_epoch = score, epoch
            self.best_state = {k: v.detach().cpu().clone() for k, v in self.module.net.state_dict().items()}
        elif epoch - self.best_epoch >= self.patience:
            trainer.should_stop = True
        if self.on_epoch is not None and trainer.is_global_zero:
            self.on_epoch(epoch, metrics)


def fit(
    module: Classifier,
    data: SnapshotData,
    *,
    epochs: int,
    patience: int,
    precision: str,
    compute: Compute,
    on_epoch: OnEpoch | None = None,
) -> BestEpoch:
    """Train ``module`` on ``data``; the module's network ends with the weights of the best epoch."""
    keeper = BestEpoch(module, patience, on_epoch)
    module.to(memory_format=torch.channels_last)
    with _quiet():
        trainer = lightning.Trainer(
            accelerator=compute.accelerator,
            devices=compute.devices,
            num_nodes=compute.nodes,
            strategy=compute.strategy,
            precision=_LIGHTNING_PRECISION[precision],
            max_epochs=epochs,
            callbacks=[keeper],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            gradient_clip_val=1.0,
        )
        trainer.fit(module, data.train_dataloader(), data.val_dataloader())
    module.net.load_state_dict(keeper.best_state)
    return keeper


_LIGHTNING_PRECISION: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def choose_precision(wanted: str, net: nn.Module, accelerator: str) -> str:
    """Turn "auto" into "32", "bf16" or "16"; README.md has the measurements behind it.

    GPU: bf16 where it has it, else 16. Processor: bf16 only where it has bf16 instructions and the network is made of
    dense convolutions; depthwise ones run slower in bf16.
    """
    if wanted != "auto":
        return wanted
    if accelerator in {"auto", "gpu", "cuda"} and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "16"
    dense = all(m.groups == 1 for m in net.modules() if isinstance(m, nn.Conv2d))
    return "bf16" if dense and _cpu_has_bf16() else "32"


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
            # We count epochs ourselves and log nothing through Lightning.
            warnings.filterwarnings("ignore", message=".*number of training batches.*logging interval.*")
            yield
    finally:
        logger.setLevel(before)
