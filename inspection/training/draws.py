"""Which pictures each step is shown: a function of seed, epoch and step alone.

Invariants: a training that goes on after a kill is shown what it would have been shown; the answer does not depend on the
number of worker processes; with several devices each gets its own share of the same draw.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

Draw = tuple[int, int]
"""A portion's index (`inspection.training.loading.Portions`), and the number of the draw since the training began: what its
augmentation is seeded with."""
AS_IT_IS = -1
"""Instead of the number of a draw: not augmented."""


class TrainingDraws(Sampler[list[Draw]]):
    """Batches of at most ``size`` for each device, drawn with ``weights`` float64 ``[N]``, with replacement.

    `set_epoch` (Lightning calls it) draws anew; ``start`` is the step at which the next iteration begins, once.
    """

    def __init__(self, weights: NDArray[np.float64], size: int, seed: int) -> None:
        self._share = weights / weights.sum()
        self._size, self._seed = size, seed
        self.sampler = self  # where Lightning looks for what wants to know of the epoch
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        return max(1, len(self._share) // (self._size * _devices()))

    def set_epoch(self, epoch: int) -> None:
        """From the next iteration on."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[Draw]]:
        count, first, self.start = len(self._share), self.start, 0
        drawn = np.random.default_rng((self._seed, self.epoch)).choice(count, count, p=self._share)
        before = self.epoch * count
        together = self._size * _devices()
        for step in range(first, len(self)):
            places = range(step * together + _rank(), min(count, (step + 1) * together), _devices())
            yield [(int(drawn[place]), before + place) for place in places]


class EachOnce(Sampler[list[Draw]]):
    """All pictures in order and as they are; each device its own share."""

    def __init__(self, count: int, size: int) -> None:
        self._count, self._size = count, size

    def __len__(self) -> int:
        return -(-len(self._own()) // self._size)

    def __iter__(self) -> Iterator[list[Draw]]:
        own = self._own()
        for first in range(0, len(own), self._size):
            yield [(index, AS_IT_IS) for index in own[first : first + self._size]]

    def _own(self) -> range:
        return range(_rank(), self._count, _devices())


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _devices() -> int:
    return torch.distributed.get_world_size() if _distributed() else 1


def _rank() -> int:
    return torch.distributed.get_rank() if _distributed() else 0
