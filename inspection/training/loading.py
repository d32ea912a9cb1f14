"""Batches for training: cached uint8 pictures and class indices, rare classes shown more often."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from inspection.contracts import Region
from inspection.data.product import TrainPlan
from inspection.data.snapshot_record import Example, Snapshot, Split
from inspection.errors import UsageError
from inspection.models.preprocess import Preprocess
from inspection.training.augment import Augment, augmentation
from inspection.training.cache import Pictures, working_pictures

BALANCE = 0.5  # 0: as collected, 1: every class equally often; between, a handful of pictures is not learnt by heart


class PictureSet(Dataset[tuple[Tensor, int]]):
    """``(uint8 [3, h, w] BGR, class index)``."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], augment: Augment | None) -> None:
        self.images, self.labels, self.augment = images, labels, augment

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = np.array(self.images[index])  # a copy: the file behind it is read-only
        if self.augment is not None:
            image = np.ascontiguousarray(self.augment(image))
        return torch.from_numpy(image).permute(2, 0, 1), int(self.labels[index])


class SnapshotData:
    """The training and validation sides of a snapshot. ``classes`` gives the order of the class indices.

    Raises UsageError on a side without pictures, or a label outside ``classes``.
    """

    def __init__(self, snapshot: Snapshot, plan: TrainPlan, preprocess: Preprocess, num_workers: int = 0) -> None:
        self.snapshot, self.plan, self.preprocess, self.num_workers = snapshot, plan, preprocess, num_workers
        self.labels = {side: self._indices(snapshot.of(side)) for side in (Split.TRAIN, Split.VALIDATION)}
        self.images: dict[Split, NDArray[np.uint8]] = {}

    def _indices(self, examples: Sequence[Example]) -> NDArray[np.int64]:
        place = {name: index for index, name in enumerate(self.snapshot.classes)}
        if unknown := sorted({e.label for e in examples} - place.keys()):
            raise UsageError(f"the snapshot has pictures labelled {unknown[0]!r}, a class it does not list")
        if len(examples) < 2:
            raise UsageError("training needs pictures on the training and the validation side: label more parts")
        return np.asarray([place[e.label] for e in examples], dtype=np.int64)

    def decode(self, pictures: Pictures, workdir: Path, region: Region | None = None) -> None:
        """Decode and resize every picture once."""
        for side in self.labels:
            examples = self.snapshot.of(side)
            self.images[side] = working_pictures(examples, pictures, self.preprocess, workdir, region)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Shuffled, augmented, rare classes more often."""
        labels, plan = self.labels[Split.TRAIN], self.plan
        augment = augmentation(plan.augment, plan.height, plan.width, plan.seed)
        generator = torch.Generator().manual_seed(plan.seed)
        sampler = WeightedRandomSampler(balancing_weights(labels).tolist(), len(labels), generator=generator)
        whole_batches = len(labels) >= plan.batch_size
        return self._loader(Split.TRAIN, augment, sampler=sampler, drop_last=whole_batches)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """In order, as they are."""
        return self._loader(Split.VALIDATION, None)

    def _loader(self, side: Split, augment: Augment | None, **options: Any) -> DataLoader[tuple[Tensor, int]]:
        return DataLoader(
            PictureSet(self.images[side], self.labels[side], augment),
            batch_size=self.plan.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            **options,
        )


def balancing_weights(labels: NDArray[np.int64], power: float = BALANCE) -> NDArray[np.float64]:
    """Sampling weight per picture, ``count(class) ** -power`` (Mahajan et al. 2018 use 0.5)."""
    counts = np.bincount(labels)
    weights: NDArray[np.float64] = counts[labels].astype(np.float64) ** -power
    return weights
