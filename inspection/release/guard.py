"""From how novel held-out good parts are to the limit a recipe turns pictures away from. Pure.

A part's novelty is that of its most novel picture. The log-odds of good parts' novelty follow a Gumbel distribution, the
limit law of maxima (Gumbel 1935), fitted to parts that neither the network nor the novelty has learnt from.

Invariant: the limit is never below what the novelty's own calibration states for the share, so that a lucky draw of few
parts does not turn away more than was meant.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.special import expit, logit

GUARD_SHARE = 0.002
"""Share of good parts a guard may turn INCONCLUSIVE beside what the scores reject."""
STATED_SHARE = 0.01
"""Share of good parts that a novelty of 0.5 is reached by (`inspection.models.novelty`)."""
LEAST_FITTED = 10
"""Held-out parts without which nothing is fitted."""
_CLIP = 1e-6
_LEAST_SPREAD = 1e-6


def stated_limit(share: float) -> float:
    """The novelty that ``share`` of good parts reach by the novelty's own calibration (0 < share < 1)."""
    return float(expit(stats.gumbel_r.isf(share) - stats.gumbel_r.isf(STATED_SHARE)))


def unfamiliar_limit(
    novelty: npt.NDArray[np.floating] | Sequence[float], parts: Sequence[str], share: float = GUARD_SHARE
) -> float:
    """`Recipe.unfamiliar` for which about ``share`` of unseen good parts are turned away, in (0, 1].

    ``novelty``: N values in [0, 1] of good pictures on ``parts``, held out from all learning. With fewer than
    `LEAST_FITTED` parts nothing is fitted: the novelty's own calibration stands.
    """
    stated = stated_limit(share)
    worst: dict[str, float] = {}
    for part, value in zip(parts, novelty, strict=True):
        worst[part] = max(worst.get(part, 0.0), float(value))
    if len(worst) < LEAST_FITTED:
        return stated
    odds = logit(np.clip(list(worst.values()), _CLIP, 1 - _CLIP))
    if np.ptp(odds) < _LEAST_SPREAD:
        return max(stated, float(expit(odds.max())))
    return max(stated, float(expit(stats.gumbel_r.isf(share, *stats.gumbel_r.fit(odds)))))
