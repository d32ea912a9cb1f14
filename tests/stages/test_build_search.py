"""The search on a small real network: what is built, measured and chosen, on both runtimes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from inspection.data.product import OtherStudent, Product, StudentPlan
from inspection.data.snapshot_record import Split
from inspection.data.snapshots import build_snapshot
from inspection.errors import EnvironmentTroubleError
from inspection.models import catalogue
from inspection.release.export import Graph
from inspection.release.measure import scores_of
from inspection.release.search import PLAIN, QAT, Bar, Build, Measured, finalists
from inspection.release.trials import Trial, score, time_in_turns
from inspection.stages.build_search import FINALISTS, Chosen, Frames, Search, Student, calibration_frames, check_runtimes
from inspection.stages.material import Material
from inspection.stages.shrink import rule_of
from inspection.store.session import Store
from inspection.training.record import Trained, save_trained
from tests.stages.test_heritage import PRODUCT, _label, _take_in, save_product

SIDE = 48
PLAN = StudentPlan(
    backbone="test_efficientnet",
    calibration_pictures=8,
    quantizers=["minmax", "stem"],
    runtimes=["onnxruntime", "openvino"],
)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Material]:
    """Twenty pictures of each of three classes."""
    folder = tmp_path_factory.mktemp("store")
    with Store.open(f"sqlite:///{folder}/store.db", f"file://{folder}/blobs") as store:
        with store.begin() as session:
            save_product(session, PRODUCT)
        for number, name in enumerate(name for name in PRODUCT.classes for _ in range(20)):
            _label(store, _take_in(store, number), name)
        yield Material.load(store, "lid", build_snapshot(store, "lid").digest)


def student(folder: Path, sign: float = 1.0) -> Student:
    """A network with random weights, sharp enough for scores to differ; with ``sign`` -1 it says the opposite."""
    torch.manual_seed(3)
    net = catalogue.build("test_efficientnet", 3, pretrained="none", height=SIDE, width=SIDE)
    torch.nn.init.normal_(net.head.classifier.weight, std=0.5)
    net.head.classifier.weight.data *= sign
    spec = net.spec
    record = Trained(
        folder=folder / "trained", backbone=spec.backbone, classes=PRODUCT.classes, good_class="ok", height=SIDE,
        width=SIDE, mean=spec.mean, std=spec.std, snapshot="0" * 64, started_from="nothing", precision="32", history=[{}],
        best_epoch=0, seconds=0.0,
    )  # fmt: skip
    made = save_trained(record, net.state_dict())
    return Student(folder, made, made.deploy_graph())


def search(material: Material, plan: StudentPlan, *students: Student, kind: type[Search] = Search) -> Search:
    """With a teacher that says what the first student says."""
    product: Product = material.product.model_copy(update={"student": plan})
    material = Material(product, material.snapshot, material.store)
    frames = material.frames(material.of(Split.VALIDATION))
    graph = students[0].graph
    with torch.inference_mode():
        teacher = np.concatenate([graph(torch.from_numpy(frame)[None])[0].numpy() for frame in frames])
    return kind(material, list(students), rule_of(material, PRODUCT.classes, 1), lambda _: None, teacher=teacher)


@pytest.fixture(scope="module")
def chosen(material: Material, tmp_path_factory: pytest.TempPathFactory) -> tuple[Chosen, Student]:
    """A search over two runtimes, with limits that everything meets."""
    one = student(tmp_path_factory.mktemp("candidate") / "student")
    plan = PLAN.model_copy(update={"min_agreement": 0.0, "max_balanced_accuracy_drop": 1.0})
    return search(material, plan, one).run(), one


def test_everything_that_was_asked_for_is_measured_and_timed(chosen: tuple[Chosen, Student]) -> None:
    """Float, plain and the plan's quantizers, each on both runtimes, in turns with the reference."""
    found = chosen[0].found
    assert {(m.build.quantizer, m.build.runtime) for m in found} == {
        (quantizer, runtime) for quantizer in ("float", PLAIN, *PLAN.quantizers) for runtime in PLAN.runtimes
    }
    assert all(m.error is None and m.speedup and m.latency_ms for m in found)
    reference = found[0]
    assert (reference.build.quantizer, reference.speedup, reference.agreement, reference.accuracy_drop) == (
        "float",
        1,
        1,
        0,
    )
    assert reference.teacher_agreement == 1
    elsewhere = next(m for m in found if m.build.quantizer == "float" and m.build.runtime == "openvino")
    assert (elsewhere.agreement, elsewhere.accuracy_drop) == (1, 0)  # the same answers on another runtime


def test_what_is_chosen_comes_with_its_own_scores_and_recipe(material: Material, chosen: tuple[Chosen, Student]) -> None:
    """It is one of those that were timed often; what was answered is what its file says on its own runtime."""
    made, one = chosen
    assert made.measured.build in finalists(made.found, Bar(0.0, 1.0), FINALISTS)
    frames = material.frames(material.of(Split.VALIDATION))
    file = one.folder.parent / made.measured.file
    if made.measured.build.runtime == "onnxruntime":
        expected = scores_of(file, frames)
    else:
        expected = np.asarray(score([Trial(file, "openvino")], 3, frames)[0].scores, np.float32)
    np.testing.assert_array_equal(made.answers.scores, expected)
    assert made.recipe.version == 1


def test_training_with_rounding_begins_only_where_no_file_is_good_enough(material: Material, tmp_path: Path) -> None:
    """Then its file is one more candidate, calibrated on the same pictures and measured against the same student."""
    asked: list[Frames] = []
    one = student(tmp_path / "student")

    def rounded(frames: Frames) -> Graph:
        asked.append(frames)
        return one.graph

    plan = PLAN.model_copy(update={"runtimes": ["onnxruntime"], "quantizers": [], "min_agreement": 0.0})
    search(material, plan.model_copy(update={"max_balanced_accuracy_drop": 1.0}), one).run(rounded)
    assert asked == []
    strict = search(material, plan.model_copy(update={"min_agreement": 0.9}), one, kind=_Strict)
    made = strict.run(rounded)
    assert [len(frames) for frames in asked] == [len(calibration_frames(strict.material))]
    assert [m.build.quantizer for m in made.found] == ["float", PLAIN, QAT]
    assert made.found[2].length > 0
    assert made.measured == made.found[0]  # what was learnt is no better here, and float is shipped


class _Strict(Search):
    """One that finds every int8 file to decide otherwise."""

    def _measured(self, build: Build) -> Measured:
        one = super()._measured(build)
        return one if build.quantizer == "float" else one.model_copy(update={"agreement": 0.5})


def test_every_student_is_measured_against_the_first(material: Material, tmp_path: Path) -> None:
    """Another network has its own float file and verdicts; what it loses counts against the plan's own."""
    first, second = student(tmp_path / "student"), student(tmp_path / "student-2", sign=-1.0)
    plan = PLAN.model_copy(update={"quantizers": ["minmax"], "runtimes": ["onnxruntime"]})
    found = search(material, plan, first, second).run().found
    by_name = {(m.build.student, m.build.quantizer): m for m in found}
    assert len(by_name) == 6
    other = by_name["student-2", "float"]
    assert other.agreement == 1.0  # with itself
    assert other.teacher_agreement < 1.0
    assert (tmp_path / "student-2-int8.onnx").exists()


def test_alternatives_are_plans_of_their_own() -> None:
    """Network, weights and size are replaced, the rest stays."""
    other = OtherStudent(backbone="resnet18", pretrained="hub", height=96, width=64)
    plan = StudentPlan(epochs=7, alternatives=[other])
    assert [(p.backbone, p.pretrained, p.height, p.width, p.epochs) for p in plan.students()] == [
        ("mobilenetv4_conv_small", "none", None, None, 7),
        ("resnet18", "hub", 96, 64, 7),
    ]


def test_a_file_that_fails_is_named_and_the_others_go_on(chosen: tuple[Chosen, Student], tmp_path: Path) -> None:
    """In the very process that scores and times the others."""
    broken, file = tmp_path / "broken.onnx", chosen[1].file("float")
    broken.write_bytes(b"nothing")
    frames = [np.zeros((SIDE, SIDE, 3), np.uint8)] * 2
    trials = [Trial(broken, "onnxruntime"), Trial(file, "onnxruntime"), Trial(broken, "openvino")]
    failed, fine, also = score(trials, 3, frames)
    assert "does not load" in str(failed.error)
    assert "does not load" in str(also.error)
    np.testing.assert_array_equal(np.asarray(fine.scores, np.float32), scores_of(file, frames))
    times = time_in_turns(trials[:2], 3, (SIDE, SIDE, 3), runs=5)
    assert [len(tried.milliseconds) for tried in times] == [0, 5]
    assert times[1].times.min() > 0


def test_a_runtime_that_is_not_there_stops_the_build_in_words(chosen: tuple[Chosen, Student]) -> None:
    """A plan that asks for it was meant."""
    with pytest.raises(EnvironmentTroubleError, match="'tensorrt', which this agent does not know"):
        time_in_turns([Trial(chosen[1].file("float"), "tensorrt")], 3, (SIDE, SIDE, 3), runs=1)


def test_a_missing_runtime_is_told_before_anything_is_distilled(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install; a plan without it needs nothing."""
    monkeypatch.setattr("inspection.stages.build_search.find_spec", lambda name: None if name == "openvino" else object())
    with pytest.raises(EnvironmentTroubleError, match="pip install openvino"):
        check_runtimes(PLAN)
    check_runtimes(StudentPlan())
