"""From class scores to verdicts, so that a float model in the server is judged like a bundle on a device."""

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from inspection.contracts import Recipe, Verdict, decide
from inspection.data.snapshot_record import Example

EVALUATION = "evaluation"
"""Device of what is judged here, and its station where the picture's own is not known."""


def judged(
    scores: NDArray[np.float32],
    classes: Sequence[str],
    examples: Sequence[Example],
    recipe: Recipe,
    novelty: Sequence[float] | NDArray[np.float32] | None = None,
) -> list[tuple[Verdict, str]]:
    """Verdicts with their true labels. ``scores``: float32 ``[N, K]``, rows as ``examples``, columns as ``classes``;
    ``novelty``: N values in [0, 1] of a model that gives them. ValueError when the recipe asks and there is none."""
    now = datetime.now(UTC)
    release = version("escapement")
    pairs = []
    for number, (row, example) in enumerate(zip(scores, examples, strict=True), start=1):
        by_class = {name: float(np.clip(value, 0.0, 1.0)) for name, value in zip(classes, row, strict=True)}
        unlike = None if novelty is None else float(np.clip(novelty[number - 1], 0.0, 1.0))
        outcome = decide(by_class, recipe, unlike)
        verdict = Verdict(
            id=f"{EVALUATION}-{number}",
            device=EVALUATION,
            boot=EVALUATION,
            sequence=number,
            station=example.station or EVALUATION,
            product=recipe.product,
            part=example.part,
            captured_at=now,
            decision=outcome.decision,
            reason=outcome.reason,
            novelty=unlike,
            defect_class=outcome.defect_class,
            scores=by_class,
            recipe_digest=recipe.digest,
            agent_version=release,
        )
        pairs.append((verdict, example.label))
    return pairs
