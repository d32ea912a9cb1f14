"""What good pictures are like, learnt from a snapshot's good training pictures for a network that stays as it is."""

import random
from collections.abc import Sequence

import numpy as np
import torch

from inspection.data.product import StudentPlan
from inspection.data.snapshot_record import RARE_CLASS, Example, Snapshot, Split
from inspection.models.network import InspectionNet
from inspection.models.novelty import Novelty, learn_novelty
from inspection.stages.material import Frames, Material

ENOUGH_PARTS = 24
"""Good training parts that a guard is learnt from by itself: of 40 labelled ones, with which a cold start begins."""
MOST_FRAMES = 500
"""Frames learnt from at most: at 224 px their features take a gigabyte while it learns (models/README.md)."""


def is_guarded(plan: StudentPlan, snapshot: Snapshot) -> bool:
    """Whether the device's file says how novel a picture is, and doubts those unlike all it has learnt.

    Where ``plan`` leaves it open: while labelled classes are too rare to be learnt, for which nothing else would watch once
    a classifier has taken over from a cold start; not with fewer good training parts than a cold start begins with.
    """
    if plan.novelty_guard is not None:
        return plan.novelty_guard
    good = {e.part for e in snapshot.of(Split.TRAIN) if e.label == snapshot.good_class}
    return len(good) >= ENOUGH_PARTS and bool(rare_pictures(snapshot))


def rare_pictures(snapshot: Snapshot) -> int:
    """How many labelled pictures show classes that have too few to be learnt: left out, or golden."""
    unlearnt = sum(e.label not in snapshot.classes for e in snapshot.examples)
    return unlearnt + sum(one.reason == RARE_CLASS for one in snapshot.refused)


def learn_good(material: Material, net: InspectionNet) -> Novelty:
    """The novelty of ``net``'s features, from good training pictures alone. UsageError with too few parts.

    More than `MOST_FRAMES` frames are sampled (`sampled`), the same ones by the plan's seed, and decoded one picture at a
    time.
    """
    good = [e for e in material.of(Split.TRAIN) if e.label == material.product.good_class]
    seed, tiles = material.product.train.seed, material.tiles
    chosen, places = sampled(good, tiles, seed)
    parts = [chosen[place // tiles].part for place in places]
    known = set(parts)
    there = tiles * sum(e.part in known for e in good)
    frames = Frames(chosen, material.picture, material.product, places)
    # One by one: pictures of one product may differ in size.
    batches = (torch.from_numpy(np.ascontiguousarray(frame))[None] for frame in frames)
    return learn_novelty(net, batches, parts, times=there / max(1, len(parts)), seed=seed)


def sampled(good: Sequence[Example], tiles: int, seed: int) -> tuple[list[Example], list[int]]:
    """At most `MOST_FRAMES` of the pictures, in a random order, and the places of at most as many of their tiles, as
    `Frames` counts them: of each picture equally many, so that a fine grid leaves no part out for the tiles of others."""
    rng = random.Random(seed)  # noqa: S311 - a sample, not a secret
    chosen = rng.sample(good, len(good))[:MOST_FRAMES]
    each = min(tiles, MOST_FRAMES // max(1, len(chosen)))
    places = [number * tiles + tile for number in range(len(chosen)) for tile in sorted(rng.sample(range(tiles), each))]
    return chosen, places
