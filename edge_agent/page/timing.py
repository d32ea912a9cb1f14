"""How long parts take: the newest thousand for percentiles, and a histogram of all for Prometheus.

Invariant: one thread writes and never waits; readers take copies that the interpreter makes whole.
"""

from bisect import bisect_left
from itertools import accumulate

BOUNDS_SECONDS = (0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0)
_KEPT = 1000


class CycleTimes:
    """Seconds per part, from the picture to its verdict."""

    def __init__(self) -> None:
        self._newest = [0.0] * _KEPT
        self._count = 0
        self._buckets = [0] * (len(BOUNDS_SECONDS) + 1)
        self._sum = 0.0

    def note(self, seconds: float) -> None:
        """One more part."""
        self._newest[self._count % _KEPT] = seconds
        self._count += 1
        self._buckets[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self._sum += seconds

    def percentile(self, share: float) -> float | None:
        """Seconds that ``share`` (0 to 1) of the newest thousand parts did not exceed, or None before the first part."""
        count = min(self._count, _KEPT)
        ordered = sorted(self._newest[:count])
        return ordered[min(count - 1, int(share * count))] if count else None

    def histogram(self) -> tuple[list[tuple[str, int]], float]:
        """Cumulated counts by upper bound (the last one ``+Inf``), and the sum in seconds."""
        names = [*(f"{bound:g}" for bound in BOUNDS_SECONDS), "+Inf"]
        return list(zip(names, accumulate(list(self._buckets)), strict=True)), self._sum
