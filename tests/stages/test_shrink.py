"""Which of the two files goes to a device."""

import pytest

from inspection.data.product import StudentPlan
from inspection.stages.shrink import choose_precision

PLAN = StudentPlan(min_agreement=0.97, max_balanced_accuracy_drop=0.02)


@pytest.mark.parametrize(
    ("agreement", "drop", "speedup", "chosen"),
    [
        (1.0, 0.0, 1.5, "int8"),
        (0.97, 0.02, 1.01, "int8"),
        (1.0, -0.1, 1.5, "int8"),
        (0.969, 0.0, 3.0, "float32"),
        (1.0, 0.021, 3.0, "float32"),
        (1.0, 0.0, 1.0, "float32"),
        (1.0, 0.0, 0.7, "float32"),
    ],
)
def test_int8_is_shipped_only_when_it_is_faster_and_says_what_float_says(
    agreement: float, drop: float, speedup: float, chosen: str
) -> None:
    """A small file that is no faster, or that decides otherwise, is not worth its loss; the plan's limits are included."""
    assert choose_precision(agreement, drop, speedup, PLAN) == chosen
