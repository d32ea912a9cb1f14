"""Has something changed at a station: its defect scores, or its share of ERROR verdicts, recent against earlier.

Both tests ask for a practical size as well as significance: with thousands of verdicts the smallest shift is
"significant", and neighbouring parts are not independent, so a p-value alone would cry wolf.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

MIN_SCORES = 50
MIN_DISTANCE = 0.25  # Kolmogorov-Smirnov distance, in [0, 1]
MAX_P_SCORES = 1e-4
MIN_ERROR_SHARE = 0.05
MAX_P_ERRORS = 1e-3


@dataclass(frozen=True)
class Shift:
    """Two samples of defect scores compared: their KS distance in [0, 1], its p-value, and both medians."""

    distance: float
    p_value: float
    recent_median: float
    earlier_median: float


def score_shift(recent: Sequence[float], earlier: Sequence[float]) -> Shift | None:
    """Two-sample Kolmogorov-Smirnov test of defect scores in [0, 1]; None with fewer than 50 on either side, or no shift.

    The asymptotic p-value is used (both sides have at least 50).
    """
    if min(len(recent), len(earlier)) < MIN_SCORES:
        return None
    found = stats.ks_2samp(recent, earlier, method="asymp")
    distance, p_value = float(found.statistic), float(found.pvalue)
    if distance < MIN_DISTANCE or p_value > MAX_P_SCORES:
        return None
    return Shift(distance, p_value, float(np.median(recent)), float(np.median(earlier)))


def errors_rose(recent_errors: int, recent: int, earlier_errors: int, earlier: int) -> bool:
    """One-sided Fisher exact test that the share of ERROR rose, and is at least 5 % now.

    Counts, ``errors <= total``. With nothing earlier only the share decides (from 20 verdicts on).
    """
    if recent == 0 or recent_errors / recent < MIN_ERROR_SHARE:
        return False
    if earlier == 0:
        return recent >= 20
    table = [[recent_errors, recent - recent_errors], [earlier_errors, earlier - earlier_errors]]
    return bool(stats.fisher_exact(table, alternative="greater").pvalue <= MAX_P_ERRORS)
