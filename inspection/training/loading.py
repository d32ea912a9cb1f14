"""Batches for training: cached uint8 pictures and class indices, rare classes shown more often."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from inspection.contracts import Region
from inspection.data.product import TrainPlan
from inspection.data.snapshot_record import Example, Snapshot, Split
from inspection.errors import UsageError
from inspection.models.preprocess import Preprocess
from inspection.training.augment import Augmentation
from inspection.training.cache import Pictures, Working, Workshop, working_pictures
from inspection.training.draws import AS_IT_IS, Draw, EachOnce, TrainingDraws

Item = tuple[Tensor, int, Tensor]
STEPS_FROM_LABELS = 48  # an epoch has at least: small sets take small batches, steps are what they lack (README.md)
STEPS_FROM_TEACHER = 24  # a teacher's answers say more than labels, and small networks are slow on small batches
MIN_BATCH = 8
BALANCE = 0.5  # 0: as collected, 1: every class equally often; between, a handful of pictures is not learnt by heart


class PictureSet(Dataset[Item]):
    """A `Draw` to ``(uint8 [3, h, w] BGR, class index, places uint8 [h, w])``."""

    def __init__(self, working: Working, labels: NDArray[np.int64], augment: Augmentation | None) -> None:
        self.working, self.labels, self.augment = working, labels, augment

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, draw: Draw) -> Item:
        index, number = draw
        # Copies: the files behind them are read-only.
        image, places = np.array(self.working.images[index]), np.array(self.working.places[index])
        if self.augment is not None and number != AS_IT_IS:
            image, places = (np.ascontiguousarray(a) for a in self.augment(image, places, number))
        return torch.from_numpy(image).permute(2, 0, 1), int(self.labels[index]), torch.from_numpy(places)


class SnapshotData:
    """The training and validation sides of a snapshot. ``classes`` gives the order of the class indices; ``steps`` is how
    many an epoch has at least, by smaller batches.

    Raises UsageError on a side without pictures, or a label outside ``classes``.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        plan: TrainPlan,
        preprocess: Preprocess,
        num_workers: int = 0,
        steps: int = STEPS_FROM_LABELS,
    ) -> None:
        self.snapshot, self.plan, self.preprocess, self.num_workers = snapshot, plan, preprocess, num_workers
        self.steps = steps
        self.labels = {side: self._indices(snapshot.of(side)) for side in (Split.TRAIN, Split.VALIDATION)}
        self.working: dict[Split, Working] = {}

    def _indices(self, examples: Sequence[Example]) -> NDArray[np.int64]:
        place = {name: index for index, name in enumerate(self.snapshot.classes)}
        if unknown := sorted({e.label for e in examples} - place.keys()):
            raise UsageError(f"the snapshot has pictures labelled {unknown[0]!r}, a class it does not list")
        if len(examples) < 2:
            raise UsageError("training needs pictures on the training and the validation side: label more parts")
        return np.asarray([place[e.label] for e in examples], dtype=np.int64)

    def decode(self, pictures: Pictures, workdir: Path, region: Region | None = None) -> None:
        """Decode and resize every picture once."""
        snapshot = self.snapshot
        workshop = Workshop(self.preprocess, snapshot.classes, snapshot.good_class, region)
        for side in self.labels:
            self.working[side] = working_pictures(self.snapshot.of(side), pictures, workshop, workdir)

    def draws(self) -> TrainingDraws:
        """Which training pictures each step is shown: rare classes more often."""
        labels = self.labels[Split.TRAIN]
        size = batch_size(len(labels), self.plan.batch_size, self.steps)
        return TrainingDraws(balancing_weights(labels), size, self.plan.seed)

    def train_dataloader(self, draws: TrainingDraws) -> DataLoader[Item]:
        """Those, augmented."""
        plan = self.plan
        augment = Augmentation(plan.augment, plan.height, plan.width, plan.seed)
        return DataLoader(batch_sampler=draws, **self._options(Split.TRAIN, augment))

    def val_dataloader(self) -> DataLoader[Item]:
        """In order, as they are."""
        each = EachOnce(len(self.labels[Split.VALIDATION]), self.plan.batch_size)
        return DataLoader(batch_sampler=each, **self._options(Split.VALIDATION, None))

    def _options(self, side: Split, augment: Augmentation | None) -> dict[str, Any]:
        return {
            "dataset": PictureSet(self.working[side], self.labels[side], augment),
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "generator": torch.Generator(),  # else each epoch takes a number out of the stream that a network draws from
        }


def batch_size(pictures: int, largest: int, steps: int) -> int:
    """Pictures per step: ``largest``, or fewer where an epoch would have less than ``steps`` steps."""
    return min(largest, max(MIN_BATCH, pictures // steps))


def balancing_weights(labels: NDArray[np.int64], power: float = BALANCE) -> NDArray[np.float64]:
    """Sampling weight per picture, ``count(class) ** -power`` (Mahajan et al. 2018 use 0.5)."""
    counts = np.bincount(labels)
    weights: NDArray[np.float64] = counts[labels].astype(np.float64) ** -power
    return weights
