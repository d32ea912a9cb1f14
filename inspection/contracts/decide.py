"""The decision rule: class scores and a recipe in, decision out. Pure; the agent and every evaluation use this one."""

from collections.abc import Mapping
from dataclasses import dataclass

from inspection.contracts.recipe import ANY_DEFECT, Recipe
from inspection.contracts.verdict import Band, Decision

_SEVERITY = {Decision.OK: 0, Decision.INCONCLUSIVE: 1, Decision.NG: 2, Decision.ERROR: 3}


@dataclass(frozen=True)
class Outcome:
    """A decision with the defect class that drove it (None when OK); ``reason`` in words, where no class did."""

    decision: Decision
    defect_class: str | None
    reason: str | None = None


def _against(score: float, band: Band) -> Decision:
    if score >= band.ng:
        return Decision.NG
    return Decision.INCONCLUSIVE if score >= band.inconclusive else Decision.OK


def defect_score(scores: Mapping[str, float], good_class: str) -> float:
    """Total defect score: 1 - score of the good class, in [0, 1]. Raises KeyError without that class."""
    return min(1.0, max(0.0, 1.0 - scores[good_class]))


def decide(scores: Mapping[str, float], recipe: Recipe, novelty: float | None = None) -> Outcome:
    """Apply the recipe's bands to class scores (probabilities that sum to 1); the worst band decides. What no band
    rejects is INCONCLUSIVE all the same where the picture's ``novelty`` (in [0, 1]) is the recipe's ``unfamiliar`` or more.

    The named class is the defect class whose band decided, or the highest-scoring one where the any-defect band did.
    Raises KeyError when a thresholded class has no score, ValueError when the recipe asks for a novelty and there is none:
    a recipe for another model must never pass silently.
    """
    if recipe.unfamiliar is not None and (novelty is None or not 0 <= novelty <= 1):
        raise ValueError(f"the recipe asks for a novelty in [0, 1] and the model gave {novelty}")
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
    if decision is not Decision.OK:
        return Outcome(decision, named)
    if recipe.unfamiliar is None or novelty is None or novelty < recipe.unfamiliar:
        return Outcome(decision, None)
    said = f"unlike anything the model has learnt: novelty {novelty:.2f}, limit {recipe.unfamiliar:.2f}"
    return Outcome(Decision.INCONCLUSIVE, None, said)


def worst(outcomes: list[Outcome]) -> Outcome:
    """The worst of several tiles' outcomes (at least one; ValueError on none)."""
    return max(outcomes, key=lambda o: _SEVERITY[o.decision])
