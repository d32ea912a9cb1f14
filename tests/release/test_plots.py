"""Plots show what the scorecard says, in figures of their own."""

import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from inspection.contracts import Limits
from inspection.release.plots import (
    confusion_figure,
    escape_overkill_figure,
    offenders_figure,
    search_figure,
    worst_offenders,
)
from inspection.release.scorecard import score
from tests.release.making import verdict
from tests.release.test_search import REFERENCE, measured

JUDGED = [
    (verdict("a", "NG", 0.9, "dent"), "dent"),
    (verdict("b", "OK", 0.3), "dent"),
    (verdict("c", "OK", 0.1), "scratch"),
    (verdict("d", "OK", 0.2), "good"),
    (verdict("e", "NG", 0.7, "dent"), "good"),
    (verdict("f", "ERROR", None), "good"),
]
CARD = score(JUDGED, good_class="good")


def _drawn(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def test_worst_offenders_are_ordered_by_how_far_off_they_were() -> None:
    """Escapes first, the surest pass leading; then overkills, an error (no score) as the surest rejection."""
    assert [v.part for v, _ in worst_offenders(JUDGED, "good")] == ["c", "b", "f", "e"]
    assert [v.part for v, _ in worst_offenders(JUDGED, "good", count=1)] == ["c"]


def test_the_confusion_matrix_holds_every_count() -> None:
    """The numbers in the cells are those of the scorecard, zeros included."""
    texts = [t.get_text() for t in confusion_figure(CARD).axes[0].texts]
    assert sum(int(t) for t in texts) == len(CARD.parts)


def test_the_chosen_point_is_where_the_scorecard_says() -> None:
    """The black dot sits at (overkill, escape)."""
    figure = escape_overkill_figure(CARD, Limits(escape_rate=0.05, overkill_rate=0.1))
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert (dots[0].get_xdata()[0], dots[0].get_ydata()[0]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_every_timed_build_is_a_point_and_the_shipped_one_is_ringed() -> None:
    """By speed and points lost, one marker per runtime; what failed has no place."""
    other = measured("minmax", runtime="openvino", speedup=2.5, accuracy_drop=0.01)
    found = [REFERENCE, measured(), other, measured("tensor", speedup=None, error="does not load")]
    axes = search_figure(found, other).axes[0]
    points = sorted((x, y) for drawn in axes.collections for x, y in np.asarray(drawn.get_offsets()).tolist())
    assert points == [(1.0, 0.0), (2.0, 0.0), (2.5, 1.0)]
    ring = next(line for line in axes.lines if line.get_label() == "shipped")
    assert (ring.get_xdata(), ring.get_ydata()) == ([2.5], [1.0])


def test_figures_can_be_saved_and_leave_no_global_state(tmp_path: Path) -> None:
    """Every figure becomes a PNG; also with nothing to show; pyplot knows of none."""
    offenders = worst_offenders(JUDGED, "good")
    pictures = {v.id: np.full((8, 8, 3), 90, dtype=np.uint8) for v, _ in offenders}
    only_good = score([(verdict("g", "OK", 0.1), "good")], good_class="good")
    limits = Limits(escape_rate=0.05, overkill_rate=0.1)
    for figure in (
        confusion_figure(CARD),
        confusion_figure(only_good),
        escape_overkill_figure(CARD, limits),
        escape_overkill_figure(only_good, limits),
        offenders_figure(offenders, pictures, "good"),
        offenders_figure([], {}, "good"),
    ):
        assert _drawn(figure).startswith(b"\x89PNG")
    assert pyplot.get_fignums() == []
