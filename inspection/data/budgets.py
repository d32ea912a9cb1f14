"""A snapshot as if fewer pictures had been labelled: what a learning curve is made of.

Invariant: with one seed a larger budget holds all pictures of a smaller one; the other sides stay whole.
"""

import logging
from collections.abc import Sequence

import numpy as np

from inspection.data.snapshot_record import Snapshot, Split
from inspection.errors import UsageError

log = logging.getLogger(__name__)


def telling(snapshot: Snapshot, budgets: Sequence[int | None]) -> list[int | None]:
    """The budgets that differ, smallest first: one that no class has more training pictures than is all of them (None).

    UsageError below one picture of each.
    """
    labels = [e.label for e in snapshot.of(Split.TRAIN)]
    largest = max((labels.count(name) for name in snapshot.classes), default=0)
    for budget in budgets:
        _check(budget)
        if budget is not None and budget >= largest:
            log.warning("no class has more than %d training pictures: a budget of %d is all of them", largest, budget)
    less = sorted({budget for budget in budgets if budget is not None and budget < largest})
    whole: list[int | None] = [None] if any(budget is None or budget >= largest for budget in budgets) else []
    return [*less, *whole]


def _check(budget: int | None) -> None:
    if budget is not None and budget < 1:
        raise UsageError(f"a budget of {budget} pictures of each class teaches nothing: give 1 or more, or all")


def within(snapshot: Snapshot, per_class: int | None, seed: int) -> Snapshot:
    """``per_class`` training pictures of each class, or as many as it has; None: the snapshot itself.

    UsageError below one picture of each.
    """
    _check(per_class)
    if per_class is None:
        return snapshot
    kept = set()
    for number, name in enumerate(snapshot.classes):
        own = [e.picture for e in snapshot.of(Split.TRAIN) if e.label == name]
        order = np.random.default_rng((seed, number)).permutation(len(own))
        kept |= {own[i] for i in order[:per_class]}
    examples = [e for e in snapshot.examples if e.split is not Split.TRAIN or e.picture in kept]
    return snapshot.model_copy(update={"examples": examples})
