"""Guarantee: what validation parts promise about the escapes below a threshold, before any golden part is looked at. Pure.

Invariants: parts are counted, never pictures; one more miss never raises a threshold nor lowers a promised rate; the
sentence a recipe carries is false with a probability of at most ``1 - confidence`` over the draw of the defective parts,
however the threshold in force was chosen from them.

How. Candidate thresholds are tested from the strictest (lowest) up, each for "more than the limit escapes below it", by its
exact binomial p-value; the last before the first that is not rejected is the largest the limit can be promised for
(fixed-sequence test: A. Angelopoulos, S. Bates, E. Candès, M. Jordan, L. Lei, "Learn then Test", 2021, section 4.2). Fewer
parts escape below a lower threshold, so the candidates may be the very parts' scores, and any lower threshold, chosen in
whatever way, keeps the promise: misses only count up to the first candidate above the limit (S. Bates et al.,
"Distribution-Free, Risk-Controlling Prediction Sets", J. ACM 2021, theorem A.1, is the same argument).

A threshold above that one was chosen by looking at the parts: its own Clopper-Pearson bound says too little, as the bound
would have to hold for all thresholds at once. It does, by the union bound over the numbers of misses that may be seen:
the j-th number above those the limit allows gets the share 1 / (j (j + 1)) of the risk (together 1; D. Foster and
R. Stine, "alpha-investing", JRSS B 2008, call it spending). So that both sentences together keep the level, the limit is
tested at `_FOR_THE_LIMIT` of the risk and what is left is spent; where there are too few parts for the limit whatever they
score, all of it is spent. The price: 154 parts without a miss for 2 % at 95 %, where the limit alone would take 149.

Assumed: validation parts are exchangeable with those of the line, and their scores come from a network that has not learnt
from them. Early stopping picks its best epoch by them, and of the float and the int8 file one is chosen by them, which both
flatters a little: the promise says what thresholds may hope for; gates 1 and 2, on golden parts, remain the judge.

Not used: conformal risk control (A. Angelopoulos et al., ICLR 2024), which promises the *mean* over all calibrations to be
within the limit and so needs fewer parts (0 misses of 49 for 2 %). A factory calibrates once: after 0 misses of 49 the line
lets more than 2 % through in 37 of 100 factories, which is not what a limit means to those who set it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from inspection.contracts import Limits, Promise
from inspection.release.gate import parts_needed
from inspection.release.scorecard import upper_bound

_FOR_THE_LIMIT = 0.9

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Guarantee:
    """What ``parts`` defective validation parts can promise of ``limits.escape_rate``.

    ``threshold``: the largest candidate that holds the limit; None when none does. ``allowed``: so many misses still hold
    it; None when not even none does, or when the limit asks for nothing (1).
    """

    limits: Limits
    parts: int
    threshold: float | None
    allowed: int | None

    @property
    def risk(self) -> float:
        """The part of ``1 - confidence`` at which the limit is tested."""
        return _FOR_THE_LIMIT * (1 - self.limits.confidence)

    @property
    def best(self) -> float:
        """The least rate that could be promised, by parts without a miss."""
        return upper_bound(0, self.parts, 1 - self.risk)

    @property
    def need_more(self) -> int:
        """How many further parts without a miss make the limit one that can be promised; 0 where no number does."""
        limit = self.limits.escape_rate
        return parts_needed(0, self.parts, limit, 1 - self.risk) if 0 < limit < 1 else 0

    def rate_below(self, misses: int) -> float:
        """The escape rate promised for a threshold with so many misses below it, whichever way it was chosen."""
        if self.allowed is not None and misses <= self.allowed:
            return self.limits.escape_rate
        left = 1 - self.limits.confidence - (self.risk if self.allowed is not None else 0.0)
        number = misses - (-1 if self.allowed is None else self.allowed)
        return upper_bound(misses, self.parts, 1 - left / (number * (number + 1)))


def guarantee(thresholds: Floats, misses: Floats, parts: int, limits: Limits) -> Guarantee:
    """The largest threshold below which, at the limits' confidence, at most ``limits.escape_rate`` of defective parts are.

    ``thresholds``: ``[N]`` candidates, ascending; ``misses``: ``[N]`` how many of the ``parts`` defective validation parts
    score below each.
    """
    risk = _FOR_THE_LIMIT * (1 - limits.confidence)
    held = np.logical_and.accumulate(binom.cdf(misses, parts, limits.escape_rate) <= risk)
    allowed = int(np.count_nonzero(binom.cdf(np.arange(parts + 1), parts, limits.escape_rate) <= risk)) - 1
    return Guarantee(
        limits=limits,
        parts=parts,
        threshold=float(thresholds[np.flatnonzero(held)[-1]]) if held.any() else None,
        allowed=allowed if allowed >= 0 and limits.escape_rate < 1 else None,
    )


def promise(found: Guarantee, edge: float, misses: int, *, good: int, price: int | None) -> Promise:
    """What is promised of the threshold in force: parts pass below ``edge``, as ``misses`` of the defective ones do.

    ``price``: how many of the ``good`` validation parts the threshold of `guarantee` rejects, for the words (None: there is
    no such threshold).
    """
    rate = found.rate_below(misses)
    words = f"with {found.limits.confidence:.0%} confidence at most {_percent(rate)} of defective parts score below "
    words += f"{edge:.3f} and pass, shown by {misses} of {found.parts} defective validation parts"
    if found.allowed is None or misses > found.allowed:
        words = "; ".join(filter(None, [_why_not(found, good, price), words if found.parts else ""]))
    return Promise(
        edge=edge,
        escape_rate=rate,
        confidence=found.limits.confidence,
        misses=misses,
        parts=found.parts,
        within_limit=rate <= found.limits.escape_rate,
        words=words,
    )


def _why_not(found: Guarantee, good: int, price: int | None) -> str:
    limit, limits = _percent(found.limits.escape_rate), found.limits
    if not found.parts:
        more = f": need {found.need_more}" if found.need_more else ""
        return f"without defective validation parts nothing is promised of escapes{more}"
    if limits.escape_rate >= 1:
        return ""
    if limits.escape_rate == 0:
        return "no number of parts can promise that nothing escapes"
    if found.allowed is None:
        has = f"{found.parts} defective parts can at best promise {_percent(found.best)}, need {found.need_more} more"
        return f"no threshold can promise {limit}: {has}"
    if found.threshold is None or price is None:
        return f"no threshold can promise {limit}: more than {found.allowed} defective parts look perfectly good"
    dear = f"where {price} of {good} good parts are rejected, too many for the limit of {_percent(limits.overkill_rate)}"
    return f"{limit} could be promised below {found.threshold:.3f} only, {dear}"


def _percent(rate: float) -> str:
    return f"{rate:.1%}" if rate >= 0.01 or rate == 0 else f"{rate:.2%}"
