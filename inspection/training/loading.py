"""Batches for training: cached uint8 pictures, or tiles of them, and class indices, rare classes shown more often.

A device judges a tiled frame by its worst tile. So what is learnt is tiles: each by itself where its class is known, and
together, by the mean of their odds, where it is only known that one of them shows the defect (multiple-instance learning;
Pinheiro and Collobert 2015 pool locations alike).
"""

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from inspection.contracts import WHOLE, Framed, tile_count
from inspection.data.product import TrainPlan
from inspection.data.snapshot_record import Example, Snapshot, Split
from inspection.errors import UsageError
from inspection.models.preprocess import Preprocess
from inspection.training.augment import Augmentation
from inspection.training.cache import UNCLEAR, Pictures, Working, Workshop, working_pictures
from inspection.training.draws import AS_IT_IS, Draw, EachOnce, TrainingDraws

Item = tuple[Tensor, int, Tensor]
"""Tiles uint8 ``[c, 3, h, w]`` BGR, the class index they have together, places uint8 ``[c, h, w]``."""
Batch = tuple[Tensor, Tensor, Tensor, list[int]]
"""Tiles ``[M, 3, h, w]``, class indices ``[B]``, places ``[M, h, w]``, and how many tiles each of the B has."""
STEPS_FROM_LABELS = 48  # an epoch has at least: small sets take small batches, steps are what they lack (README.md)
STEPS_FROM_TEACHER = 24  # a teacher's answers say more than labels, and small networks are slow on small batches
STEPS_FROM_WEIGHTS = 8  # learnt from other pictures: small batches spoil them (README.md)
MIN_BATCH = 8
BALANCE = 0.5  # 0: as collected, 1: every class equally often; between, a handful of pictures is not learnt by heart


@dataclass(frozen=True)
class Portions:
    """What can be shown: neighbouring tiles that have one class together. ``first`` and ``count`` int64 ``[P]`` are rows of
    the working pictures, ``labels`` int64 ``[P]`` class indices."""

    first: NDArray[np.int64]
    count: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def whole_pictures(labels: NDArray[np.int64], tiles: int) -> Portions:
    """Every picture with all its tiles, as a device judges it. ``labels`` int64 ``[N]``."""
    return Portions(np.arange(len(labels)) * tiles, np.full(len(labels), tiles), labels)


def teachable(labels: NDArray[np.int64], tile_labels: NDArray[np.int64], good_index: int) -> Portions:
    """Every tile whose class is known by itself; all tiles of a defective picture together where none shows the defect for
    certain (nobody drew a box): then one of them does. ``labels`` int64 ``[N]``, ``tile_labels`` int64 ``[N * T]``."""
    tiles = len(tile_labels) // len(labels)
    by_picture = tile_labels.reshape(-1, tiles)
    hidden = (labels != good_index) & ~((by_picture != UNCLEAR) & (by_picture != good_index)).any(1)
    alone = np.flatnonzero((tile_labels != UNCLEAR) & np.repeat(~hidden, tiles))
    together = np.flatnonzero(hidden)
    first = np.concatenate([alone, together * tiles])
    count = np.concatenate([np.ones_like(alone), np.full_like(together, tiles)])
    order = np.argsort(first, kind="stable")
    return Portions(first[order], count[order], np.concatenate([tile_labels[alone], labels[together]])[order])


class PictureSet(Dataset[Item]):
    """A `Draw` of a portion to an `Item`."""

    def __init__(self, working: Working, portions: Portions, augment: Augmentation | None) -> None:
        self.working, self.portions, self.augment = working, portions, augment

    def __len__(self) -> int:
        return len(self.portions)

    def __getitem__(self, draw: Draw) -> Item:
        index, number = draw
        first, count = int(self.portions.first[index]), int(self.portions.count[index])
        # Copies: the files behind them are read-only.
        images, places = (np.array(a[first : first + count]) for a in (self.working.images, self.working.places))
        if self.augment is not None and number != AS_IT_IS:
            for tile in range(count):
                images[tile], places[tile] = self.augment(images[tile], places[tile], number, *[tile] * (count > 1))
        return torch.from_numpy(images).permute(0, 3, 1, 2), int(self.portions.labels[index]), torch.from_numpy(places)


def collate(items: Sequence[Item]) -> Batch:
    """Tiles of all items one after the other."""
    images, labels, places = zip(*items, strict=True)
    return torch.cat(images), torch.tensor(labels), torch.cat(places), [len(some) for some in images]


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
        self.portions: dict[Split, Portions] = {}

    def _indices(self, examples: Sequence[Example]) -> NDArray[np.int64]:
        place = {name: index for index, name in enumerate(self.snapshot.classes)}
        if unknown := sorted({e.label for e in examples} - place.keys()):
            raise UsageError(f"the snapshot has pictures labelled {unknown[0]!r}, a class it does not list")
        if len(examples) < 2:
            raise UsageError("training needs pictures on the training and the validation side: label more parts")
        return np.asarray([place[e.label] for e in examples], dtype=np.int64)

    def decode(self, pictures: Pictures, workdir: Path, framed: Framed = WHOLE) -> None:
        """Decode and resize every picture, or every tile of it, once."""
        snapshot = self.snapshot
        workshop = Workshop(self.preprocess, snapshot.classes, snapshot.good_class, framed)
        for side in self.labels:
            self.working[side] = working_pictures(self.snapshot.of(side), pictures, workshop, workdir)
        good_index = snapshot.classes.index(snapshot.good_class)
        training, validation = self.labels[Split.TRAIN], self.labels[Split.VALIDATION]
        self.portions[Split.TRAIN] = teachable(training, self.working[Split.TRAIN].labels, good_index)
        self.portions[Split.VALIDATION] = whole_pictures(validation, tile_count(framed))

    def draws(self, devices: int = 1) -> TrainingDraws:
        """Which portions each step is shown: rare classes more often; about as many tiles as there would be pictures.
        Several devices share them, in smaller batches of a small set (`MIN_BATCH` each at least), so that its epoch keeps
        its steps as far as it can."""
        portions = self.portions[Split.TRAIN]
        size = batch_size(len(portions) // devices, self.plan.batch_size, self.steps)
        tiles = round(float(portions.count.mean()))
        return TrainingDraws(balancing_weights(portions.labels), max(2, size // tiles), self.plan.seed)

    def train_dataloader(self, draws: TrainingDraws) -> DataLoader[Item]:
        """Those, augmented."""
        plan = self.plan
        augment = Augmentation(plan.augment, plan.height, plan.width, plan.seed)
        return DataLoader(batch_sampler=draws, **self._options(Split.TRAIN, augment))

    def val_dataloader(self) -> DataLoader[Item]:
        """Whole pictures in order, as they are."""
        portions = self.portions[Split.VALIDATION]
        each = EachOnce(len(portions), max(1, self.plan.batch_size // int(portions.count[0])))
        return DataLoader(batch_sampler=each, **self._options(Split.VALIDATION, None))

    def _options(self, side: Split, augment: Augmentation | None) -> dict[str, Any]:
        return {
            "dataset": PictureSet(self.working[side], self.portions[side], augment),
            "collate_fn": collate,
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "worker_init_fn": _on_one_core,
            "multiprocessing_context": _fresh_processes() if self.num_workers else None,
            "pin_memory": torch.cuda.is_available(),
            "generator": torch.Generator(),  # else each epoch takes a number out of the stream that a network draws from
        }


def _on_one_core(_: int) -> None:
    """Its neighbours have the other cores."""
    cv2.setNumThreads(1)


def _fresh_processes() -> BaseContext:
    """Forked from a process that has imported what they need and done nothing: in one that is forked from a training OpenCV
    waits for ever for threads that did not come along."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def batch_size(portions: int, largest: int, steps: int) -> int:
    """Portions per step: ``largest``, or fewer where an epoch would have less than ``steps`` steps."""
    return min(largest, max(MIN_BATCH, portions // steps))


def balancing_weights(labels: NDArray[np.int64], power: float = BALANCE) -> NDArray[np.float64]:
    """Sampling weight per portion, ``count(class) ** -power`` (Mahajan et al. 2018 use 0.5)."""
    counts = np.bincount(labels)
    weights: NDArray[np.float64] = counts[labels].astype(np.float64) ** -power
    return weights
