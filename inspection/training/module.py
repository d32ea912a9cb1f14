"""The Lightning wrapper of the plain network: losses, metrics, optimizer."""

# ruff: noqa: ARG002  # Lightning calls its hooks with more than we need

from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from inspection.models.network import InspectionNet
from inspection.models.preprocess import Preprocess
from inspection.training.cache import GOOD_PLACE, UNKNOWN_PLACE

LABEL_SMOOTHING = 0.05
_SHORTEST_CYCLE = 10  # steps
Batch = tuple[Tensor, Tensor, Tensor]
"""Normalized pictures, class indices, places (see `inspection.training.cache.Working`)."""


class Classifier(lightning.LightningModule):
    """Trains ``net`` on uint8 BGR batches ``[N, 3, h, w]``; normalizes on the device, outside mixed precision.

    Where it is known which class lies where (good pictures, and boxes), every location of the map is taught as well.
    """

    def __init__(self, net: InspectionNet, *, learning_rate: float, weight_decay: float) -> None:
        super().__init__()
        self.net = net
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.preprocess = Preprocess(net.spec.height, net.spec.width, net.spec.mean, net.spec.std)
        self.confusion = MulticlassConfusionMatrix(net.spec.classes)
        self.validation_loss = MeanMetric()
        self.training_loss = MeanMetric()

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """uint8 pictures become normalized floats, channels last."""
        images, labels, places = batch
        return self.preprocess.normalize(images).contiguous(memory_format=torch.channels_last), labels, places

    def hard_loss(self, logits: Tensor, map_logits: Tensor, labels: Tensor, places: Tensor) -> Tensor:
        """Cross-entropy on the picture, with a little label smoothing, plus the map's."""
        picture = functional.cross_entropy(logits.float(), labels, label_smoothing=LABEL_SMOOTHING)
        return picture + place_loss(map_logits, places, self.net.spec.good_index)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step's loss."""
        images, labels, places = batch
        logits, map_logits = self.net(images)
        loss = self.hard_loss(logits, map_logits, labels, places)
        self.training_loss.update(loss.detach())
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Counts right and wrong answers."""
        images, labels, _ = batch
        logits = self.net(images)[0].float()
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
        """AdamW, one cycle up and down over all steps (Smith and Topin 2018)."""
        # On a processor with small batches the plain one takes a fifth of the step (README.md). With float16's scaled
        # gradients the fused one cannot be clipped.
        fused = self.trainer.precision != "16-mixed"
        groups = _parameter_groups(self.net, self.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, fused=fused)
        # One step on the way up divides by zero (pct_start * steps - 1): a very short training ends before its cycle does.
        steps = max(_SHORTEST_CYCLE, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=steps, pct_start=0.2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Distiller(Classifier):
    """Trains a student on its teacher's answers to the very same augmented pictures (Hinton et al. 2015).

    Loss: ``hard_label_share`` x the classifier's loss + the rest x T^2 KL(teacher || student) at temperature T, on the
    picture's logits and, where both maps have one size, on every location of the map. ``teacher_bf16``:
    the teacher answers in bf16, whatever precision the student trains in.
    """

    def __init__(self, net: InspectionNet, teacher: InspectionNet, *, temperature: float, hard_label_share: float,
        teacher_bf16: bool = False,
                 **options: Any) -> None:  # fmt: skip
        super().__init__(net, **options)
        self.teacher = teacher.requires_grad_(False)
        self.temperature, self.hard_label_share, self.teacher_bf16 = temperature, hard_label_share, teacher_bf16
        spec = teacher.spec
        self.teacher_preprocess = Preprocess(spec.height, spec.width, spec.mean, spec.std)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Any:
        """In training the teacher's view of the same pictures is added."""
        ready = super().on_after_batch_transfer(batch, dataloader_idx)
        if not self.training:
            return ready
        seen = self.teacher_preprocess.normalize(batch[0]).contiguous(memory_format=torch.channels_last)
        return *ready, seen

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One step's loss."""
        images, labels, places, seen = batch
        self.teacher.eval()  # Lightning puts all children into training mode
        with torch.no_grad(), torch.autocast(seen.device.type, torch.bfloat16, enabled=self.teacher_bf16):
            wanted, wanted_map = self.teacher(seen)
        logits, map_logits = self.net(images)
        soft = self._divergence(logits, wanted)
        if map_logits.shape == wanted_map.shape:
            soft = 0.5 * (soft + self._divergence(map_logits, wanted_map))
        hard = self.hard_loss(logits, map_logits, labels, places)
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


def _parameter_groups(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Biases and normalization weights are not decayed."""
    decayed = [p for p in net.parameters() if p.requires_grad and p.ndim > 1]
    free = [p for p in net.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
