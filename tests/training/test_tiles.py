"""Pictures learnt and judged by their tiles."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inspection.contracts import ANY_DEFECT, Band, Limits, Recipe, Tiling, decide, worst
from inspection.data.snapshot_record import Split
from inspection.models.preprocess import Preprocess
from inspection.models.tiles import pooled, worst_tile
from inspection.training.cache import UNCLEAR
from inspection.training.distil import distil
from inspection.training.fit import train
from inspection.training.loading import SnapshotData, teachable, whole_pictures
from inspection.training.predict import predict
from tests.training.pictures import parts, product

GOOD, PIT, SCRATCH = range(3)


def test_what_is_known_teaches_alone_and_what_is_hidden_together() -> None:
    """A good picture's tiles, a boxed one's that are clear; all tiles of one without boxes, or with mere edges of them."""
    labels = np.array([GOOD, PIT, PIT, SCRATCH])
    tiles = np.array([[GOOD] * 3, [PIT, UNCLEAR, GOOD], [UNCLEAR] * 3, [UNCLEAR, GOOD, GOOD]])
    found = teachable(labels, tiles.ravel(), GOOD)
    shown = [(int(f), int(c), int(n)) for f, c, n in zip(found.first, found.count, found.labels, strict=True)]
    assert shown == [
        *[(row, 1, GOOD) for row in range(3)],
        (3, 1, PIT),
        (5, 1, GOOD),
        (6, 3, PIT),
        (9, 3, SCRATCH),
    ]


@given(hnp.arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 2)))
def test_one_tile_is_the_picture(labels: np.ndarray) -> None:
    """Without a tiling every picture is a portion with its own label, whatever is drawn on it."""
    found = teachable(labels, labels, GOOD)
    for one, other in zip((found.first, found.count, found.labels), vars(whole_pictures(labels, 1)).values(), strict=True):
        assert np.array_equal(one, other)


SCORES = hnp.arrays(np.float32, (4, 3), elements=st.floats(0.015625, 1, width=32)).map(
    lambda a: a / a.sum(1, keepdims=True)
)


@given(SCORES, st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_the_worst_tile_is_the_one_a_device_decides_by(scores: np.ndarray, one: float, other: float) -> None:
    """With a band on any defect: the picture's decision is that of its worst tile's scores."""
    recipe = Recipe(
        product="plate", version=1, good_class="good", limits=Limits(escape_rate=0.1, overkill_rate=0.1),
        thresholds={ANY_DEFECT: Band(inconclusive=min(one, other), ng=max(one, other))},
    )  # fmt: skip
    names = ["good", "pit", "scratch"]
    outcomes = [decide(dict(zip(names, map(float, row), strict=True)), recipe) for row in scores]
    chosen = worst_tile(scores, 4, GOOD)[0]
    assert decide(dict(zip(names, map(float, chosen), strict=True)), recipe).decision is worst(outcomes).decision
    assert np.array_equal(worst_tile(torch.from_numpy(scores), 4, GOOD)[0].numpy(), chosen)


def test_together_tiles_have_the_mean_of_their_odds() -> None:
    """As if their locations were one map; a portion of one tile keeps its logits."""
    odds = torch.tensor([[1.0, 2.0], [1.0, 4.0], [1.0, 8.0]])
    assert torch.allclose(pooled(odds.log(), [1, 2]), torch.tensor([[1.0, 2.0], [1.0, 6.0]]).log())
    alone = torch.randn(4, 3)
    assert pooled(alone, [1] * 4) is alone


GRID = Tiling(rows=2, columns=2, overlap=4)  # of 60 px: four tiles of the network's 32 px


@pytest.mark.parametrize("boxed", [True, False])
def test_defects_are_learnt_from_tiles(tmp_path: Path, *, boxed: bool) -> None:
    """With boxes, and where it is only known that one of four tiles shows it; the judge is the worst tile."""
    snapshot, files = parts(72, side=60, boxed=boxed)
    plan = product(epochs=6 if boxed else 10).model_copy(update={"tiling": GRID})
    trained = train(snapshot, plan, files.__getitem__, tmp_path)
    assert trained.best["val_balanced_accuracy"] >= 0.8
    side = snapshot.of(Split.VALIDATION)
    scores = predict(trained, side, files.__getitem__, framed=plan)
    truth = np.array([snapshot.classes.index(e.label) for e in side])
    found = scores.argmax(1)
    recall = [float((found[truth == k] == k).mean()) for k in range(3)]
    assert np.mean(recall) == pytest.approx(trained.best["val_balanced_accuracy"], abs=0.06)


def test_a_batch_has_no_more_tiles_than_the_plan_has_pictures(tmp_path: Path) -> None:
    """Portions of several tiles make a batch of fewer portions."""
    snapshot, files = parts(48, side=60)
    plan = product(batch_size=16).model_copy(update={"tiling": GRID})
    data = SnapshotData(snapshot, plan.train, Preprocess(32, 32, (0, 0, 0), (1, 1, 1)), steps=1)
    data.decode(files.__getitem__, tmp_path, plan)
    mean = data.portions[Split.TRAIN].count.mean()
    assert 1 < mean < 4
    for images, labels, places, counts in data.train_dataloader(data.draws()):
        assert len(images) == len(places) == sum(counts)
        assert len(labels) == len(counts) == 16 // round(mean)
    for images, labels, _, counts in data.val_dataloader():
        assert counts == [4] * len(labels)
        assert len(images) <= 16


def test_a_student_learns_tiles_as_its_teacher_does(tmp_path: Path) -> None:
    """Location by location where a picture's tiles are shown together, too."""
    snapshot, files = parts(24, side=60)
    plan = product(epochs=3).model_copy(update={"tiling": GRID})
    teacher = train(snapshot, plan, files.__getitem__, tmp_path / "teacher")
    student = distil(teacher, snapshot, plan, files.__getitem__, tmp_path / "student")
    assert student.history[-1]["loss"] < student.history[0]["loss"]
