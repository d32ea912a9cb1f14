"""The renderer: reproducible, truthful, and without a cue that gives the class away."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from inspection.demo.renderer import GOOD, KINDS, NEW_KINDS, START_KINDS, Look, PartSpec, render, render_with_truth
from inspection.errors import UsageError

MARGIN = 4  # pixels a defect's light may reach beyond its box: interpolation, slope filter, lens blur


def spec(index: int, kind: str = GOOD, seed: int = 5, look: Look | None = None) -> PartSpec:
    """A part at an index."""
    return PartSpec(f"S1-{index:06d}", seed, index, kind, look or Look())


def outside(part: PartSpec) -> NDArray[np.bool_]:
    """Where a part's picture shows none of its defect."""
    truth = render_with_truth(part).truth
    free = np.ones((part.look.size, part.look.size), bool)
    for box in truth.boxes:
        x, y = int(box.x), int(box.y)
        free[max(0, y - MARGIN) : y + int(box.height) + MARGIN, max(0, x - MARGIN) : x + int(box.width) + MARGIN] = False
    return free


@settings(max_examples=25, deadline=None)
@given(index=st.integers(1, 5000), seed=st.integers(0, 2**31), kind=st.sampled_from((GOOD, *KINDS)))
def test_a_part_renders_the_same_for_ever(index: int, seed: int, kind: str) -> None:
    """The same specification gives the same bytes and truth."""
    first, again = (render_with_truth(spec(index, kind, seed)) for _ in range(2))
    assert np.array_equal(first.picture, again.picture)
    assert first.truth == again.truth


@settings(max_examples=40, deadline=None)
@given(index=st.integers(1, 5000), seed=st.integers(0, 2**31), kind=st.sampled_from(KINDS))
def test_a_defective_part_is_its_good_twin_plus_the_defect(index: int, seed: int, kind: str) -> None:
    """Outside the box not one pixel differs: noise, light and look-alikes cannot betray the class."""
    bad, good = render(spec(index, kind, seed)), render(spec(index, GOOD, seed))
    free = outside(spec(index, kind, seed))
    assert np.array_equal(bad[free], good[free])


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_is_visible_inside_its_box(kind: str) -> None:
    """Every defect changes what it covers by more than the sensor's noise, and one box holds it."""
    for index in range(1, 25):
        part = spec(index * 31, kind)
        bad, truth = render_with_truth(part)
        changed = cv2.absdiff(bad, render(spec(index * 31))).max(axis=2)
        assert len(truth.boxes) == 1
        assert (changed > 20).sum() >= 4, f"{kind} at index {part.index} cannot be seen"


@settings(max_examples=30, deadline=None)
@given(index=st.integers(1, 5000), kind=st.sampled_from(KINDS), size=st.sampled_from((96, 160, 224)))
def test_boxes_lie_in_the_picture(index: int, kind: str, size: int) -> None:
    """A box is inside the picture, at least two pixels wide, and names the kind."""
    truth = render_with_truth(spec(index, kind, look=Look(size=size))).truth
    (box,) = truth.boxes
    assert min(box.width, box.height) >= 2
    assert box.x + box.width <= size
    assert box.y + box.height <= size
    assert (box.label, truth.label, truth.kind) == (kind, kind, kind)
    assert (truth.width, truth.height) == (size, size)


def test_a_good_part_has_no_box() -> None:
    """Look-alikes are not defects."""
    for index in range(1, 40):
        truth = render_with_truth(spec(index, look=Look(size=96, lookalikes=1.0))).truth
        assert (truth.label, truth.boxes) == (GOOD, ())


def test_light_drifts_with_the_index() -> None:
    """Brightness averaged over a hundred parts moves by several percent along the run."""
    means = [np.mean([render(spec(start + i, look=Look(size=96))).mean() for i in range(60)]) for start in (1, 150, 500)]
    assert max(means) > 1.03 * min(means)


def test_harder_pictures_show_less() -> None:
    """The contrast factor makes defects fainter."""
    faint, strong = (
        np.mean([_contrast(index, Look(contrast=contrast)) for index in range(1, 20)]) for contrast in (0.4, 1.0)
    )
    assert faint < 0.7 * strong


def _contrast(index: int, look: Look) -> float:
    return float(cv2.absdiff(render(spec(index, "stain", look=look)), render(spec(index, look=look))).max())


def test_kinds_are_told_apart() -> None:
    """At least six kinds; those of the start and those that come later do not overlap."""
    assert len(KINDS) >= 6
    assert len(START_KINDS) + len(NEW_KINDS) >= 6
    assert not set(START_KINDS) & set(NEW_KINDS)
    with pytest.raises(UsageError, match="no defect kind 'rust'"):
        render(spec(1, "rust"))
