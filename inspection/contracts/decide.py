"""The decision rule: class scores and a recipe in, decision out. Pure; the agent and every evaluation use this one."""

from collections.abc import Mapping
from dataclasses import dataclass

from inspection.contracts.recipe import ANY_DEFECT, Recipe
from inspection.contracts.verdict import Band, Decision

_SEVERITY = {Decision.OK: 0, Decision.INCONCLUSIVE: 1, Decision.NG: 2, Decision.ERROR: 3}


@dataclass(frozen=True)
class Outcome:
    """A decision with the defect class that drove it (None when OK)."""

    decision: Decision
    defect_class: str | None


def _against(score: float, band: Band) -> Decision:
    if score >= band.ng:
        return Decision.NG
    return Decision.INCONCLUSIVE if score >= band.inconclusive else Decision.OK


def defect_score(scores: Mapping[str, float], good_class: str) -> float:
    """Total defect score: 1 - score of the good class, in [0, 1]. Raises KeyError without that class."""
    return min(1.0, max(0.0, 1.0 - scores[good_class]))


def decide(scores: Mapping[str, float], recipe: Recipe) -> Outcome:
    """Apply the recipe's bands to class scores (probabilities that sum to 1); the worst band decides.

    The named class is the defect class whose band decided, or the highest-scoring one where the any-defect band did.
    Raises KeyError when a thresholded class has no score: a recipe for another model must never pass silently.
    """
    outcomes: list[tuple[Decision, float, str]] = []
    defects = {name: value for name, value in scores.items() if name != recipe.good_class}
    for name, band in recipe.thresholds.items():
        if name == ANY_DEFECT:
            score = defect_score(scores, recipe.good_class)
            named = max(defects, key=lambda k: defects[k])
        else:
            score, named = scores[name], name
        outcomes.append((_against(score, band), score, named))
    decision, _, named = max(outcomes, key=lambda o: (_SEVERITY[o[0]], o[1]))
    return Outcome(decision, None if decision is Decision.OK else named)


def worst(outcomes: list[Outcome]) -> Outcome:
    """The worst of several tiles' outcomes (at least one; ValueError on none)."""
    return max(outcomes, key=lambda o: _SEVERITY[o.decision])
