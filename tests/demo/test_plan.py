"""What a demo of somebody's pictures runs on."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from sqlalchemy import func, select

from inspection.contracts import Tiling
from inspection.data.products import save_product
from inspection.demo import main
from inspection.demo.plan import NO_HUB, hub_answers, images_plan, rendered_plan
from inspection.demo.start import import_start
from inspection.errors import EnvironmentTroubleError, UsageError
from inspection.store.session import Store
from inspection.store.tables import QuarantineRow
from inspection.up.machine import state_lock


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


WHOLE, GRID = Tiling(), Tiling(rows=3, columns=3, overlap=40)


@pytest.mark.parametrize(
    ("defect", "tiling", "size"),
    [(100, WHOLE, 128), (60, WHOLE, 128), (30, WHOLE, 256), (10, WHOLE, 320), (30, GRID, 128), (10, GRID, 224)],
)
def test_small_defects_are_shown_larger(tmp_path: Path, defect: int, tiling: Tiling, size: int) -> None:
    """Boxes say how small they are: a dozen pixels across the usual one, within what two cores can train and what a
    picture, or a tile of it, has."""
    picture = bytes(cv2.imencode(".png", np.zeros((640, 640, 3), np.uint8))[1])
    rows, boxes = ["path,label"], ["path,x0,y0,x1,y1"]
    for number in range(120):
        (tmp_path / f"{number}.png").write_bytes(picture)
        label = ("ok", "scratch", "dent")[number % 3]
        rows.append(f"{number}.png,{label}")
        boxes += [f"{number}.png,5,5,{5 + defect},{5 + 2 * defect}"] if label != "ok" else []
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    (tmp_path / "boxes.csv").write_text("\n".join(boxes))
    product = images_plan(tmp_path, "ok", tiling).product
    assert (product.train.height, product.tiling) == (size, tiling)


@pytest.mark.parametrize(("answers", "weights"), [(True, "hub"), (False, "none")])
def test_real_pictures_want_learned_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: bool, weights: str
) -> None:
    """From the hub where it answers; where it does not, the report says so; a file of one's own comes first."""
    for label in ("ok", "dent"):
        (tmp_path / label).mkdir()
        for number in range(40):
            (tmp_path / label / f"{number}.png").write_bytes(b"no picture")
    monkeypatch.setattr(main, "hub_answers", lambda: answers)
    mine = tmp_path / "mine.pth"
    mine.touch()
    plan = main._plan(main.DemoOptions(images=tmp_path, good="ok", pretrained=str(mine)))
    assert plan.product.train.pretrained == str(mine)
    assert plan.product.student.pretrained == weights
    assert (NO_HUB in plan.schedule.notes) is not answers


def test_a_hub_that_is_not_there_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens on that port."""
    monkeypatch.setattr("inspection.demo.plan.ENDPOINT", "http://127.0.0.1:9")
    assert not hub_answers()


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


def test_a_network_or_weights_that_are_not_there_are_said_at_once(tmp_path: Path) -> None:
    """Before any server is started; a name that is nearly right gets a suggestion."""
    with pytest.raises(UsageError, match=r"no file of weights .*nowhere\.pth"):
        main._plan(main.DemoOptions(pretrained=str(tmp_path / "nowhere.pth")))
    with pytest.raises(UsageError, match="resnet18"):
        main._plan(main.DemoOptions(backbone="resnte18"))


def test_a_person_is_asked_less_than_a_script() -> None:
    """Few enough questions for a few minutes, and fewer answers than questions for a retrain."""
    plan = main._plan(main.DemoOptions(label_yourself=True))
    assert plan.product.retrain.min_new_labels < plan.ask == plan.product.collect.max_tasks_per_run <= 60


def test_a_demo_that_is_still_up_is_left_alone(tmp_path: Path) -> None:
    """A second one on the same folder is refused with the first one's pid; its files stay."""
    state = tmp_path / "demo-state"
    main._settings(state)
    with state_lock(state):
        (state / "kept").touch()
        with pytest.raises(EnvironmentTroubleError, match=f"pid {os.getpid()}"):
            main._settings(state)
        assert (state / "kept").exists()
    main._settings(state)
    assert not (state / "kept").exists()


def test_pictures_that_are_refused_are_counted_and_the_rest_comes_in(tmp_path: Path) -> None:
    """One corrupt file among a directory's does not end the demo; it lies in quarantine."""
    for label in ("ok", "dent"):
        (tmp_path / "d" / label).mkdir(parents=True)
        for number in range(60):
            noise = np.random.default_rng([number, len(label)]).integers(0, 255, (40, 40, 3), np.uint8)
            cv2.imwrite(str(tmp_path / "d" / label / f"{number}.png"), noise)
    plan = images_plan(tmp_path / "d", "ok")
    source = plan.schedule.start[0].source
    assert source is not None
    source.write_bytes(source.read_bytes()[:200])
    settings = main._settings(tmp_path / "state")
    with Store.open(settings.database_url, settings.blob_url) as store:
        with store.begin() as session:
            save_product(session, plan.product)
        assert import_start(store, settings, plan) == len(plan.schedule.start) - 1
        with store.begin(read_only=True) as session:
            assert session.scalar(select(func.count()).select_from(QuarantineRow)) == 1
