"""The Lightning wrapper of the plain network: losses, metrics, what learns when.

Invariant: all that a step depends on is in the checkpoint, so a training on one device that goes on after a kill gives the
weights it would have given.
"""

# ruff: noqa: ARG002  # Lightning calls its hooks with more than we need

import copy
import math
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from inspection.models.network import InspectionNet
from inspection.models.preprocess import Preprocess
from inspection.models.tiles import pooled, worst_tile
from inspection.training.cache import GOOD_PLACE, UNKNOWN_PLACE
from inspection.training.loading import Batch
from inspection.training.schedule import Pace, make_optimizer

LABEL_SMOOTHING = 0.05


@dataclass(frozen=True)
class Tuning:
    """How a network learns (see `inspection.training.schedule`). ``average_share``: its weights are averaged over about so
    large a share of all steps, and the average is what is judged and kept; 0: the last weights are."""

    learning_rate: float
    weight_decay: float
    layer_decay: float = 1.0
    probe_epochs: int = 0
    average_share: float = 0.0


class Classifier(lightning.LightningModule):
    """Trains ``net`` on batches of uint8 BGR tiles ``[M, 3, h, w]``; normalizes on the device, outside mixed precision.

    Where it is known which class lies where (good pictures, and boxes), every location of the map is taught as well.
    """

    def __init__(self, net: InspectionNet, tuning: Tuning) -> None:
        super().__init__()
        self.net, self.tuning = net, tuning
        self.average = copy.deepcopy(net).requires_grad_(False) if tuning.average_share else None
        self.preprocess = Preprocess(net.spec.height, net.spec.width, net.spec.mean, net.spec.std)
        self.confusion = MulticlassConfusionMatrix(net.spec.classes)
        # A NaN stays one: left out, as torchmetrics does by itself, it would hide that the training has diverged.
        self.validation_loss = MeanMetric(nan_strategy=math.nan)
        self.training_loss = MeanMetric(nan_strategy=math.nan)
        for metric in (self.confusion, self.validation_loss, self.training_loss):
            metric.persistent(mode=True)
        self._random: dict[str, Any] | None = None

    @property
    def judged(self) -> InspectionNet:
        """The network that is validated and kept."""
        return self.average if self.average is not None else self.net

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """uint8 pictures become normalized floats, channels last."""
        images, labels, places, counts = batch
        ready = self.preprocess.see(images).contiguous(memory_format=torch.channels_last)
        return ready, labels, places, counts

    def hard_loss(self, logits: Tensor, map_logits: Tensor, labels: Tensor, places: Tensor) -> Tensor:
        """Cross-entropy on the picture, with a little label smoothing, plus the map's."""
        picture = functional.cross_entropy(logits.float(), labels, label_smoothing=LABEL_SMOOTHING)
        return picture + place_loss(map_logits, places, self.net.spec.good_index)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step's loss."""
        images, labels, places, counts = batch
        logits, map_logits = self.net(images)
        loss = self.hard_loss(pooled(logits, counts), map_logits, labels, places)
        self.training_loss.update(loss.detach())
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Counts right and wrong answers, each picture judged by its worst tile."""
        images, labels, _, counts = batch
        tiles = torch.log_softmax(self.judged(images)[0].float(), dim=1)
        logits = worst_tile(tiles, counts[0], self.net.spec.good_index)
        self.validation_loss.update(functional.cross_entropy(logits, labels), len(labels))
        self.confusion.update(logits, labels)

    def epoch_metrics(self) -> dict[str, float]:
        """Metrics since the last call, over all processes: ``loss``, ``val_loss``, ``val_balanced_accuracy``."""
        counts = self.confusion.compute().double()
        present = counts.sum(1) > 0  # a class without validation pictures has no recall
        recall = counts.diag()[present] / counts.sum(1)[present]
        metrics = {
            "loss": float(self.training_loss.compute()),
            "val_loss": float(self.validation_loss.compute()),
            "val_balanced_accuracy": float(recall.mean()),
        }
        for metric in (self.confusion, self.validation_loss, self.training_loss):
            metric.reset()
        return metrics

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """By norm. Lightning itself refuses a fused optimizer in mixed precision, also where nothing is scaled."""
        if self.trainer.precision == "16-mixed":
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val is not None:
            nn.utils.clip_grad_norm_(self.net.parameters(), gradient_clip_val)

    def configure_optimizers(self) -> Any:
        """AdamW and its cycles."""
        # On a processor with small batches the plain one takes a fifth of the step (README.md). With float16's scaled
        # gradients the fused one cannot be clipped.
        fused = self.trainer.precision != "16-mixed"
        steps, epochs = int(self.trainer.estimated_stepping_batches), int(self.trainer.max_epochs or 1)
        tuning = self.tuning
        pace = Pace(
            learning_rate=tuning.learning_rate,
            weight_decay=tuning.weight_decay,
            layer_decay=tuning.layer_decay,
            probe_steps=steps * tuning.probe_epochs // epochs,
            steps=steps,
        )
        self._decay = 1 - 1 / max(1.0, tuning.average_share * steps)
        optimizer, cycles = make_optimizer(self.net, pace, fused=fused)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycles, "interval": "step"}}

    def on_train_start(self) -> None:
        """Go on with the random numbers where they were."""
        self._hold_body()
        if self._random is not None:
            torch.set_rng_state(self._random["cpu"])
            if self._random["cuda"] and torch.cuda.is_available():
                torch.cuda.set_rng_state_all(self._random["cuda"])

    def on_train_epoch_start(self) -> None:
        """The body is held, or let go."""
        self._hold_body()

    def _hold_body(self) -> None:
        """While the head is probed the body neither learns nor moves its statistics."""
        probing = self.current_epoch < self.tuning.probe_epochs
        self.net.features.train(not probing)
        # With several devices gradients are computed for nothing: the exchange between them waits for all.
        self.net.features.requires_grad_(not (probing and self.trainer.world_size == 1))

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """The average follows at once: what writes checkpoints comes right after."""
        super().optimizer_step(*arguments, **options)
        if self.average is not None:
            self._follow(self.average)

    def _follow(self, average: InspectionNet) -> None:
        """At first faster, so that it forgets the weights that nothing was learnt with."""
        decay = min(self._decay, (1 + self.global_step) / (10 + self.global_step))
        pairs = list(zip(average.state_dict().values(), self.net.state_dict().values(), strict=True))
        moving = [(ours, now) for ours, now in pairs if ours.is_floating_point()]
        follow = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch names no types here
        follow([ours for ours, _ in moving], [now for _, now in moving], None)
        for ours, now in pairs:
            if not ours.is_floating_point():
                ours.copy_(now)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The random numbers that dropout draws from."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        checkpoint["random"] = {"cpu": torch.get_rng_state(), "cuda": cuda}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See `on_train_start`: what comes between draws from them, too."""
        self._random = checkpoint["random"]


class Distiller(Classifier):
    """Trains a student on its teacher's answers to the very same augmented pictures (Hinton et al. 2015).

    Each sees the same crop at its own size: pictures come at the larger of the two (`inspection.training.distil`).
    Loss: ``hard_label_share`` x the classifier's loss + the rest x T^2 KL(teacher || student) at temperature T, on the
    picture's logits and, where both maps have one size, on every location of the map. ``teacher_bf16``:
    the teacher answers in bf16, whatever precision the student trains in.
    """

    def __init__(
        self,
        net: InspectionNet,
        tuning: Tuning,
        teacher: InspectionNet,
        *,
        temperature: float,
        hard_label_share: float,
        teacher_bf16: bool = False,
    ) -> None:
        super().__init__(net, tuning)
        self.strict_loading = False  # the teacher is not in the checkpoint
        self.teacher = teacher.requires_grad_(False)
        self.temperature, self.hard_label_share, self.teacher_bf16 = temperature, hard_label_share, teacher_bf16
        spec = teacher.spec
        self.teacher_preprocess = Preprocess(spec.height, spec.width, spec.mean, spec.std)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The teacher is where it was."""
        super().on_save_checkpoint(checkpoint)
        kept = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: value for name, value in kept.items() if not name.startswith("teacher.")}

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Any:
        """In training the teacher's view of the same pictures is added."""
        ready = super().on_after_batch_transfer(batch, dataloader_idx)
        if not self.training:
            return ready
        seen = self.teacher_preprocess.see(batch[0]).contiguous(memory_format=torch.channels_last)
        return *ready, seen

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One step's loss."""
        images, labels, places, counts, seen = batch
        self.teacher.eval()  # Lightning puts all children into training mode
        with torch.no_grad(), torch.autocast(seen.device.type, torch.bfloat16, enabled=self.teacher_bf16):
            wanted, wanted_map = self.teacher(seen)
        logits, map_logits = self.net(images)
        soft = self._divergence(logits, wanted)
        if map_logits.shape == wanted_map.shape:
            soft = 0.5 * (soft + self._divergence(map_logits, wanted_map))
        hard = self.hard_loss(pooled(logits, counts), map_logits, labels, places)
        loss = self.hard_label_share * hard + (1 - self.hard_label_share) * soft
        self.training_loss.update(loss.detach())
        return loss

    def _divergence(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """T^2 KL(wanted || logits) over dimension 1, mean over everything else."""
        t = self.temperature
        ours = functional.log_softmax(logits.float() / t, dim=1)
        theirs = functional.log_softmax(wanted.float() / t, dim=1)
        return t * t * functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(1).mean()


def place_loss(map_logits: Tensor, places: Tensor, good_index: int) -> Tensor:
    """Cross-entropy at the map's locations, ``map_logits [N, K, h, w]`` against ``places [N, H, W]``.

    A location counts as a defect when any pixel in it is boxed. Inside and outside of the boxes weigh the same,
    however small a defect is; pictures whose places are unknown do not count.
    """
    coarse = functional.adaptive_max_pool2d(places[:, None].float(), map_logits.shape[-2:])[:, 0].long()
    known = coarse != UNKNOWN_PLACE
    inside, outside = known & (coarse != GOOD_PLACE), coarse == GOOD_PLACE
    wanted = torch.where(inside, coarse - 1, good_index)
    losses = functional.cross_entropy(map_logits.float(), wanted, reduction="none")
    means = [(losses * m).sum() / m.sum().clamp(min=1) for m in (inside, outside)]
    return 0.5 * (means[0] + means[1])
