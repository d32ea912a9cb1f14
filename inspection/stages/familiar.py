"""What good pictures are like, learnt from a snapshot's good training pictures for a network that stays as it is."""

import random
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from inspection.data.snapshot_record import Split
from inspection.models.network import InspectionNet
from inspection.models.novelty import Novelty, learn_novelty
from inspection.stages.material import Material

MOST_FRAMES = 500
"""Frames learnt from at most: at 224 px their features take a gigabyte while it learns (models/README.md)."""


def learn_good(material: Material, net: InspectionNet) -> Novelty:
    """The novelty of ``net``'s features, from good training pictures alone. UsageError with too few parts.

    More pictures than `MOST_FRAMES` frames are sampled, the same ones by the plan's seed.
    """
    good = [e for e in material.of(Split.TRAIN) if e.label == material.product.good_class]
    seed = material.product.train.seed
    frames: list[NDArray[np.uint8]] = []
    parts: list[str] = []
    for example in random.Random(seed).sample(good, len(good)):  # noqa: S311 - a sample, not a secret
        if len(frames) >= MOST_FRAMES:
            break
        shown = material.frames([example])  # several, where a picture is cut into tiles
        frames += shown
        parts += [example.part] * len(shown)
    return learn_novelty(net, _batches(frames), parts, seed=seed)


def _batches(frames: list[NDArray[np.uint8]]) -> Iterator[torch.Tensor]:
    """One by one: pictures of one product may differ in size."""
    for frame in frames:
        yield torch.from_numpy(np.ascontiguousarray(frame))[None]
