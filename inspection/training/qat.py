"""Training with rounding (quantization-aware), from a distilled student, for networks whose int8 file answers otherwise.

What is learnt is a plain network of the same kind; it is exported and made int8 by the same functions as any other. The
teacher is asked as in distillation, at a tenth of the learning rate, and the ranges of all tensors are taken from the
calibration pictures before each epoch, as `quantize_static` will take them.
"""

# Lightning calls its hooks with more than we need

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from numpy.typing import NDArray
from torch import Tensor

from inspection.contracts import canonical_json, sha256_hex
from inspection.data.product import Product
from inspection.data.snapshot_record import Snapshot
from inspection.models.preprocess import Preprocess
from inspection.training.cache import Pictures
from inspection.training.distil import shared_size, student_plan, student_rate
from inspection.training.engine import Compute, OnEpoch, fit
from inspection.training.fit import keep, load_data
from inspection.training.loading import STEPS_FROM_TEACHER
from inspection.training.module import Distiller, Tuning
from inspection.training.record import Trained
from inspection.training.rounding import RoundedNet

SLOWER = 0.1  # than the student learnt
_BOOKMARK = 3  # what is written in one; others are not gone on from


class _RoundedDistiller(Distiller):
    """A distiller whose student rounds; what it observes are ``calibration``: normalized pictures ``[1, 3, h, w]``."""

    def __init__(self, *arguments: Any, calibration: Sequence[Tensor], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._calibration = calibration
        self._ranges: dict[str, Tensor] | None = None

    def on_train_start(self) -> None:
        """The ranges of the weights to begin with; a training that goes on has those of its epoch."""
        super().on_train_start()
        if self._ranges is None:
            self._observe()
        else:
            self._rounding.take(self._ranges)

    def on_validation_epoch_start(self) -> None:
        """The ranges of the weights by now, for the validation and the epoch to come."""
        self._observe()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The weights have changed since the ranges were taken."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["ranges"] = self._rounding.ranges()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See `on_train_start`."""
        super().on_load_checkpoint(checkpoint)
        self._ranges = checkpoint["ranges"]

    @property
    def _rounding(self) -> RoundedNet:
        if not isinstance(self.net, RoundedNet):
            raise TypeError("only a network that rounds has ranges")
        return self.net

    def _observe(self) -> None:
        self._rounding.observe(picture.to(self.device) for picture in self._calibration)


def train_rounded(
    student: Trained,
    teacher: Trained,
    snapshot: Snapshot,
    product: Product,
    pictures: Pictures,
    workdir: Path,
    calibration: Sequence[NDArray[np.uint8]],
    *,
    on_epoch: OnEpoch | None = None,
    compute: Compute | None = None,
) -> Trained:
    """Train ``student`` on for ``product.student.qat_epochs`` with rounding; the result lies in ``workdir/trained``.

    ``calibration``: the frames uint8 ``[H, W, 3]`` that the int8 file will be calibrated on. On one device, whatever
    ``compute`` says: the exported graph that rounds cannot be handed to other processes.
    """
    started = time.monotonic()
    compute, plan = (compute or Compute()).alone, product.student
    with isolate_rng():
        torch.manual_seed(product.train.seed)
        net = RoundedNet(student.network())
        shared = shared_size(student_plan(product, teacher), teacher)
        data = load_data(
            snapshot, product.model_copy(update={"train": shared}), net, pictures, workdir, compute, STEPS_FROM_TEACHER
        )
        module = _RoundedDistiller(
            net,
            Tuning(SLOWER * student_rate(plan, borrowed=plan.pretrained != "none"), product.train.weight_decay),
            teacher.network(),
            temperature=plan.temperature,
            hard_label_share=plan.hard_label_share,
            calibration=_as_seen(calibration, student.preprocess()),
        )
        weights = (sha256_hex(trained.weights.read_bytes()) for trained in (student, teacher))
        follows = [
            _BOOKMARK,
            snapshot.digest,
            product.model_dump(mode="json", include={"train", "student", "region", "tiling"}),
            *weights,
        ]
        kept = fit(
            module,
            data,
            epochs=plan.qat_epochs,
            patience=plan.qat_epochs,
            precision="32",
            compute=compute,
            bookmark=workdir / f"rounding-{sha256_hex(canonical_json(follows))[:16]}.ckpt",
            on_epoch=on_epoch,
        )
    origin = f"trained with rounding for {plan.qat_epochs} epochs; {student.started_from}"
    return keep(workdir / "trained", snapshot, net, kept, origin, "32", time.monotonic() - started)


def _as_seen(frames: Sequence[NDArray[np.uint8]], preprocess: Preprocess) -> list[Tensor]:
    """Frames as the quantizer shows them to the file: resized, rounded to gray levels, normalized."""
    with torch.inference_mode():
        planes = (preprocess.resize(torch.from_numpy(frame)[None]).round().clamp(0, 255) for frame in frames)
        return [preprocess.normalize(one).clone() for one in planes]
