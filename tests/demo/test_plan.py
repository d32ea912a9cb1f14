"""What a demo of somebody's pictures runs on."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from inspection.demo.plan import images_plan, rendered_plan


@pytest.mark.parametrize(("side", "size"), [(20, 32), (70, 64), (600, 128)])
def test_small_pictures_are_not_enlarged(tmp_path: Path, side: int, size: int) -> None:
    """And one that cannot be read does not stop the others: the import puts it into quarantine."""
    picture = bytes(cv2.imencode(".png", np.zeros((side, side + 9, 3), np.uint8))[1])
    for label in ("ok", "scratch", "dent"):
        (tmp_path / label).mkdir()
        for number in range(40):
            (tmp_path / label / f"{number}.png").write_bytes(b"no picture" if number % 9 == 0 else picture)
    train = images_plan(tmp_path, "ok").product.train
    assert (train.height, train.width) == (size, size)


def test_learned_weights_are_fine_tuned_with_smaller_steps_than_random_ones(tmp_path: Path) -> None:
    """Teacher and student each by their own weights; what is not given stays as planned."""
    plan = rendered_plan()
    weights = tmp_path / "weights.pth"
    tuned = plan.tuned(pretrained=str(weights), student="mobilenetv2_100", size=256).product
    assert tuned.train.pretrained == str(weights)
    assert tuned.train.learning_rate < plan.product.train.learning_rate
    assert (tuned.train.height, tuned.train.width) == (256, 256)
    assert tuned.student.backbone == "mobilenetv2_100"
    assert tuned.student.learning_rate == plan.product.student.learning_rate
    assert tuned.train.backbone == plan.product.train.backbone
