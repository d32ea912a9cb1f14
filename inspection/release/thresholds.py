"""Thresholds: from validation scores to a recipe with one band on the total defect score.

Invariants: thresholds lie strictly between observed scores and strictly inside (0, 1), so none rests on a single picture's
last digit; only validation scores are read, never golden ones; ``inconclusive <= ng``.

The rule. A candidate threshold is the middle of the gap between two neighbouring scores (and of the gaps to 0 and to 1).
1. ``ng`` is the candidate whose gap holds the score at which rejecting costs as much as passing by a logistic fit of all
   validation scores (Platt 1999; the defects' share of the line weighs in), where it is within both limits on validation.
   Two numbers fitted to every part vary less than the place of the last defective one.
   Otherwise, or where there is no such fit, it is the candidate of least expected cost among those within both limits, or,
   when none is, of least cost among all (the gate will then say so). Equal costs: the widest gap.
2. ``inconclusive`` is at first the lower quarter of the gap that holds ``ng``: no validation part is there, so a score
   there is unlike anything seen. Where validation escape at ``ng`` is above its limit (no candidate meets both), the edge
   moves down to the lowest candidate whose validation overkill is within its limit: doubtful parts go to people instead of
   passing, and everything that is not OK counts as a rejection.
3. Where the edge lies above the threshold that `guarantee` gives for the limit on escapes, it moves down to that one, if
   the exact upper bound of validation overkill there is within its limit (as the gates will ask of golden parts; a rate
   just within it would buy the promise with a gate's answer), or if no further good part is rejected: the promise is bought
   with doubtful parts that go to people. Otherwise the edge stays, and the recipe says how little it promises.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from inspection.contracts import ANY_DEFECT, Band, Limits, Promise, Recipe
from inspection.data.product import Product
from inspection.errors import UsageError
from inspection.release.guarantee import Guarantee, guarantee, promise
from inspection.release.scorecard import upper_bound

_LEAST = 1e-6  # scores nearer to 0 or 1 are all the same to the fit
Floats = npt.NDArray[np.float64]
Truth = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sweep:
    """Escape and overkill of every candidate threshold: ascending float64 arrays of one length.

    ``low`` and ``high`` are the ends of the gap a threshold halves; ``escapes`` and ``overkills`` are counts.
    """

    low: Floats
    high: Floats
    escapes: Floats
    overkills: Floats
    defective: int
    good: int

    @property
    def thresholds(self) -> Floats:
        """The candidates: reject from there on. The upper end, where no number lies between the two."""
        middle = (self.low + self.high) / 2
        return np.where(middle > self.low, middle, self.high)

    @property
    def escape_rate(self) -> Floats:
        """Share of defective parts below each threshold (0 where there are none)."""
        return self.escapes / max(1, self.defective)

    @property
    def overkill_rate(self) -> Floats:
        """Share of good parts at or above each threshold (0 where there are none)."""
        return self.overkills / max(1, self.good)


def sweep(scores: Floats, defective: Truth) -> Sweep:
    """All candidate thresholds of defect scores ``[N]`` in [0, 1] with their truth ``[N]``. UsageError on N = 0."""
    if scores.size == 0:
        raise UsageError("there are no validation scores to set a threshold on: the snapshot's validation side is empty")
    points = np.unique(np.concatenate([[0.0], np.clip(scores, 0.0, 1.0), [1.0]]))
    low, high = points[:-1], points[1:]
    bad, good = np.sort(scores[defective]), np.sort(scores[~defective])
    return Sweep(
        low=low,
        high=high,
        escapes=np.searchsorted(bad, high, side="left").astype(np.float64),
        overkills=(good.size - np.searchsorted(good, high, side="left")).astype(np.float64),
        defective=int(bad.size),
        good=int(good.size),
    )


def _even(scores: Floats, defective: Truth, log_odds: float) -> float | None:
    """The score whose fitted log-odds of a defect are ``log_odds``; None without parts of both kinds, or when the fit says
    that defective parts score lower."""
    from sklearn.linear_model import LogisticRegression

    if defective.all() or not defective.any():
        return None
    fitted = LogisticRegression().fit(logit(np.clip(scores, _LEAST, 1 - _LEAST))[:, None], defective)
    slope, offset = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    return float(expit((log_odds - offset) / slope)) if slope > 0 else None


def _choose_ng(curve: Sweep, limits: Limits, cost: Floats, even: float | None) -> int:
    allowed = (curve.escape_rate <= limits.escape_rate) & (curve.overkill_rate <= limits.overkill_rate)
    if even is not None:
        holds = min(int(np.searchsorted(curve.high, even)), len(curve.high) - 1)
        if allowed[holds]:
            return holds
    if not allowed.any():
        allowed = np.ones_like(allowed)
    cheapest = np.isclose(cost, cost[allowed].min()) & allowed
    return int(np.argmax(np.where(cheapest, curve.high - curve.low, -1.0)))


def _inconclusive(curve: Sweep, limits: Limits, ng: int) -> float:
    quarter = float(curve.low[ng] + (curve.high[ng] - curve.low[ng]) / 4)
    free = quarter if quarter > curve.low[ng] else float(curve.thresholds[ng])
    affordable = np.flatnonzero(curve.overkill_rate[:ng] <= limits.overkill_rate)
    if curve.escape_rate[ng] <= limits.escape_rate or not affordable.size:
        return free
    return float(curve.thresholds[affordable[0]])


def _by_part(scores: Floats, defective: Truth, parts: Sequence[str]) -> tuple[Floats, Truth]:
    """The worst picture speaks for its part."""
    names, index = np.unique(np.asarray(parts), return_inverse=True)
    worst, bad = np.zeros(len(names)), np.zeros(len(names), dtype=bool)
    np.maximum.at(worst, index, scores)
    np.logical_or.at(bad, index, defective)
    return worst, bad


def calibrate(
    scores: npt.NDArray[np.floating],
    labels: Sequence[str],
    classes: Sequence[str],
    product: Product,
    *,
    version: int,
    parts: Sequence[str] | None = None,
    defect_share: float | None = None,
) -> Recipe:
    """A recipe from validation scores by the module's rule.

    ``scores``: ``[N, K]`` class probabilities, columns in the order of ``classes``; ``labels``: N true classes (one that
    is not in ``classes`` is a defect all the same); ``parts``: N part names, when a part may have several pictures;
    ``defect_share``: share of defective parts expected on the line, for the expected cost (None: as in validation).
    Raises UsageError on no scores, on shapes that do not fit, and when ``classes`` lacks the good class.
    """
    values = np.asarray(scores, dtype=np.float64)
    if product.good_class not in classes:
        raise UsageError(f"model of {product.name!r} knows {list(classes)} but not the good class {product.good_class!r}")
    if values.shape != (len(labels), len(classes)):
        raise UsageError(f"scores have shape {values.shape}, but there are {len(labels)} labels and {len(classes)} classes")
    total = np.clip(1.0 - values[:, list(classes).index(product.good_class)], 0.0, 1.0)
    bad = np.asarray([label != product.good_class for label in labels], dtype=bool)
    if parts is not None:
        total, bad = _by_part(total, bad, parts)
    band, promised = _band(total, bad, product, defect_share)
    return Recipe(
        product=product.name,
        version=version,
        good_class=product.good_class,
        region=product.region,
        tiling=product.tiling,
        thresholds={ANY_DEFECT: band},
        limits=product.limits,
        costs=product.costs,
        promise=promised,
    )


def _band(scores: Floats, defective: Truth, product: Product, defect_share: float | None) -> tuple[Band, Promise]:
    curve, costs = sweep(scores, defective), product.costs
    here = curve.defective / (curve.defective + curve.good)
    share = here if defect_share is None else defect_share
    cost = costs.escape * share * curve.escape_rate + costs.overkill * (1 - share) * curve.overkill_rate
    even = None
    if 0 < here < 1 and 0 < share < 1 and costs.escape > 0 and costs.overkill > 0:
        rarer = float(logit(here) - logit(share))  # the fit has seen the validation side's share of defects
        even = _even(scores, defective, rarer + math.log(costs.overkill / costs.escape))
    ng = _choose_ng(curve, product.limits, cost, even)
    found = guarantee(curve.thresholds, curve.escapes, curve.defective, product.limits)
    edge, promised = _promised(curve, _inconclusive(curve, product.limits, ng), found)
    return Band(inconclusive=edge, ng=float(curve.thresholds[ng])), promised


def _promised(curve: Sweep, edge: float, found: Guarantee) -> tuple[float, Promise]:
    """The edge, moved down to what is guaranteed where that is affordable, and what is promised of it."""
    price = None
    if found.threshold is not None:
        price = int(curve.overkills[np.searchsorted(curve.thresholds, found.threshold)])
        bound = upper_bound(price, curve.good, found.limits.confidence)
        if bound <= found.limits.overkill_rate or price <= curve.overkills[_gap(curve, edge)]:
            edge = min(edge, found.threshold)
    return edge, promise(found, edge, int(curve.escapes[_gap(curve, edge)]), good=curve.good, price=price)


def _gap(curve: Sweep, edge: float) -> int:
    """The gap between scores that a threshold lies in."""
    return int(np.searchsorted(curve.high, edge))
