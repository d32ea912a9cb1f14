"""Networks trained on the same pictures, compared: learning curves with intervals, and what the numbers say in words.

Invariants: every network judges the same parts, of which none taught it or chose it; differences are paired; an interval
covers which parts happened to be judged and which seeds happened to be drawn; of all differences at one budget together at
most one interval in twenty misses, so that the best of many is not best by having been looked for. Pure: trials in,
numbers and words out.

The figure is balanced accuracy: the mean over the classes of the share of pictures named right. Over parts, intervals are
of the Bayesian bootstrap (Rubin, Annals of Statistics 1981): no draw loses a small class. A figure's own interval counts
half a part named right and half a part named wrong more in each class (Jeffreys' prior): all of ten is no certainty. Over
seeds, which are too few to draw from, each draw shifts a network's mean by Student's t (scale: the standard deviation over
seeds, a network's own or that of all, whichever is larger; degrees of freedom: those of all). With one seed nothing is
known of that, and the conclusion says so. Differences have simultaneous intervals by the largest studentized deviation
over all pairs (Hothorn, Bretz and Westfall, "Simultaneous inference in general parametric models", 2008).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import PurePath
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from inspection.errors import UsageError

LEVEL = 0.95
_DRAWS = 4000
_RANDOM = "random weights"
Floats = npt.NDArray[np.float64]
Budget = int | None
"""Training pictures of each class; None: all there are."""


class Trial(BaseModel):
    """One training, and how it named the pictures all trials are judged on (``parts``, ``truth`` and ``named`` row by row).

    ``seconds`` of training; ``pictures`` it was trained on; ``started_from`` says where its first weights came from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str
    family: str
    budget: Budget
    seed: int
    pictures: int
    seconds: float
    started_from: str
    parts: list[str]
    truth: list[str]
    named: list[str]

    @property
    def began(self) -> str:
        """With what weights, in a word or two: of a file, its name alone."""
        first, _, more = self.started_from.removeprefix("pretrained: ").partition("; ")
        where = {"none": _RANDOM, "hub": "the hub's weights"}.get(first, PurePath(first).name)
        return f"{where}; {more}" if more else where


class Device(BaseModel):
    """What a network costs on a device: milliseconds (p50 of processor time, one thread, batch 1) and bytes of the float
    and the int8 file, and what share of pictures the latter names as the former does (None: not known).

    ``why`` it does not count: there is none (its figures are None), or its answers are too different.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str
    float_ms: float
    float_bytes: int
    int8_ms: float | None = None
    int8_bytes: int | None = None
    int8_equal: float | None = None
    why: str = ""

    @property
    def best_ms(self) -> float:
        """Of the faster file that counts."""
        return self.float_ms if self.int8_ms is None or self.why else min(self.float_ms, self.int8_ms)

    @property
    def in_int8(self) -> str:
        """The int8 file's milliseconds, or why there is none."""
        return self.why or "none" if self.int8_ms is None else f"{self.int8_ms:.2f}"


@dataclass(frozen=True)
class Estimate:
    """A figure in [0, 1] with its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%})"


@dataclass(frozen=True)
class Difference:
    """How much better the first is, in points of balanced accuracy, with its simultaneous interval."""

    better: str
    other: str
    points: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether chance does not explain it."""
        return self.low > 0

    def __str__(self) -> str:
        return f"{self.points:.1f} points ({self.low:.1f} to {self.high:.1f})"


@dataclass(frozen=True)
class Standing:
    """All networks at one budget: the figure of each, best first, and the best's lead over each other."""

    budget: Budget
    pictures: int
    figures: dict[str, Estimate]
    leads: list[Difference]

    @property
    def best(self) -> str:
        """The highest figure."""
        return next(iter(self.figures))

    @property
    def level(self) -> list[str]:
        """The best, and those it is not shown to beat."""
        return [self.best, *(lead.other for lead in self.leads if not lead.shown)]


class _Judged(BaseModel):
    """Which parts and classes all trials were judged on."""

    model_config = ConfigDict(frozen=True)

    parts: list[str]
    truth: list[str] = Field(min_length=1)

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> Self:
        found = {(tuple(t.parts), tuple(t.truth)) for t in trials}
        if len(found) != 1:
            raise UsageError("the trials were not judged on the same pictures: they are of different snapshots; run anew")
        ((parts, truth),) = found
        return cls(parts=list(parts), truth=list(truth))


def standings(trials: Sequence[Trial]) -> list[Standing]:
    """One per budget, smallest first. UsageError on trials of different pictures, or where a network lacks a budget or a
    seed that another has."""
    judged = _Judged.of(trials)
    budgets = sorted({t.budget for t in trials}, key=lambda b: (b is None, b or 0))
    names = list(dict.fromkeys(t.backbone for t in trials))
    return [_standing(names, [t for t in trials if t.budget == budget], judged) for budget in budgets]


def _standing(names: Sequence[str], trials: Sequence[Trial], judged: _Judged) -> Standing:
    seeds = sorted({t.seed for t in trials})
    by_key = {(t.backbone, t.seed): t for t in trials}
    if missing := [f"{name} with seed {seed}" for name in names for seed in seeds if (name, seed) not in by_key]:
        at = budget_in_words(trials[0].budget, trials[0].pictures)
        raise UsageError(
            f"the comparison is not complete: {missing[0]}, {at}, is missing; run it again, it goes on where it was"
        )
    right = np.array(
        [[np.equal(by_key[name, seed].named, judged.truth) for seed in seeds] for name in names], dtype=np.float64
    )
    by_seed = _balanced(right.reshape(-1, right.shape[2]), judged, np.ones((1, len(judged.truth)))).reshape(right.shape[:2])
    exact = by_seed.mean(1).round(9)  # equal is equal, whatever the order of a sum
    between = _between_seeds(by_seed)
    drawn = _drawn(right, judged) + between
    order = np.argsort(-exact, kind="stable")
    alone = _drawn(right, judged, prior=0.5) + between
    low, high = np.quantile(alone, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0).clip(0, 1)
    low, high = np.minimum(low, exact), np.maximum(high, exact)
    figures = {names[i]: Estimate(float(exact[i]), float(low[i]), float(high[i])) for i in order}
    return Standing(trials[0].budget, max(t.pictures for t in trials), figures, _leads(names, exact, drawn, order))


def _drawn(right: Floats, judged: _Judged, prior: float = 0.0) -> Floats:
    """Bootstrapped figures ``[draws, networks]`` of ``right [networks, seeds, pictures]``, over parts; ``prior``: parts
    named right, and as many named wrong, that are added to each class."""
    rng = np.random.default_rng(0)  # the same answer every time it is asked
    parts, index = np.unique(judged.parts, return_inverse=True)
    of_pictures = rng.exponential(size=(_DRAWS, len(parts)))[:, index]
    mean = right.mean(1)
    if prior:
        classes = sorted(set(judged.truth))
        shown = [len(own := index[np.equal(judged.truth, name)]) / len(set(own)) for name in classes]  # pictures of a part
        judged = _Judged(parts=judged.parts, truth=[*judged.truth, *classes, *classes])
        mean = np.hstack([mean, np.ones((len(mean), len(classes))), np.zeros((len(mean), len(classes)))])
        of_pictures = np.hstack([of_pictures, rng.gamma(prior, scale=[*shown, *shown], size=(_DRAWS, 2 * len(classes)))])
    return _balanced(mean, judged, of_pictures)


def _between_seeds(by_seed: Floats) -> Floats:
    """By how much other seeds might have moved each network's mean, ``[draws, networks]``; figures ``[networks, seeds]``.

    A network's own deviation over two or three seeds is a guess: where it is the smaller one, that of all is taken.
    """
    networks, seeds = by_seed.shape
    if seeds == 1:
        return np.zeros((_DRAWS, networks))
    rng, freedom = np.random.default_rng(1), networks * (seeds - 1)
    variance = by_seed.var(axis=1, ddof=1)
    scale = np.sqrt(np.maximum(variance, variance.mean()) / seeds)
    student_t = rng.normal(size=(_DRAWS, networks)) / np.sqrt(rng.chisquare(freedom, (_DRAWS, 1)) / freedom)
    moved: Floats = student_t * scale
    return moved


def _balanced(right: Floats, judged: _Judged, of_pictures: Floats) -> Floats:
    """Balanced accuracy ``[draws, networks]`` of ``right [networks, pictures]``, with weights ``[draws, pictures]``."""
    recalls = []
    for name in sorted(set(judged.truth)):
        own = np.equal(judged.truth, name)
        weights = of_pictures[:, own] / of_pictures[:, own].sum(1, keepdims=True)
        recalls.append(weights @ right[:, own].T)
    balanced: Floats = np.mean(recalls, axis=0)
    return balanced


def _leads(names: Sequence[str], exact: Floats, drawn: Floats, order: npt.NDArray[np.intp]) -> list[Difference]:
    if len(names) < 2:
        return []
    pairs = np.array(list(combinations(range(len(names)), 2)))
    of_pairs = drawn[:, pairs[:, 0]] - drawn[:, pairs[:, 1]]
    centred = of_pairs - of_pairs.mean(0)
    deviation = np.maximum(centred.std(0), 1e-9)  # two that name all pictures alike differ by nothing
    reach = float(np.quantile(np.abs(centred / deviation).max(1), LEVEL))
    best, leads = order[0], []
    for other in order[1:]:
        spread = 100 * reach * float((drawn[:, best] - drawn[:, other]).std())
        points = 100 * float(exact[best] - exact[other])
        leads.append(Difference(names[best], names[other], points, points - spread, points + spread))
    return leads


def pareto(standing: Standing, devices: Iterable[Device]) -> list[str]:
    """The networks that no other beats in both the figure and the milliseconds of its faster file, fastest first."""
    ranked = sorted((d for d in devices if d.backbone in standing.figures), key=lambda d: d.best_ms)
    kept: list[str] = []
    highest = -1.0
    for device in ranked:
        value = standing.figures[device.backbone].value
        if value > highest:
            kept.append(device.backbone)
            highest = value
    return kept


def conclusion(found: Sequence[Standing], trials: Sequence[Trial], devices: Sequence[Device]) -> list[str]:
    """What follows from the numbers of ``trials``, whose standings are ``found``, and no more: a sentence or two for each
    budget, and one for the device."""
    said = [_of_budget(standing) for standing in found]
    return [*said, *_turns(found), *_beginnings(trials), *_one_seed(trials), *_of_device(found[-1], devices)]


def _one_seed(trials: Sequence[Trial]) -> list[str]:
    """What the intervals do not cover then."""
    if len({t.seed for t in trials}) > 1 or len({t.backbone for t in trials}) == 1:
        return []
    doubt = "how much a second training would differ is in no interval here, so a small lead may be luck"
    return [f"Each was trained once: {doubt}."]


def _beginnings(trials: Sequence[Trial]) -> list[str]:
    """Where some had weights to begin with and others had none: then a lead may be theirs, not the network's."""
    random = sorted({t.backbone for t in trials if t.began.startswith(_RANDOM)})
    learnt = sorted({t.backbone for t in trials} - set(random))
    if not random or not learnt:
        return []
    fewer = min(learnt, random, key=len)
    had, had_not = (_listed(names) if names is fewer or len(names) == 1 else "the others" for names in (learnt, random))
    doubt = "They did not begin alike, so a lead may be that of learnt weights"
    return [f"{doubt}: {had} had them, {had_not} began with {_RANDOM}."]


def _of_budget(standing: Standing) -> str:
    at = budget_in_words(standing.budget, standing.pictures)
    figure = standing.figures[standing.best]
    alike = [name for name, other in standing.figures.items() if other.value == figure.value]
    beaten = [lead for lead in standing.leads if lead.shown]
    level = [lead for lead in standing.leads if not lead.shown and lead.other not in alike]
    if len(alike) == 1:
        text, each = f"With {at}, {standing.best} names most right: {figure}.", "It"
    else:
        text, each = f"With {at}, {_listed(alike)} name most right, equally many: {figure}.", standing.best
    if beaten:
        text += f" {each} beats {_listed([f'{lead.other} by {lead}' for lead in beaten])}."
    if level:
        text += f" {each} is not told apart from {_listed([f'{lead.other} ({lead})' for lead in level])}."
    return text


def _turns(found: Sequence[Standing]) -> list[str]:
    """Where the best of one budget is beaten, or only level, at the next."""
    said = []
    for before, after in pairwise(found):
        if before.best == after.best:
            continue
        at = budget_in_words(after.budget, after.pictures)
        how = "is level with" if before.best in after.level else "is beaten by"
        said.append(f"{before.best}, the best with fewer pictures, {how} {after.best} with {at}.")
    return said


def _of_device(standing: Standing, devices: Sequence[Device]) -> list[str]:
    known = {d.backbone: d for d in devices}
    level = sorted((known[name] for name in standing.level if name in known), key=lambda d: d.best_ms)
    if not level:
        return []
    fastest = level[0]
    text = (
        f"Of those on a level with the best, {fastest.backbone} is the fastest on this processor: {fastest.best_ms:.1f} ms"
    )
    if fastest.best_ms == fastest.float_ms:
        return [f"{text} in float (int8: {fastest.why or 'slower'})."]
    return [f"{text} in int8 ({fastest.float_ms:.1f} ms in float)."]


def budget_in_words(budget: Budget, pictures: int) -> str:
    """``all 812 pictures``, ``50 pictures of each class (100)``."""
    return f"all {pictures} pictures" if budget is None else f"{budget} pictures of each class ({pictures})"


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
