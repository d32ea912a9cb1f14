"""A snapshot as if fewer pictures had been labelled: what a learning curve is made of.

Invariant: with one seed a larger budget holds all pictures of a smaller one; the other sides stay whole.
"""

import numpy as np

from inspection.data.snapshot_record import Snapshot, Split
from inspection.errors import UsageError


def within(snapshot: Snapshot, per_class: int | None, seed: int) -> Snapshot:
    """``per_class`` training pictures of each class, or as many as it has; None: the snapshot itself.

    UsageError below one picture of each.
    """
    if per_class is None:
        return snapshot
    if per_class < 1:
        raise UsageError(f"a budget of {per_class} pictures of each class teaches nothing: give 1 or more, or all")
    kept = set()
    for number, name in enumerate(snapshot.classes):
        own = [e.picture for e in snapshot.of(Split.TRAIN) if e.label == name]
        order = np.random.default_rng((seed, number)).permutation(len(own))
        kept |= {own[i] for i in order[:per_class]}
    examples = [e for e in snapshot.examples if e.split is not Split.TRAIN or e.picture in kept]
    return snapshot.model_copy(update={"examples": examples})
