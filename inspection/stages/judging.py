"""What files say of validation examples, turned into decisions and figures, by the rule every gate uses."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import recall_score

from inspection.contracts import Decision, Recipe, decide
from inspection.data.snapshot_record import Example
from inspection.release.guard import unfamiliar_limit
from inspection.release.measure import Answers

Rule = Callable[[Answers], Recipe]
"""From a file's answers about the validation examples to its recipe."""


def by_class(row: NDArray[np.float32], classes: Sequence[str]) -> dict[str, float]:
    """Scores by the names of their classes."""
    return {name: float(np.clip(value, 0.0, 1.0)) for name, value in zip(classes, row, strict=True)}


def decisions(answers: Answers, classes: Sequence[str], recipe: Recipe) -> list[Decision]:
    """One for each example."""
    rows = enumerate(answers.scores)
    return [decide(by_class(row, classes), recipe, answers.novelty_at(place)).decision for place, row in rows]


def balanced_accuracy(answers: Answers, examples: Sequence[Example], classes: Sequence[str]) -> float:
    """Mean recall of the classes that are there."""
    truth = [classes.index(e.label) for e in examples]
    return float(recall_score(truth, answers.scores.argmax(1), labels=sorted(set(truth)), average="macro"))


def limit_of(answers: Answers, examples: Sequence[Example], good_class: str) -> float | None:
    """The limit on the novelty, from the good ones among ``examples``; None of a file that gives none."""
    if answers.novelty is None:
        return None
    good = [place for place, e in enumerate(examples) if e.label == good_class]
    return unfamiliar_limit(answers.novelty[good], [examples[place].part for place in good])


def guard_overkill(
    answers: Answers, examples: Sequence[Example], classes: Sequence[str], recipe: Recipe, good_class: str
) -> float | None:
    """Share of good parts that the scores alone would pass, and the novelty does not; None without a limit on it."""
    if recipe.unfamiliar is None:
        return None
    scores_alone = decisions(answers, classes, recipe.model_copy(update={"unfamiliar": None}))
    both = decisions(answers, classes, recipe)
    good = {e.part for e in examples if e.label == good_class}
    rejected, rejected_by_scores = (
        {e.part for e, decision in zip(examples, said, strict=True) if decision is not Decision.OK}
        for said in (both, scores_alone)
    )
    return len((rejected - rejected_by_scores) & good) / max(1, len(good))
