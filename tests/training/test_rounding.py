"""A network that rounds answers as its int8 file does, and learns under its own names."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from inspection.data.pictures import decode_bgr
from inspection.data.snapshot_record import Snapshot, Split
from inspection.models import catalogue
from inspection.models.deploy import DeployGraph
from inspection.models.network import InspectionNet
from inspection.release.export import export_onnx
from inspection.release.measure import scores_of
from inspection.release.quantize import quantize_int8
from inspection.training.distil import distil
from inspection.training.engine import BestEpoch, Compute
from inspection.training.fit import keep, train
from inspection.training.module import Classifier, Tuning
from inspection.training.qat import _as_seen, train_rounded
from inspection.training.record import Trained, load_trained
from inspection.training.rounding import RoundedNet, rounded_weights
from tests.training.pictures import parts, product

SIDE = 64
Frame = NDArray[np.uint8]


def frames(count: int, seed: int) -> Iterator[Frame]:
    """Smooth random frames of changing size."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        shade = rng.integers(0, 200, (1, 1, 3))
        yield (shade + rng.integers(0, 56, (*rng.integers(60, 90, 2), 3))).astype(np.uint8)


CALIBRATION = list(frames(12, seed=1))


@pytest.fixture(scope="module", params=["test_efficientnet", "mobilenetv3_small_100"])
def net(request: pytest.FixtureRequest) -> InspectionNet:
    """A network whose normalization has seen pictures, and whose classifier is sharp enough for scores to differ."""
    torch.manual_seed(3)
    made = catalogue.build(request.param, 3, pretrained="none", height=SIDE, width=SIDE)
    seen = torch.cat(_as_seen(CALIBRATION, DeployGraph(made).preprocess))
    made.train()
    with torch.no_grad():
        for _ in range(30):
            made(seen)
    torch.nn.init.normal_(made.head.classifier.weight, std=0.5)
    return made.eval()


@pytest.fixture(scope="module")
def files(net: InspectionNet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Its files in float and int8."""
    folder = tmp_path_factory.mktemp("rounding")
    export_onnx(DeployGraph(net), folder / "float.onnx")
    quantize_int8(folder / "float.onnx", (frame[None] for frame in CALIBRATION), folder / "int8.onnx")
    return folder / "float.onnx", folder / "int8.onnx"


def observed(net: InspectionNet) -> RoundedNet:
    """The same network, rounding."""
    rounded = RoundedNet(net)
    rounded.observe(_as_seen(CALIBRATION, DeployGraph(net).preprocess))
    return rounded


def scores(net: InspectionNet, some: list[Frame]) -> NDArray[np.float32]:
    """What a network says of frames."""
    preprocess = DeployGraph(net).preprocess
    with torch.inference_mode():
        rows = [torch.softmax(net(preprocess(torch.from_numpy(frame)[None]))[0], 1).numpy() for frame in some]
    return np.concatenate(rows)


def test_it_rounds_where_the_quantizer_rounds(net: InspectionNet, files: tuple[Path, Path]) -> None:
    """The steps of the int8 file's convolutions are ours, whatever order they come in."""
    model = onnx.load(files[1])
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    made_by = {output: node for node in model.graph.node for output in node.output}
    steps = [(node.high - node.low).item() / 255 for node in observed(net).rounders.values()]  # type: ignore[operator]
    missing = []
    for node in (node for node in model.graph.node if node.op_type == "Conv"):
        before = made_by.get(node.input[0])
        if before is not None and before.op_type == "DequantizeLinear":
            step = float(values[before.input[1]])
            missing += [step] if not np.isclose(steps, step, rtol=1e-3).any() else []
    assert missing == []
    assert len(steps) > 30


def test_weights_are_rounded_as_the_quantizer_does(net: InspectionNet, files: tuple[Path, Path]) -> None:
    """The first convolution's, with its normalization folded in, to the step."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(files[1]).graph.initializer}
    name = next(name for name in values if name.endswith("conv_stem.weight_quantized"))
    theirs = values[name] * values[name.removesuffix("_quantized") + "_scale"].reshape(-1, 1, 1, 1)
    exact = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(files[0]).graph.initializer}
    folded = exact[name.removesuffix("_quantized")]
    np.testing.assert_allclose(rounded_weights(torch.from_numpy(folded.copy())).numpy(), theirs, rtol=1e-5, atol=1e-7)


def test_it_answers_as_its_int8_file(net: InspectionNet, files: tuple[Path, Path]) -> None:
    """Nearer than the float file is, though a network that learnt nothing magnifies every tie that is rounded otherwise."""
    unseen = list(frames(24, seed=9))
    exact, small = scores_of(files[0], unseen), scores_of(files[1], unseen)
    np.testing.assert_allclose(scores(net, unseen), exact, atol=1e-4)
    off = np.abs(scores(observed(net), unseen) - small).mean()
    assert off < 0.8 * np.abs(exact - small).mean()


def test_nothing_is_rounded_while_it_observes(net: InspectionNet) -> None:
    """The ranges are those of the exact network, as the quantizer takes them."""
    rounded, plain = RoundedNet(net), []
    preprocess = DeployGraph(net).preprocess
    pictures = _as_seen(CALIBRATION[:3], preprocess)
    rounded.register_forward_hook(lambda _module, _given, answer: plain.append(answer[0]))
    rounded.observe(pictures)
    with torch.no_grad():
        expected = [net(picture)[0] for picture in pictures]
    for ours, theirs in zip(plain, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_every_weight_can_learn_and_keeps_its_name(net: InspectionNet) -> None:
    """Gradients reach what the plain network would train, and the state is the plain network's."""
    rounded = observed(net)
    assert rounded.state_dict().keys() == net.state_dict().keys()
    picture = _as_seen(CALIBRATION[:2], DeployGraph(net).preprocess)
    rounded(torch.cat(picture))[0].square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
    net.zero_grad()


def untaught(backbone: str, snapshot: Snapshot, folder: Path) -> Trained:
    """A network as it was built, as if it had been trained."""
    net = catalogue.build(backbone, 3, pretrained="none", height=32, width=32)
    kept = BestEpoch(Classifier(net, Tuning(1e-3, 0.0)), 1, best_epoch=0, best_state=net.state_dict())
    kept.history.append({"val_loss": 1.0})
    return keep(folder, snapshot, net, kept, "nothing", "32", 0.0)


def test_on_several_devices_one_trains_with_rounding(tmp_path: Path) -> None:
    """The settings take all there are; a network that rounds cannot be handed to other processes."""
    snapshot, files = parts(12)
    plan = product()
    plan = plan.model_copy(update={"student": plan.student.model_copy(update={"qat_epochs": 1})})
    teacher, student = (untaught(b, snapshot, tmp_path / b) for b in ("test_resnet", "test_efficientnet"))
    shown = [decode_bgr(files[e.picture]) for e in snapshot.of(Split.TRAIN)]
    made = train_rounded(
        student, teacher, snapshot, plan, files.__getitem__, tmp_path / "rounded", shown, compute=Compute("cpu", devices=2)
    )
    assert len(made.history) == 1


@pytest.mark.slow
def test_training_with_rounding_gives_a_plain_student(tmp_path: Path) -> None:
    """It starts from the student, changes it, can be read again, and its int8 file answers as it did while it learnt."""
    snapshot, files = parts(32)
    plan = product()
    teacher = train(snapshot, plan, files.__getitem__, tmp_path / "teacher")
    student = distil(teacher, snapshot, plan, files.__getitem__, tmp_path / "student")
    plan = plan.model_copy(update={"student": plan.student.model_copy(update={"qat_epochs": 2})})
    where = tmp_path / "rounded"
    shown = [decode_bgr(files[e.picture]) for e in snapshot.of(Split.TRAIN)]
    made = train_rounded(student, teacher, snapshot, plan, files.__getitem__, where, shown)
    assert (made.backbone, len(made.history)) == (student.backbone, 2)
    assert made.started_from.startswith("trained with rounding for 2 epochs; distilled from test_resnet")
    again = load_trained(where / "trained").network().state_dict()
    before = student.network().state_dict()
    assert any((again[name] != before[name]).any() for name in again if name.endswith("weight"))
    assert all((again[name] == before[name]).all() for name in again if "running" in name)
    export_onnx(made.deploy_graph(), tmp_path / "float.onnx")
    quantize_int8(tmp_path / "float.onnx", (frame[None] for frame in shown), tmp_path / "int8.onnx")
    learnt = RoundedNet(made.network())
    learnt.observe(_as_seen(shown, made.preprocess()))
    # So little was learnt that the float file is as near: the tests above tell the two apart.
    assert np.abs(scores(learnt, shown) - scores_of(tmp_path / "int8.onnx", shown)).mean() < 0.001
