"""Training, warm starts, distillation and prediction on a small rendered product."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from inspection.contracts import Framing, Region
from inspection.data.pictures import encode_png
from inspection.data.snapshot_record import Example, Snapshot, Split
from inspection.errors import UsageError
from inspection.models import catalogue
from inspection.models.deploy import DeployGraph
from inspection.training.distil import distil
from inspection.training.engine import choose_precision
from inspection.training.fit import Start, train
from inspection.training.module import Distiller
from inspection.training.predict import predict
from inspection.training.record import Trained, load_trained
from tests.training.pictures import CLASSES, parts, product


@pytest.fixture(scope="module")
def snapshot_and_files() -> tuple[Snapshot, dict[str, bytes]]:
    """Seventy-two rendered parts of three classes."""
    return parts(72)


@pytest.fixture(scope="module")
def teacher(snapshot_and_files: tuple[Snapshot, dict[str, bytes]], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A network trained until it knows them."""
    snapshot, files = snapshot_and_files
    workdir = tmp_path_factory.mktemp("teacher")
    return train(snapshot, product(epochs=14), files.__getitem__, workdir)


def test_training_learns_visible_defects(teacher: Trained) -> None:
    """Dark pits and bright scratches are told apart well above chance within seconds."""
    assert teacher.best["val_balanced_accuracy"] >= 0.8
    assert teacher.classes == CLASSES


def test_the_best_epoch_is_the_one_kept(teacher: Trained, snapshot_and_files: tuple[Snapshot, dict[str, bytes]]) -> None:
    """The weights on disk reach the balanced accuracy of the epoch whose loss no other epoch undercuts."""
    snapshot, files = snapshot_and_files
    side = snapshot.of(Split.VALIDATION)
    found = predict(teacher, side, files.__getitem__).argmax(1)
    truth = np.array([CLASSES.index(e.label) for e in side])
    recall = [float((found[truth == k] == k).mean()) for k in range(3)]
    assert np.mean(recall) == pytest.approx(teacher.best["val_balanced_accuracy"], abs=0.06)
    assert min(h["val_loss"] for h in teacher.history) == teacher.best["val_loss"]


def test_a_training_of_five_steps_ends(snapshot_and_files: tuple[Snapshot, dict[str, bytes]], tmp_path: Path) -> None:
    """As short a cycle of the learning rate as it may be: one step an epoch."""
    snapshot, files = snapshot_and_files
    short = product(epochs=5)
    plan = short.train.model_copy(update={"batch_size": len(snapshot.of(Split.TRAIN))})
    trained = train(snapshot, short.model_copy(update={"train": plan}), files.__getitem__, tmp_path)
    assert len(trained.history) == 5


def test_predict_gives_probabilities_in_the_order_asked(
    teacher: Trained, snapshot_and_files: tuple[Snapshot, dict[str, bytes]]
) -> None:
    """Rows follow the examples, also when asked one by one, and sum to one."""
    snapshot, files = snapshot_and_files
    some = snapshot.examples[:7]
    together = predict(teacher, some, files.__getitem__, batch_size=4)
    alone = np.concatenate([predict(teacher, [e], files.__getitem__) for e in some])
    assert together.dtype == np.float32
    assert np.allclose(together, alone, atol=1e-4)
    assert np.allclose(together.sum(1), 1, atol=1e-5)


def test_a_picture_that_does_not_fit_is_named_by_predict(
    teacher: Trained, snapshot_and_files: tuple[Snapshot, dict[str, bytes]]
) -> None:
    """Whoever judges a thousand pictures learns which one it is."""
    snapshot, files = snapshot_and_files
    framed = Framing(Region(x=0, y=0, width=41, height=40))
    with pytest.raises(UsageError, match=f"picture {snapshot.examples[0].picture[:12]} of part p0: .*region of interest"):
        predict(teacher, snapshot.examples[:3], files.__getitem__, framed=framed)


def test_large_frames_go_in_smaller_batches() -> None:
    """As many at a time as 64 MB hold, at least one, and the order stays."""
    graph = DeployGraph(catalogue.build("test_efficientnet", 2, pretrained="none", height=32, width=32))
    asked: list[int] = []
    graph.register_forward_pre_hook(lambda _, given: asked.append(len(given[0])))
    sides = [40, 3000, 4800]
    files = {f"{side:064}": encode_png(np.full((side, side, 3), side % 251, np.uint8)) for side in sides}
    side_of = [40] * 9 + [3000] * 3 + [4800]
    examples = [
        Example(picture=f"{side:064}", label="good", part=f"p{n}", group="g", split=Split.GOLDEN)
        for n, side in enumerate(side_of)
    ]
    scores = predict(graph, examples, files.__getitem__, batch_size=8)
    assert asked == [8, 1, 2, 1, 1]
    assert len(scores) == 13


def test_a_folder_can_be_moved_and_holds_no_pickle(teacher: Trained, tmp_path: Path) -> None:
    """Two files, safetensors and JSON, say everything; the record names no folder."""
    moved = tmp_path / "elsewhere"
    shutil.copytree(teacher.folder, moved)
    assert sorted(p.name for p in moved.iterdir()) == ["trained.json", "weights.safetensors"]
    assert "folder" not in json.loads((moved / "trained.json").read_text())
    again = load_trained(moved)
    assert again.model_copy(update={"folder": teacher.folder}) == teacher
    ours, theirs = again.network().state_dict(), load_file(teacher.weights)
    assert all(torch.equal(ours[k], v) for k, v in theirs.items())


def test_an_empty_folder_is_no_trained_network(tmp_path: Path) -> None:
    """The error names the folder and what is missing."""
    with pytest.raises(UsageError, match=r"trained\.json is missing"):
        load_trained(tmp_path)


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    """Two trainings on a processor are equal bit for bit, and each epoch is reported once."""
    snapshot, files = parts(24)
    told: list[tuple[int, dict[str, float]]] = []
    runs = [
        train(snapshot, product(), files.__getitem__, tmp_path / str(n), on_epoch=lambda e, m: told.append((e, m)))
        for n in range(2)
    ]
    one, two = (load_file(r.weights) for r in runs)
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert [e for e, _ in told] == [0, 1, 0, 1]
    assert [m for _, m in told[:2]] == runs[0].history


def test_a_warm_start_knows_old_classes_by_name(teacher: Trained, tmp_path: Path) -> None:
    """With a new class in between, known classes are still recognised before any training has changed much."""
    classes = ["good", "dent", "pit", "scratch"]
    snapshot, files = parts(40, classes)
    plan = product(classes, epochs=1, learning_rate=1e-7)
    warm = train(snapshot, plan, files.__getitem__, tmp_path, warm_start=teacher.folder)
    known = [e for e in snapshot.examples if e.label in {"pit", "scratch"}]
    scores = predict(warm, known, files.__getitem__)[:, [0, 2, 3]]
    truth = np.array([["good", "pit", "scratch"].index(e.label) for e in known])
    assert (scores.argmax(1) == truth).mean() >= 0.7
    assert "3 of 4 classes known" in warm.started_from


def test_a_warm_start_from_another_backbone_says_so(teacher: Trained, tmp_path: Path) -> None:
    """Weights that cannot fit are not taken, and the record tells."""
    snapshot, files = parts(24)
    plan = product(backbone="test_efficientnet", epochs=1)
    cold = train(snapshot, plan, files.__getitem__, tmp_path, warm_start=teacher.folder)
    assert "no warm start: the champion is a test_resnet" in cold.started_from


def test_a_student_learns_from_its_teacher(
    teacher: Trained, snapshot_and_files: tuple[Snapshot, dict[str, bytes]], tmp_path: Path
) -> None:
    """Without any hard label, a network of another family comes to agree with the teacher; the teacher is unchanged."""
    snapshot, files = snapshot_and_files
    before = teacher.weights.read_bytes()
    plan = product()
    plan = plan.model_copy(
        update={"student": plan.student.model_copy(update={"epochs": 25, "hard_label_share": 0.0, "learning_rate": 1e-2})}
    )
    student = distil(teacher, snapshot, plan, files.__getitem__, tmp_path)
    scores = [predict(t, snapshot.examples, files.__getitem__).argmax(1) for t in (teacher, student)]
    assert (scores[0] == scores[1]).mean() >= 0.7
    assert student.backbone == "test_efficientnet"
    assert teacher.weights.read_bytes() == before


def test_a_teacher_of_other_classes_is_refused(teacher: Trained, tmp_path: Path) -> None:
    """Answers about other classes teach nothing."""
    snapshot, files = parts(12, ["good", "dent"])
    with pytest.raises(UsageError, match="train it anew"):
        distil(teacher, snapshot, product(["good", "dent"]), files.__getitem__, tmp_path)


@pytest.mark.parametrize(("epochs", "probed"), [(1, 0), (2, 0), (3, 1), (5, 1), (6, 2), (30, 2)])
def test_the_body_of_borrowed_weights_learns_however_few_epochs_there_are(epochs: int, probed: int) -> None:
    """The head alone for two epochs, or a third of those really trained; never where the plan or the weights say none."""
    net, plan = catalogue.build("test_resnet", 3, pretrained="none", height=32, width=32), product().train
    assert Start(net, "hub", borrowed=True).tuning(plan, 1e-3, epochs).probe_epochs == probed
    assert Start(net, "champion", warm=True).tuning(plan, 1e-3, epochs).probe_epochs == 0
    none = plan.model_copy(update={"probe_epochs": 0})
    assert Start(net, "hub", borrowed=True).tuning(none, 1e-3, epochs).probe_epochs == 0


def test_a_plan_that_has_the_head_alone_learn_is_refused(
    teacher: Trained, snapshot_and_files: tuple[Snapshot, dict[str, bytes]], tmp_path: Path
) -> None:
    """Before a picture is decoded; by the epochs of a warm start, and of a student, where those are trained."""
    snapshot, _ = snapshot_and_files
    nothing: dict[str, bytes] = {}
    with pytest.raises(UsageError, match=r"train\.probe_epochs 3 leaves nothing of 3 epochs"):
        train(snapshot, product(epochs=3, probe_epochs=3), nothing.__getitem__, tmp_path)
    warm = product(epochs=9, warm_epochs=2, probe_epochs=3)
    with pytest.raises(UsageError, match=r"train\.probe_epochs 3 leaves nothing of 2 epochs"):
        train(snapshot, warm, nothing.__getitem__, tmp_path, warm_start=teacher.folder)
    with pytest.raises(UsageError, match=r"train\.probe_epochs 3 leaves nothing of 2 epochs"):
        distil(teacher, snapshot, product(epochs=9, probe_epochs=3), nothing.__getitem__, tmp_path)


def test_a_side_without_pictures_is_a_usage_error(tmp_path: Path) -> None:
    """Nobody trains on nothing."""
    snapshot, files = parts(12)
    only_training = snapshot.model_copy(update={"examples": snapshot.of(Split.TRAIN)})
    with pytest.raises(UsageError, match="label more parts"):
        train(only_training, product(), files.__getitem__, tmp_path)


def test_patience_ends_a_training_that_learns_nothing(tmp_path: Path) -> None:
    """With a vanishing learning rate the run stops long before its epochs are over."""
    snapshot, files = parts(24)
    plan = product(epochs=30, patience=2, learning_rate=1e-12)
    assert len(train(snapshot, plan, files.__getitem__, tmp_path).history) < 30


def test_precision_follows_the_network_on_a_processor() -> None:
    """Asked-for precision wins; depthwise networks never get bf16 on a processor by themselves."""
    depthwise = catalogue.build("test_efficientnet", 2, pretrained="none", height=32, width=32)
    assert choose_precision("bf16", depthwise, "cpu") == "bf16"
    assert choose_precision("auto", depthwise, "cpu") == "32"


def test_teacher_and_student_of_other_sizes_see_the_same_crop(
    teacher: Trained, snapshot_and_files: tuple[Snapshot, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What each is given is the one augmented picture, resized by the product's own resize for whoever is smaller."""
    snapshot, files = snapshot_and_files
    plan = product()
    student = plan.student.model_copy(update={"height": 64, "width": 48, "epochs": 1})
    seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    transfer = Distiller.on_after_batch_transfer

    def watched(module: Distiller, batch: Any, index: int) -> Any:
        ready = transfer(module, batch, index)
        if module.training:
            seen.append((batch[0], ready[0], ready[4]))
        return ready

    monkeypatch.setattr(Distiller, "on_after_batch_transfer", watched)
    made = distil(teacher, snapshot, plan.model_copy(update={"student": student}), files.__getitem__, tmp_path)
    assert (made.height, made.width) == (64, 48)
    for given, to_student, to_teacher in seen:
        assert given.shape[1:] == (3, 64, 48)  # the larger of both
        assert to_teacher.shape[1:] == (3, 32, 32)
        frame = given.permute(0, 2, 3, 1)
        torch.testing.assert_close(to_student, made.preprocess()(frame))
        torch.testing.assert_close(to_teacher, teacher.preprocess()(frame))
    assert len({tuple(given.flatten()[:64].tolist()) for given, _, _ in seen}) > 1
