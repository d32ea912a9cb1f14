"""Plots of a run: confusion matrix, escape against overkill, worst offenders, the search for a build.

Figures in, nothing shown, no global state.

Invariants: figures are made object by object (`matplotlib.figure.Figure`), so no window system and no shared "current
figure" is touched; what a plot shows is in the scorecard too.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from inspection.contracts import ONNXRUNTIME, OPENVINO, Decision, Limits, Verdict
from inspection.contracts.decide import defect_score
from inspection.release.scorecard import Scorecard
from inspection.release.search import Measured, pareto
from inspection.release.thresholds import sweep

Picture = npt.NDArray[np.uint8]
"""``[height, width, 3]``, BGR."""

_COLUMNS = 4


def confusion_figure(card: Scorecard) -> Figure:
    """Parts by truth (rows) and decision (columns), with counts."""
    truths = [name for name in card.per_class if name in card.confusion]
    decided = list(dict.fromkeys([*truths, *(name for row in card.confusion.values() for name in row)]))
    table = np.array([[card.confusion[t].get(d, 0) for d in decided] for t in truths], dtype=float)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(2.5 + 0.8 * len(decided), 2 + 0.6 * len(truths)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(decided)), decided, rotation=45, ha="right")
    axes.set_yticks(range(len(truths)), truths)
    axes.set(xlabel="decided", ylabel="truth", title=f"{len(card.parts)} parts")
    for (row, column), number in np.ndenumerate(table):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{number:.0f}", ha="center", va="center", color=colour)
    return figure


def escape_overkill_figure(card: Scorecard, limits: Limits) -> Figure:
    """Escape against overkill over all thresholds of the defect score; the recipe's point with intervals; the limits."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.add_subplot()
    scored = [p for p in card.parts if p.score is not None]
    if scored:
        curve = sweep(np.array([p.score for p in scored], dtype=float), np.array([p.defective for p in scored]))
        axes.plot(curve.overkill_rate, curve.escape_rate, drawstyle="steps-post", label="any threshold")
    if card.escape.value is not None and card.overkill.value is not None:
        axes.errorbar(
            card.overkill.value,
            card.escape.value,
            xerr=[[card.overkill.value - card.overkill.low], [card.overkill.high - card.overkill.value]],
            yerr=[[card.escape.value - card.escape.low], [card.escape.high - card.escape.value]],
            fmt="o",
            color="black",
            capsize=3,
            label="this recipe (95 % intervals)",
        )
    axes.axhline(limits.escape_rate, color="tab:red", ls="--", label=f"escape limit {limits.escape_rate:.1%}")
    axes.axvline(limits.overkill_rate, color="tab:orange", ls="--", label=f"overkill limit {limits.overkill_rate:.1%}")
    axes.set(xlabel="overkill rate", ylabel="escape rate", xlim=(-0.02, 1), ylim=(-0.02, 1))
    axes.legend()
    return figure


def search_figure(found: Sequence[Measured], chosen: Measured) -> Figure:
    """Every timed build: how fast it is, how much balanced accuracy it loses; the Pareto set joined, the choice ringed."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    front = pareto(found)
    for runtime, marker in ((ONNXRUNTIME, "o"), (OPENVINO, "s")):
        ours = [one for one in found if one.build.runtime == runtime and one.speedup is not None]
        if ours:
            axes.scatter([_fast(one) for one in ours], [_points(one) for one in ours], marker=marker, label=runtime)
    for one in (one for one in found if one.speedup is not None):
        label = f"{one.build.backbone} {one.build.height} {one.build.quantizer}"
        axes.annotate(label, (_fast(one), _points(one)), fontsize=7, xytext=(4, 4), textcoords="offset points")
    along = sorted(front, key=_fast)
    axes.plot([_fast(one) for one in along], [_points(one) for one in along], ls=":", color="grey", label="Pareto set")
    axes.plot(_fast(chosen), _points(chosen), "o", ms=14, mfc="none", mec="black", label="shipped")
    axes.set(xlabel="times as fast as float on ONNX Runtime", ylabel="balanced accuracy lost (points)")
    axes.invert_yaxis()
    axes.legend()
    return figure


def _fast(one: Measured) -> float:
    return one.speedup or 0.0


def _points(one: Measured) -> float:
    return 100 * one.accuracy_drop


def worst_offenders(judged: Sequence[tuple[Verdict, str]], good_class: str, count: int = 12) -> list[tuple[Verdict, str]]:
    """The wrong verdicts that were furthest off: passed defects first (the surest pass leading), then rejected good
    pictures (the surest rejection leading), at most ``count``."""

    def total(verdict: Verdict) -> float:
        return defect_score(verdict.scores, good_class) if verdict.scores else 1.0

    passed = [(v, t) for v, t in judged if t != good_class and v.decision is Decision.OK]
    rejected = [(v, t) for v, t in judged if t == good_class and v.decision is not Decision.OK]
    passed.sort(key=lambda pair: (total(pair[0]), pair[0].part))
    rejected.sort(key=lambda pair: (-total(pair[0]), pair[0].part))
    return [*passed, *rejected][:count]


def offenders_figure(offenders: Sequence[tuple[Verdict, str]], pictures: Mapping[str, Picture], good_class: str) -> Figure:
    """A grid of the worst offenders, each with truth, decision and defect score; ``pictures`` by verdict id."""
    rows = max(1, -(-len(offenders) // _COLUMNS))
    figure = Figure(figsize=(2.6 * _COLUMNS, 2.9 * rows), layout="constrained")
    if not offenders:
        figure.text(0.5, 0.5, "no wrong verdicts", ha="center")
    for place, (verdict, truth) in enumerate(offenders, start=1):
        axes = figure.add_subplot(rows, _COLUMNS, place)
        axes.set_axis_off()
        kind = "OVERKILL" if truth == good_class else "ESCAPE"
        score = f"{defect_score(verdict.scores, good_class):.3f}" if verdict.scores else "none"
        axes.set_title(f"{kind}: {truth}\n{verdict.decision.value} {verdict.defect_class or ''} {score}", fontsize=8)
        axes.imshow(pictures[verdict.id][:, :, ::-1])
    return figure
