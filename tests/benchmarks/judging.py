"""Figures of class scores against the truth, the same for our networks and for those of others. Pure.

Invariants: a picture counts once; the defect score is 1 - the good class's score; a threshold lies between observed scores
(`inspection.release.thresholds.sweep`); at the same overkill, "curve" reads the test side itself (what the scores could do)
and "of validation" takes the threshold from the validation side (what a line would have got).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from inspection.release.scorecard import upper_bound
from inspection.release.thresholds import Sweep, sweep

OVERKILLS = (0.05, 0.02)
CONFIDENCE = 0.95  # of the one-sided exact bounds
Scores = NDArray[np.floating]


@dataclass(frozen=True)
class Side:
    """Scores ``[N, K]`` of pictures and their N true labels, columns in the order of ``classes``."""

    scores: Scores
    labels: Sequence[str]
    classes: Sequence[str]
    good: str

    @property
    def truth(self) -> NDArray[np.int64]:
        """Class indices ``[N]``."""
        return np.array([self.classes.index(label) for label in self.labels], np.int64)

    @property
    def defective(self) -> NDArray[np.bool_]:
        """Which pictures show a defect, ``[N]``."""
        return np.array([label != self.good for label in self.labels], bool)

    @property
    def defect_scores(self) -> NDArray[np.float64]:
        """In [0, 1], ``[N]``."""
        return np.clip(1.0 - np.asarray(self.scores, np.float64)[:, self.classes.index(self.good)], 0.0, 1.0)

    @property
    def curve(self) -> Sweep:
        """Every threshold there is."""
        return sweep(self.defect_scores, self.defective)


def of_classes(side: Side) -> dict[str, float]:
    """Which class: shares of right answers, in [0, 1]."""
    named = np.asarray(side.scores).argmax(1)
    return {
        "accuracy": float((named == side.truth).mean()),
        "balanced accuracy": float(balanced_accuracy_score(side.truth, named)),
        "macro F1": float(f1_score(side.truth, named, average="macro")),
    }


def of_defects(golden: Side, validation: Side | None) -> dict[str, float | None]:
    """Good or defective: AUROC, and at each of `OVERKILLS` the escape of the curve and of a threshold of validation (None
    without one), with exact one-sided upper bounds."""
    found: dict[str, float | None] = {"AUROC": float(roc_auc_score(golden.defective, golden.defect_scores))}
    for limit in OVERKILLS:
        found |= {f"escape at {limit:.0%} overkill, curve": _escape_of_curve(golden.curve, limit)}
        found |= _with_threshold(golden, limit, None if validation is None else _lowest(validation.curve, limit))
    return found


def _affordable(curve: Sweep, overkill: float) -> int:
    """The lowest threshold whose overkill is within the limit."""
    return int(np.flatnonzero(curve.overkill_rate <= overkill)[0])


def _escape_of_curve(curve: Sweep, overkill: float) -> float:
    return float(curve.escape_rate[_affordable(curve, overkill)])


def _lowest(curve: Sweep, overkill: float) -> float:
    return float(curve.thresholds[_affordable(curve, overkill)])


def _with_threshold(side: Side, limit: float, threshold: float | None) -> dict[str, float | None]:
    name = f"threshold of validation at {limit:.0%}"
    if threshold is None:
        return {f"{name}: escape": None}
    rejected = side.defect_scores >= threshold
    bad, good = int(side.defective.sum()), int((~side.defective).sum())
    escapes, overkills = int((side.defective & ~rejected).sum()), int((~side.defective & rejected).sum())
    return {
        f"{name}: escape": escapes / bad,
        f"{name}: escape at most": upper_bound(escapes, bad, CONFIDENCE),
        f"{name}: overkill": overkills / good,
        f"{name}: overkill at most": upper_bound(overkills, good, CONFIDENCE),
    }


def markdown(rows: Sequence[dict[str, object]], columns: Sequence[str]) -> str:
    """A table; what a row lacks stays empty."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
