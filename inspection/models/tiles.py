"""How the tiles of a picture become one answer: learnt together, judged by the worst.

Invariant: a picture of one tile has its tile's answer, to the bit.
"""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Rows = TypeVar("Rows", NDArray[np.float32], Tensor)


def pooled(logits: Tensor, counts: Sequence[int]) -> Tensor:
    """Logits of tiles ``[M, K]`` (margins over the good class, as `network.pool` gives them), of which each picture has the
    next ``counts[i]``, to those of the pictures ``[len(counts), K]``: the mean odds, as over the locations of one tile."""
    if len(counts) == len(logits):
        return logits
    together = torch.split(logits.float(), list(counts))
    return torch.stack([torch.logsumexp(some, 0) - math.log(len(some)) for some in together])


def worst_tile(scores: Rows, tiles: int, good_index: int) -> Rows:
    """Class scores ``[N * tiles, K]`` of N pictures' tiles to those of the pictures ``[N, K]``: those of the tile that is
    least good, the one a device decides by (`inspection.contracts.decide.worst`, with one band for any defect)."""
    rows = scores.reshape(-1, tiles, scores.shape[-1])
    return rows[list(range(len(rows))), rows[:, :, good_index].argmin(1)]
