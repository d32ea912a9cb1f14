"""Scorecard: what verdicts are worth against the truth, counted by physical part, per class and per station, with exact
intervals.

Invariants: one scorecard serves the float model, the int8 bundle and the line, because it reads verdicts and not
tensors; a part with several pictures is rejected if any of them is, and defective if any of its labels is; INCONCLUSIVE
and ERROR are rejections; a rate over nothing is None, never 0. A part that several stations saw counts once in the whole
and once at each of them, by what that station said of it; what was judged outside a line counts at none.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from statistics import fmean
from typing import Self

from pydantic import BaseModel, ConfigDict
from scipy.stats import beta, binomtest
from sklearn.metrics import roc_auc_score

from inspection.contracts import Decision, Verdict, defect_score
from inspection.errors import UsageError
from inspection.release.evaluate import EVALUATION

TWO_SIDED = 0.95
"""Level of the two-sided intervals that are shown; the gate uses one-sided bounds at the limits' own confidence."""

_MOST_STATIONS = 20  # with metrics of their own: a tracking server's comparison must stay readable
_SEVERITY = {Decision.OK: 0, Decision.INCONCLUSIVE: 1, Decision.NG: 2, Decision.ERROR: 3}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def upper_bound(misses: int, parts: int, confidence: float) -> float:
    """One-sided exact (Clopper-Pearson 1934) upper bound of a rate after ``misses`` in ``parts``; 1.0 over nothing."""
    return 1.0 if misses >= parts else float(beta.ppf(confidence, misses + 1, parts - misses))


@lru_cache(maxsize=4096)  # a millisecond each, and the same few counts come again
def _exact_interval(count: int, parts: int) -> tuple[float, float]:
    interval = binomtest(count, parts).proportion_ci(TWO_SIDED, method="exact")
    return float(interval.low), float(interval.high)


class Rate(_Frozen):
    """``count`` of ``parts`` with its exact two-sided 95 % Clopper-Pearson interval; ``value`` is None over nothing."""

    count: int
    parts: int
    value: float | None
    low: float
    high: float

    @classmethod
    def of(cls, count: int, parts: int) -> Self:
        """The rate of ``count`` in ``parts`` (0 <= count <= parts; ValueError otherwise)."""
        if parts == 0:
            return cls(count=count, parts=0, value=None, low=0.0, high=1.0)
        low, high = _exact_interval(count, parts)
        return cls(count=count, parts=parts, value=count / parts, low=low, high=high)

    def __str__(self) -> str:
        if self.value is None:
            return "no parts"
        return f"{self.value:.1%} ({self.count}/{self.parts}; {self.low:.1%} to {self.high:.1%})"


class PartOutcome(_Frozen):
    """One physical part: its defect labels (none: good), the worst decision on its pictures, the defect classes those
    named, and the highest defect score in [0, 1] (None when every picture ended in ERROR)."""

    part: str
    truth: list[str]
    decision: Decision
    named: list[str] = []
    score: float | None = None

    @property
    def defective(self) -> bool:
        """Whether any label of the part is a defect."""
        return bool(self.truth)

    @property
    def escaped(self) -> bool:
        """A defective part that was passed."""
        return self.defective and self.decision is Decision.OK

    @property
    def overkilled(self) -> bool:
        """A good part that was rejected."""
        return not self.defective and self.decision is not Decision.OK


class ClassScore(_Frozen):
    """One class: ``recall`` counts parts named as this class, ``escape`` those passed (for the good class: None), with its
    one-sided upper bound (None, too, in cards of before it was kept)."""

    recall: Rate
    escape: Rate | None
    escape_upper: float | None = None


class StationScore(_Frozen):
    """One station: its own decisions on the parts it saw, with one-sided upper bounds (None in cards of before)."""

    escape: Rate
    overkill: Rate
    escape_upper: float | None = None
    overkill_upper: float | None = None


class Scorecard(_Frozen):
    """Counts and rates of one judge on one set of parts; ``parts`` holds the outcome of each, sorted by part.

    ``balanced_accuracy`` is the mean of the share of defective parts rejected and good parts passed;
    ``class_balanced_accuracy`` the mean recall over all classes; ``auroc`` of the defect score over scored parts. Each
    is None where one side has no parts. ``confusion[truth][decided]`` counts parts (one with two kinds of defect in
    each row); decided is a class, "INCONCLUSIVE" without a class, or "ERROR". ``per_station`` is by the station's name,
    empty where none is known (and in cards of before stations were counted).
    """

    good_class: str
    confidence: float
    pictures: int
    escape: Rate
    overkill: Rate
    escape_upper: float
    overkill_upper: float
    inconclusive: Rate
    error: Rate
    balanced_accuracy: float | None
    class_balanced_accuracy: float | None
    auroc: float | None
    per_class: dict[str, ClassScore]
    per_station: dict[str, StationScore] = {}
    confusion: dict[str, dict[str, int]]
    parts: list[PartOutcome]

    def metrics(self, prefix: str) -> dict[str, float]:
        """Flat numbers for a tracking server, ``<prefix>/escape_rate`` and so on; what is None is left out.

        Stations: the worst, and each of the twenty with most parts (``escape_rate_at_<station>``).
        """
        values = {
            "escape_rate": self.escape.value,
            "escape_upper": self.escape_upper,
            "overkill_rate": self.overkill.value,
            "overkill_upper": self.overkill_upper,
            "inconclusive_share": self.inconclusive.value,
            "error_share": self.error.value,
            "balanced_accuracy": self.balanced_accuracy,
            "class_balanced_accuracy": self.class_balanced_accuracy,
            "auroc": self.auroc,
        }
        values |= {f"recall_{name}": row.recall.value for name, row in self.per_class.items()}
        values |= self._station_metrics()
        return {f"{prefix}/{name}": value for name, value in values.items() if value is not None}

    def _station_metrics(self) -> dict[str, float | None]:
        rates = {
            "escape_rate": {name: row.escape for name, row in self.per_station.items()},
            "overkill_rate": {name: row.overkill for name, row in self.per_station.items()},
        }
        values: dict[str, float | None] = {}
        for kind, rows in rates.items():
            largest = sorted(rows, key=lambda name: (-rows[name].parts, name))[:_MOST_STATIONS]
            values |= {f"{kind}_at_{name}": rows[name].value for name in largest}
            values[f"worst_station_{kind}"] = max((r.value for r in rows.values() if r.value is not None), default=None)
        return values

    def to_markdown(self) -> str:
        """Tables for people: the whole, per class, and per station where stations are known."""
        bound = f"{self.confidence:.0%} upper bound"
        lines = [
            f"| | value | {bound} |",
            "|---|---|---|",
            f"| escape | {self.escape} | {self.escape_upper:.2%} |",
            f"| overkill | {self.overkill} | {self.overkill_upper:.2%} |",
            f"| inconclusive | {self.inconclusive} | |",
            f"| error | {self.error} | |",
            f"| balanced accuracy | {_percent(self.balanced_accuracy)} | |",
            f"| balanced accuracy of classes | {_percent(self.class_balanced_accuracy)} | |",
            f"| AUROC | {'n/a' if self.auroc is None else format(self.auroc, '.4f')} | |",
            "",
            f"| class | named right | escape | {bound} |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {name} | {row.recall} | {row.escape or ''} | {_bound(row.escape_upper)} |"
            for name, row in self.per_class.items()
        ]
        if self.per_station:
            lines += ["", f"| station | escape | {bound} | overkill | {bound} |", "|---|---|---|---|---|"]
            lines += [
                f"| {name} | {row.escape} | {_bound(row.escape_upper)} | {row.overkill} | {_bound(row.overkill_upper)} |"
                for name, row in self.per_station.items()
            ]
        return "\n".join(lines) + "\n"


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2%}"


def _bound(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def _defect_score_of(verdict: Verdict, good_class: str) -> float | None:
    return defect_score(verdict.scores, good_class) if good_class in verdict.scores else None


def part_outcomes(judged: Iterable[tuple[Verdict, str]], good_class: str) -> list[PartOutcome]:
    """Fold verdicts with their true labels into one outcome per part, sorted by part."""
    by_part: dict[str, list[tuple[Verdict, str]]] = defaultdict(list)
    for verdict, label in judged:
        by_part[verdict.part].append((verdict, label))
    return [_outcome(part, by_part[part], good_class) for part in sorted(by_part)]


def _outcome(part: str, judged: Sequence[tuple[Verdict, str]], good_class: str) -> PartOutcome:
    scores = [s for v, _ in judged if (s := _defect_score_of(v, good_class)) is not None]
    return PartOutcome(
        part=part,
        truth=sorted({label for _, label in judged} - {good_class}),
        decision=max((v.decision for v, _ in judged), key=lambda d: _SEVERITY[d]),
        named=sorted({v.defect_class for v, _ in judged if v.defect_class and v.decision is not Decision.OK}),
        score=max(scores, default=None),
    )


def score(
    judged: Sequence[tuple[Verdict, str]], *, good_class: str, classes: Sequence[str] = (), confidence: float = 0.95
) -> Scorecard:
    """The scorecard of verdicts with their true labels.

    ``classes`` only fixes the order and names classes without parts; a label outside it is counted all the same.
    ``confidence`` is the level of the one-sided upper bounds. Raises UsageError on no verdicts.
    """
    if not judged:
        raise UsageError("there are no verdicts to score: is the golden side of the snapshot empty?")
    return scorecard_of(
        part_outcomes(judged, good_class),
        good_class=good_class,
        classes=classes,
        confidence=confidence,
        pictures=len(judged),
        per_station=_per_station(judged, good_class, confidence),
    )


def scorecard_of(
    parts: Sequence[PartOutcome],
    *,
    good_class: str,
    pictures: int,
    classes: Sequence[str] = (),
    confidence: float = 0.95,
    per_station: Mapping[str, StationScore] | None = None,
) -> Scorecard:
    """The scorecard of per-part outcomes (see `score`)."""
    defective = [p for p in parts if p.defective]
    good = [p for p in parts if not p.defective]
    escapes, overkills = sum(p.escaped for p in defective), sum(p.overkilled for p in good)
    per_class = _per_class(parts, good_class, classes, confidence)
    recalls = [row.recall.value for row in per_class.values() if row.recall.value is not None]
    caught = [1 - escapes / len(defective), 1 - overkills / len(good)] if defective and good else None
    return Scorecard(
        good_class=good_class,
        confidence=confidence,
        pictures=pictures,
        escape=Rate.of(escapes, len(defective)),
        overkill=Rate.of(overkills, len(good)),
        escape_upper=upper_bound(escapes, len(defective), confidence),
        overkill_upper=upper_bound(overkills, len(good), confidence),
        inconclusive=Rate.of(sum(p.decision is Decision.INCONCLUSIVE for p in parts), len(parts)),
        error=Rate.of(sum(p.decision is Decision.ERROR for p in parts), len(parts)),
        balanced_accuracy=None if caught is None else fmean(caught),
        class_balanced_accuracy=fmean(recalls) if caught is not None else None,
        auroc=_auroc(parts),
        per_class=per_class,
        per_station=dict(per_station or {}),
        confusion=_confusion(parts, good_class),
        parts=list(parts),
    )


def _auroc(parts: Sequence[PartOutcome]) -> float | None:
    scored = [(p.defective, p.score) for p in parts if p.score is not None]
    if len({defective for defective, _ in scored}) < 2:
        return None
    truth, scores = zip(*scored, strict=True)
    return float(roc_auc_score(truth, scores))


def _per_class(
    parts: Sequence[PartOutcome], good_class: str, classes: Sequence[str], confidence: float
) -> dict[str, ClassScore]:
    seen = sorted({label for p in parts for label in p.truth})
    names = list(dict.fromkeys([good_class, *classes, *seen]))
    return {name: _class_score(parts, name, good_class, confidence) for name in names}


def _per_station(judged: Sequence[tuple[Verdict, str]], good_class: str, confidence: float) -> dict[str, StationScore]:
    there: dict[str, list[tuple[Verdict, str]]] = defaultdict(list)
    for verdict, label in judged:
        there[verdict.station].append((verdict, label))
    there.pop(EVALUATION, None)
    return {name: _station_score(part_outcomes(there[name], good_class), confidence) for name in sorted(there)}


def _station_score(parts: Sequence[PartOutcome], confidence: float) -> StationScore:
    defective = sum(p.defective for p in parts)
    escaped, overkilled = sum(p.escaped for p in parts), sum(p.overkilled for p in parts)
    return StationScore(
        escape=Rate.of(escaped, defective),
        overkill=Rate.of(overkilled, len(parts) - defective),
        escape_upper=upper_bound(escaped, defective, confidence),
        overkill_upper=upper_bound(overkilled, len(parts) - defective, confidence),
    )


def _class_score(parts: Sequence[PartOutcome], name: str, good_class: str, confidence: float) -> ClassScore:
    if name == good_class:
        good = [p for p in parts if not p.defective]
        return ClassScore(recall=Rate.of(sum(not p.overkilled for p in good), len(good)), escape=None)
    own = [p for p in parts if name in p.truth]
    escaped = sum(p.escaped for p in own)
    return ClassScore(
        recall=Rate.of(sum(name in p.named for p in own), len(own)),
        escape=Rate.of(escaped, len(own)),
        escape_upper=upper_bound(escaped, len(own), confidence),
    )


def _decided(part: PartOutcome, good_class: str) -> list[str]:
    """The column of the confusion matrix: where several classes were named, a right one first."""
    if part.decision is Decision.OK:
        return [good_class]
    if part.decision is Decision.ERROR or not part.named:
        return [part.decision.value]
    return part.named


def _confusion(parts: Sequence[PartOutcome], good_class: str) -> dict[str, dict[str, int]]:
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for part in parts:
        for truth in part.truth or [good_class]:
            decided = _decided(part, good_class)
            table[truth][truth if truth in decided else decided[0]] += 1
    return {truth: dict(sorted(row.items())) for truth, row in sorted(table.items())}
