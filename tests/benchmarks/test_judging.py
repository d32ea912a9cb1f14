"""The figures that all are judged by."""

import numpy as np
import pytest

from tests.benchmarks.judging import Side, markdown, of_classes, of_defects


def _side(defect_scores: list[float], labels: list[str]) -> Side:
    bad = np.array(defect_scores)
    return Side(np.stack([1 - bad, bad], 1), labels, ["ok", "scratch"], "ok")


def test_the_curve_takes_the_lowest_threshold_that_the_limit_affords() -> None:
    """Twenty good parts, one of them at 0.9: 5 % may be rejected, 2 % may not."""
    good = [0.1] * 19 + [0.9]
    golden = _side([*good, 0.05, 0.5, 0.95], ["ok"] * 20 + ["scratch"] * 3)
    found = of_defects(golden, None)
    assert found["escape at 5% overkill, curve"] == pytest.approx(1 / 3)
    assert found["escape at 2% overkill, curve"] == pytest.approx(2 / 3)
    assert found["threshold of validation at 5%: escape"] is None


def test_a_threshold_of_validation_is_judged_where_it_was_not_chosen() -> None:
    """Validation affords 0.3; on the test side that lets a defect through and rejects a good part."""
    validation = _side([0.2] * 20 + [0.4], ["ok"] * 20 + ["scratch"])
    golden = _side([0.1] * 9 + [0.6] + [0.25, 0.8], ["ok"] * 10 + ["scratch"] * 2)
    found = of_defects(golden, validation)
    assert found["threshold of validation at 5%: escape"] == 0.5
    assert found["threshold of validation at 5%: overkill"] == pytest.approx(0.1)
    assert found["threshold of validation at 5%: escape at most"] == pytest.approx(0.9747, abs=1e-4)  # 1 in 2, exact


def test_classes_are_named_by_their_highest_score() -> None:
    """Three of four right, all of one class and half of the other."""
    found = of_classes(_side([0.1, 0.2, 0.9, 0.4], ["ok", "ok", "scratch", "scratch"]))
    assert found["accuracy"] == 0.75
    assert found["balanced accuracy"] == 0.75
    assert found["macro F1"] == pytest.approx((0.8 + 2 / 3) / 2)


def test_a_table_leaves_empty_what_was_not_measured() -> None:
    """A row without a column's figure."""
    assert markdown([{"a": 1, "b": 0.12345}, {"a": None}], ["a", "b"]).splitlines()[2:] == ["| 1 | 0.1235 |", "|  |  |"]
