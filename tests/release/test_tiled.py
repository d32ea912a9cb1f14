"""A product with a tiling: what training measures is what the device does."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from inspection.contracts import InputDescription, Tiling
from inspection.data.snapshot_record import Split
from inspection.release.bundle import choose_self_test, pack
from inspection.release.evaluate import judged
from inspection.release.export import export_onnx
from inspection.release.replay import golden_pictures, replay
from inspection.release.thresholds import calibrate
from inspection.training.fit import train
from inspection.training.predict import predict
from tests.training.pictures import parts, product


def test_the_device_gives_each_picture_the_scores_that_thresholds_were_set_on(tmp_path: Path) -> None:
    """The bundle, replayed by the agent, cuts the recipe's tiles and decides by the worst: score by score and verdict by
    verdict as calibration saw it."""
    snapshot, files = parts(32, side=60, boxed=True)
    plan = product(epochs=2).model_copy(update={"tiling": Tiling(rows=2, columns=2, overlap=4)})
    trained = train(snapshot, plan, files.__getitem__, tmp_path)
    side = snapshot.of(Split.VALIDATION)
    scores = predict(trained, side, files.__getitem__, framed=plan)
    recipe = calibrate(scores, [e.label for e in side], trained.classes, plan, version=1)
    assert recipe.tiling == plan.tiling
    onnx = tmp_path / "model.onnx"
    export_onnx(trained.deploy_graph(), onnx)
    by_class = {
        e.picture: dict(zip(trained.classes, map(float, row), strict=True)) for e, row in zip(side, scores, strict=True)
    }
    cases = choose_self_test(by_class, recipe)
    bundle = pack(
        {"model.onnx": onnx.read_bytes(), "recipe.json": recipe.canonical()}
        | {case.path: files[key] for key, case in cases.items()},
        name="plate-edge",
        version=1,
        product=plan.name,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        backbone=trained.backbone,
        precision="float32",
        input=InputDescription(model_height=32, model_width=32),
        classes=trained.classes,
        good_class="good",
        self_test=list(cases.values()),
    )
    found = {v.part: v for v, _ in replay(bundle, golden_pictures(side, files.__getitem__))}
    for expected, _ in judged(scores, trained.classes, side, recipe):
        verdict = found[expected.part]
        assert verdict.scores == pytest.approx(expected.scores, abs=2e-3)
        assert (verdict.decision, verdict.recipe_digest) == (expected.decision, recipe.digest)
    assert np.ptp(scores[:, 0]) > 0.01  # the pictures are told apart: the comparison could have failed
