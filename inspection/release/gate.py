"""The gate: may a candidate judge parts? PASS, FAIL or INSUFFICIENT, with one paragraph that says why.

Invariants: PASS needs the exact one-sided upper bound of escape and of overkill within the limits, so a small golden set
cannot pass anything; a point estimate above a limit is FAIL at once; being better than the champion never replaces
evidence; one more miss never improves an answer; more escapes than the champion's are never bought with less overkill; a
class of defects, or a station, that lets more through than the limit, beyond chance, or a class that lets more through, or
is named wrongly more often, than by the champion, fails the whole, however well the others do. What too few golden parts
show is said by class and by station.
Pure: numbers in, answer out.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from scipy.stats import binomtest

from inspection.contracts import Costs, Limits
from inspection.errors import IntegrityError
from inspection.release.scorecard import PartOutcome, Rate, Scorecard, upper_bound


class Answer(StrEnum):
    """The gate's three answers."""

    PASS = "PASS"  # noqa: S105 - an answer, not a password
    FAIL = "FAIL"
    INSUFFICIENT = "INSUFFICIENT"


_RESAMPLES = 2000
_NAMES = "the names of all classes"  # beside those of classes, in one family of tests
_NAMED = 5  # of those with too few parts, so that the paragraph stays one
_ORDER = {Answer.FAIL: 0, Answer.INSUFFICIENT: 1, Answer.PASS: 2}


class Check(BaseModel):
    """One condition: what was observed, against what limit, and the sentence that says it. ``numbers`` are evidence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    answer: Answer
    why: str
    need_more: int = 0
    numbers: dict[str, float] = {}


class GateAnswer(BaseModel):
    """The gate's answer; ``need_more_*`` are the parts without a further miss that would settle what is open; ``limits``
    and ``costs`` are those it was asked with (None in answers of before they were kept)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answer: Answer
    why: str
    need_more_defective: int = 0
    need_more_good: int = 0
    checks: list[Check]
    limits: Limits | None = None
    costs: Costs | None = None

    def body(self) -> dict[str, Any]:
        """JSON-able form for the ledger of gate decisions."""
        return self.model_dump(mode="json")


def parts_needed(misses: int, parts: int, limit: float, confidence: float) -> int:
    """How many further parts without a miss bring the upper bound to ``limit`` (0 < limit < 1); 0 when it is there."""

    def enough(more: int) -> bool:
        return upper_bound(misses, parts + more, confidence) <= limit

    if enough(0):
        return 0
    high = 1
    while not enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:  # the bound falls with every clean part, so bisection finds the first that is enough
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def rate_check(name: str, kind: str, misses: int, parts: int, limit: float, confidence: float) -> Check:
    """One absolute limit: ``misses`` in ``parts`` of ``kind`` ("defective", "good") against ``limit``."""
    upper = upper_bound(misses, parts, confidence)
    numbers = {"misses": misses, "parts": parts, "upper": upper, "limit": limit}
    seen = f"{name} {misses} of {parts} {kind} parts"
    if parts and misses / parts > limit:
        why = f"{seen} = {misses / parts:.2%}, above the limit of {limit:.2%}"
        return Check(name=name, answer=Answer.FAIL, why=why, numbers=numbers)
    bound = f"{seen}, {confidence:.1%} upper bound {upper:.2%}"
    if upper <= limit:
        why = f"{bound}, within the limit of {limit:.2%}"
        return Check(name=name, answer=Answer.PASS, why=why, numbers=numbers)
    if limit == 0:
        why = f"{bound}; no number of parts can show a rate of exactly 0: set a limit above it"
        return Check(name=name, answer=Answer.INSUFFICIENT, why=why, numbers=numbers)
    more = parts_needed(misses, parts, limit, confidence)
    why = f"{bound}, limit {limit:.2%}: need {more} more {kind} golden parts without a further miss"
    return Check(name=name, answer=Answer.INSUFFICIENT, why=why, need_more=more, numbers=numbers)


def escape_check(by: str, rates: Mapping[str, Rate], limit: float, confidence: float) -> Check | None:
    """Whether some class's or station's (``by``) own escape rate is above the limit beyond chance; ``rates`` by name; None
    with less than two to tell apart, or nothing seen of any.

    FAIL where the exact lower bound of one lies above ``limit`` (`_beyond_chance`). Those with few parts have
    wide intervals and fail only when they are plainly bad; which those are, and how many more parts of each would show it
    by itself, is said.
    """
    name_of_check, asked = f"escape by {by}", {name: rate for name, rate in rates.items() if rate.parts}
    if len(rates) < 2 or not asked:
        return None
    chance = {n: float(binomtest(r.count, r.parts, limit, alternative="greater").pvalue) for n, r in asked.items()}
    above = _beyond_chance(chance, confidence)
    numbers = {"tested": len(asked), "above": len(above), "p": min(chance.values(), default=1.0)}
    if above:
        seen = ", ".join(f"{name} {rates[name].count} of {rates[name].parts} defective parts" for name in above)
        rest = f"the other {len(asked) - len(above)} not"
        why = f"{name_of_check}: {seen}, above the limit of {limit:.2%} beyond chance, {rest}"
        return Check(name=name_of_check, answer=Answer.FAIL, why=why, numbers=numbers)
    why = f"{name_of_check}: none of {len(asked)} is above the limit of {limit:.2%} beyond chance"
    return Check(name=name_of_check, answer=Answer.PASS, why=why + _unproven(rates, limit, confidence), numbers=numbers)


def _beyond_chance(chance: Mapping[str, float], confidence: float) -> list[str]:
    """The names whose p-values reject; all of them together get the risk of one test (S. Holm, Scand. J. Statist. 1979), so
    what is fine everywhere is accused with a probability of at most ``1 - confidence``."""
    found: list[str] = []
    for tested, name in enumerate(sorted(chance, key=lambda n: (chance[n], n))):
        if chance[name] > (1 - confidence) / (len(chance) - tested):
            break
        found.append(name)
    return found


def _unproven(rates: Mapping[str, Rate], limit: float, confidence: float) -> str:
    """Which have too few parts to be within the limit by themselves, those with fewest first, and what each lacks."""
    if limit == 0:
        return ""
    needed = {name: parts_needed(rate.count, rate.parts, limit, confidence) for name, rate in rates.items()}
    lacking = sorted((name for name in needed if needed[name]), key=lambda n: (rates[n].parts, n))
    said = [f"{name} ({rates[name].count} of {rates[name].parts}, need {needed[name]} more)" for name in lacking[:_NAMED]]
    said += [f"{len(lacking) - _NAMED} others"] if len(lacking) > _NAMED else []
    return f"; not shown for each by itself: {', '.join(said)}" if said else ""


def _by_part(card: Scorecard) -> dict[str, PartOutcome]:
    return {p.part: p for p in card.parts}


def paired_check(name: str, candidate: Sequence[bool], champion: Sequence[bool], confidence: float) -> Check:
    """Exact one-sided McNemar test (McNemar 1947) on the same parts in the same order: True is a miss.

    FAIL when the candidate alone misses so much more often than the champion alone that chance explains it with a
    probability below ``1 - confidence``.
    """
    worse, better, p = _mcnemar(candidate, champion)
    numbers = {"candidate_only": worse, "champion_only": better, "p": p}
    failed = p < 1 - confidence
    why = f"{name}: {worse} parts missed only by the candidate, {better} only by the champion (p = {p:.3f})"
    why += ", significantly worse" if failed else ", not significantly worse"
    return Check(name=name, answer=Answer.FAIL if failed else Answer.PASS, why=why, numbers=numbers)


def _mcnemar(candidate: Sequence[bool], champion: Sequence[bool]) -> tuple[int, int, float]:
    """Misses of the candidate alone, of the champion alone, and the one-sided p-value of the candidate's being no more."""
    worse = sum(a and not b for a, b in zip(candidate, champion, strict=True))
    better = sum(b and not a for a, b in zip(candidate, champion, strict=True))
    p = float(binomtest(worse, worse + better, 0.5, alternative="greater").pvalue) if worse + better else 1.0
    return worse, better, p


def class_checks(ours: Mapping[str, PartOutcome], theirs: Mapping[str, PartOutcome], confidence: float) -> list[Check]:
    """Whether a class of defects is let through, or defects are named right, less well than by the champion: each class by
    itself (with two or more), and the names of all, together at the risk of one test (`_beyond_chance`).

    One class is not let through for another's sake. Labels whose classes were mixed up cost no escape and no overkill, and
    would fill the counts of defects with wrong names; a part that passes, or is doubted without a name, is not named right.
    """
    of_class: dict[str, list[str]] = {}
    for name, part in ours.items():
        for label in part.truth:
            of_class.setdefault(label, []).append(name)
    if not of_class:
        return []
    escaped = {
        label: _mcnemar([ours[n].escaped for n in names], [theirs[n].escaped for n in names])
        for label, names in sorted(of_class.items())
    }
    escaped = escaped if len(escaped) > 1 else {}
    bad = [n for n, part in ours.items() if part.defective]
    named = _mcnemar(*([not set(of[n].truth) & set(of[n].named) for n in bad] for of in (ours, theirs)))
    worse = _beyond_chance({**{label: p for label, (_, _, p) in escaped.items()}, _NAMES: named[2]}, confidence)
    return [*_classes_let_through(escaped, worse), _named(named, _NAMES in worse)]


def _classes_let_through(escaped: Mapping[str, tuple[int, int, float]], worse: Sequence[str]) -> list[Check]:
    if not escaped:
        return []
    name, found = "escape of a class against champion", [label for label in worse if label in escaped]
    numbers = {"tested": len(escaped), "worse": len(found), "p": min(p for _, _, p in escaped.values())}
    if not found:
        why = f"{name}: none of {len(escaped)} is significantly worse"
        return [Check(name=name, answer=Answer.PASS, why=why, numbers=numbers)]
    said = ", ".join(
        f"{c} {escaped[c][0]} missed only by the candidate, {escaped[c][1]} only by the champion" for c in found
    )
    return [Check(name=name, answer=Answer.FAIL, why=f"{name}: {said}, significantly worse", numbers=numbers)]


def _named(seen: tuple[int, int, float], failed: bool) -> Check:
    worse, better, p = seen
    why = f"defects not named right against champion: {worse} only by the candidate, {better} only by the champion"
    why += f" (p = {p:.3f}), {'' if failed else 'not '}significantly worse"
    numbers = {"candidate_only": worse, "champion_only": better, "p": p}
    return Check(name="naming against champion", answer=Answer.FAIL if failed else Answer.PASS, why=why, numbers=numbers)


def _paid_for(overkill: Check, escape: Check, costs: Costs, tells_apart: bool) -> Check:
    """More overkill than the champion's passes, within its limit, where the escapes it saves weigh more by the product's
    costs: a champion that is blind to a new defect rejects nothing for it. Never the other way round, and only when the
    candidate tells good from bad better wherever a threshold lies (``tells_apart``), as rejecting everything saves escapes
    too."""
    if overkill.answer is not Answer.FAIL:
        return overkill
    saved = costs.escape * (escape.numbers["champion_only"] - escape.numbers["candidate_only"])
    spent = costs.overkill * (overkill.numbers["candidate_only"] - overkill.numbers["champion_only"])
    paid = saved > spent and tells_apart
    why = f"{overkill.why}; at the product's costs the escapes saved weigh {saved:g}, the overkill {spent:g}"
    if not tells_apart:
        why += ", but the candidate tells good from bad no better than the champion"
    numbers = {**overkill.numbers, "saved": saved, "spent": spent}
    return overkill.model_copy(update={"answer": Answer.PASS if paid else Answer.FAIL, "why": why, "numbers": numbers})


def _against_champion(candidate: Scorecard, champion: Scorecard, confidence: float, costs: Costs) -> list[Check]:
    ours, theirs = _by_part(candidate), _by_part(champion)
    if {n: p.truth for n, p in ours.items()} != {n: p.truth for n, p in theirs.items()}:
        raise IntegrityError(
            f"candidate ({len(ours)} parts) and champion ({len(theirs)} parts) were not judged on the same golden parts "
            "with the same labels: score both on one snapshot's golden side and ask again"
        )
    bad = [n for n, p in ours.items() if p.defective]
    good = [n for n, p in ours.items() if not p.defective]
    escape = paired_check(
        "escape against champion", [ours[n].escaped for n in bad], [theirs[n].escaped for n in bad], confidence
    )
    overkill = paired_check(
        "overkill against champion", [ours[n].overkilled for n in good], [theirs[n].overkilled for n in good], confidence
    )
    paid = _paid_for(overkill, escape, costs, ranks_better(ours, theirs, confidence))
    return [escape, paid, *class_checks(ours, theirs, confidence)]


def ranks_better(ours: Mapping[str, PartOutcome], theirs: Mapping[str, PartOutcome], confidence: float) -> bool:
    """Whether our scores rank defective above good parts more often than theirs on the same parts, beyond chance.

    The one-sided lower bound of the difference of the two AUROCs is above 0: paired bootstrap over parts, within good and
    defective ones (Efron and Tibshirani, An Introduction to the Bootstrap, 1993). Parts without a score do not count.
    """
    names = [n for n in ours if ours[n].score is not None and theirs[n].score is not None]
    bad, good = [n for n in names if ours[n].defective], [n for n in names if not ours[n].defective]
    if not bad or not good:
        return False
    gained = _wins(ours, bad, good) - _wins(theirs, bad, good)
    rng = np.random.default_rng(0)  # the same answer every time it is asked
    of_bad = rng.multinomial(len(bad), np.full(len(bad), 1 / len(bad)), _RESAMPLES) / len(bad)
    of_good = rng.multinomial(len(good), np.full(len(good), 1 / len(good)), _RESAMPLES) / len(good)
    return bool(np.quantile(((of_bad @ gained) * of_good).sum(1), 1 - confidence) > 0)


def _wins(outcomes: Mapping[str, PartOutcome], bad: Sequence[str], good: Sequence[str]) -> npt.NDArray[np.float64]:
    """``[bad, good]``: 1 where the defective part's score is higher, 1/2 where they are equal, else 0."""
    high, low = (np.array([outcomes[n].score for n in names], np.float64) for names in (bad, good))
    return np.heaviside(high[:, None] - low[None, :], 0.5)


def _paragraph(answer: Answer, checks: Iterable[Check]) -> str:
    deciding = [c.why for c in checks if c.answer is answer]
    rest = [c.why for c in checks if c.answer is not answer]
    also = f" Also: {'; '.join(rest)}." if rest else ""
    return f"{answer.value}: {'; '.join(deciding)}.{also}"


def gate(candidate: Scorecard, champion: Scorecard | None, limits: Limits, costs: Costs) -> GateAnswer:
    """Ask the gate. ``champion`` must have judged the same golden parts (IntegrityError otherwise); ``costs`` weigh more
    overkill than its against fewer escapes. The worst check decides."""
    level = limits.confidence
    escape, overkill = candidate.escape, candidate.overkill
    bad = rate_check("escape", "defective", escape.count, escape.parts, limits.escape_rate, level)
    good = rate_check("overkill", "good", overkill.count, overkill.parts, limits.overkill_rate, level)
    rates = {
        "class": {name: row.escape for name, row in candidate.per_class.items() if row.escape is not None},
        "station": {name: row.escape for name, row in candidate.per_station.items()},
    }
    apart = (escape_check(by, found, limits.escape_rate, level) for by, found in rates.items())
    compared = [] if champion is None else _against_champion(candidate, champion, level, costs)
    checks = [bad, good, *filter(None, apart), *compared]
    answer = min((c.answer for c in checks), key=lambda a: _ORDER[a])
    return GateAnswer(
        answer=answer,
        why=_paragraph(answer, checks),
        need_more_defective=bad.need_more,
        need_more_good=good.need_more,
        checks=checks,
        limits=limits,
        costs=costs,
    )
