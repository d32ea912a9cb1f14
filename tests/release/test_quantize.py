"""Quantization and latency."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from inspection.errors import EnvironmentTroubleError, UsageError
from inspection.models import catalogue
from inspection.models.deploy import DeployGraph
from inspection.release.export import export_onnx
from inspection.release.measure import compare_latency, latency, scores_of
from inspection.release.quantize import Calibration, _name_all, float_nodes, quantize_int8, stem_nodes


def frames(count: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """Smooth random frames of changing size."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        shade = rng.integers(0, 200, (1, 1, 1, 3))
        yield (shade + rng.integers(0, 56, (1, *rng.integers(40, 90, 2), 3))).astype(np.uint8)


@pytest.fixture(scope="module")
def float_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small float export whose classifier is sharp enough for scores to differ."""
    torch.manual_seed(3)
    net = catalogue.build("test_efficientnet", 3, pretrained="none", height=64, width=64)
    torch.nn.init.normal_(net.head.classifier.weight, std=0.5)
    path: Path = tmp_path_factory.mktemp("quantize") / "float.onnx"
    export_onnx(DeployGraph(net), path)
    return path


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_int8_scores_stay_close_to_float(float_path: Path, tmp_path: Path, method: Calibration) -> None:
    """Every calibration method gives a file that answers nearly alike."""
    out = tmp_path / "int8.onnx"
    quantize_int8(float_path, frames(8, seed=1), out, method=method)
    unseen = list(frames(20, seed=2))
    assert np.abs(scores_of(float_path, unseen) - scores_of(out, unseen)).mean() < 0.05


def test_preprocessing_and_head_stay_in_float(float_path: Path, tmp_path: Path) -> None:
    """The backbone's convolutions read quantized tensors; the normalization and the classifier do not."""
    out = tmp_path / "int8.onnx"
    quantize_int8(float_path, frames(4, seed=1), out)
    model = onnx.load(out)
    made_by = {o: n.op_type for n in model.graph.node for o in n.output}
    convolutions = [n for n in model.graph.node if n.op_type in {"Conv", "Gemm"}]
    floats = [n for n in convolutions if made_by.get(n.input[1]) != "DequantizeLinear"]
    assert len(floats) == 2
    assert len(convolutions) > 10
    assert any("preprocess." in i for n in floats for i in n.input)
    assert any("classifier" in i for n in floats for i in n.input)


def test_a_stem_that_stays_in_float_is_all_of_it(float_path: Path, tmp_path: Path) -> None:
    """The first three convolutions of the backbone and their activations, one after the other; the next one is int8."""
    out = tmp_path / "stem.onnx"
    quantize_int8(float_path, frames(4, seed=1), out, float_stem=True)
    model = onnx.load(out)
    made_by = {o: n.op_type for n in model.graph.node for o in n.output}
    convolutions = [n for n in model.graph.node if n.op_type == "Conv" and not any("preprocess." in i for i in n.input)]
    floats = [made_by.get(n.input[1]) != "DequantizeLinear" for n in convolutions]
    assert floats[:4] == [True, True, True, False]
    first = next(i for i, n in enumerate(model.graph.node) if n == convolutions[0])
    third = next(i for i, n in enumerate(model.graph.node) if n == convolutions[2])
    between = {n.op_type for n in list(model.graph.node)[first:third]}
    assert not between & {"QuantizeLinear", "DequantizeLinear"}
    behind = [n for n in model.graph.node if convolutions[2].output[0] in n.input]
    assert {n.op_type for n in behind} == {"Sigmoid", "Mul"}  # SiLU, written out, and whole
    assert made_by[convolutions[3].input[0]] == "DequantizeLinear"


@pytest.mark.parametrize(
    ("backbone", "beginning", "next_one"),
    [
        ("mobilenetv2_035", "Conv Clip Conv Clip Conv", "Conv"),
        (
            "mobilenetv3_small_050",  # with a gate whose convolutions see means alone, and do not count
            "Conv HardSigmoid Mul Conv Relu ReduceMean Conv Relu Conv HardSigmoid Mul Conv",
            "Conv",
        ),
        ("vit_tiny_patch16_224", "Conv", "Reshape"),  # attention is no beginning
        ("lenet5", "Conv Tanh AveragePool Conv Tanh AveragePool Conv Tanh", "Conv"),
        ("resnet18", "Conv Relu MaxPool Conv Relu Conv", "Add"),
        ("convnext_atto", "Conv Transpose LayerNormalization Transpose " * 2 + "Conv Div Erf Add Mul Mul", "Conv"),
    ],
)
def test_what_the_stem_is_of_each_kind_of_network(backbone: str, beginning: str, next_one: str, tmp_path: Path) -> None:
    """Three convolutions, or those before attention, and the activation of the last, whole; nothing further down, though
    nodes have no names."""
    net = catalogue.build(backbone, 3, pretrained="none", height=64, width=64)
    export_onnx(DeployGraph(net), tmp_path / "float.onnx")
    quant_pre_process(str(tmp_path / "float.onnx"), str(tmp_path / "prepared.onnx"), skip_symbolic_shape=True)
    model = onnx.load(tmp_path / "prepared.onnx")
    _name_all(model)
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    elsewhere = float_nodes(model)
    stem = stem_nodes(model, elsewhere)
    backbone_nodes = [node for node in model.graph.node if node.name not in elsewhere]
    assert [node.op_type for node in backbone_nodes if node.name in stem] == beginning.split()
    assert [node.name for node in backbone_nodes[: len(stem)]] == stem
    assert backbone_nodes[len(stem)].op_type == next_one


def test_a_float_stem_spares_channels_that_int8_cannot_see(tmp_path: Path) -> None:
    """Learnt networks have first channels far fainter than others, which the depthwise one behind them magnifies: with one
    scale for all they are lost in a step of int8. The file with a float stem is far nearer to float."""
    torch.manual_seed(3)
    net = catalogue.build("mobilenetv2_035", 3, pretrained="none", height=64, width=64)
    torch.nn.init.normal_(net.head.classifier.weight, std=0.5)
    stem, depthwise = net.features.body.bn1, net.features.body.blocks[0][0].conv_dw
    with torch.no_grad():
        faint = slice(0, len(stem.weight) // 2)
        stem.weight[faint] /= 100
        stem.bias[faint] /= 100
        depthwise.weight[faint] *= 100
    exact = tmp_path / "float.onnx"
    export_onnx(DeployGraph(net), exact)
    unseen = list(frames(20, seed=2))
    off = {}
    for name, kept in (("minmax", False), ("stem", True)):
        quantize_int8(exact, frames(16, seed=1), tmp_path / f"{name}.onnx", float_stem=kept)
        off[name] = float(np.abs(scores_of(exact, unseen) - scores_of(tmp_path / f"{name}.onnx", unseen)).mean())
    assert off["stem"] < 0.5 * off["minmax"], off


def test_leaving_the_ends_in_float_is_no_worse_than_the_plain_quantizer(float_path: Path, tmp_path: Path) -> None:
    """The scores are closer to float than, or as close as, those of the quantizer with nothing excluded."""
    ours, plain = tmp_path / "ours.onnx", tmp_path / "plain.onnx"
    quantize_int8(float_path, frames(16, seed=1), ours)
    reader = iter([{"frame": f} for f in frames(16, seed=1)])

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            return next(reader, None)

    quantization.quantize_static(
        str(float_path), str(plain), Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
    )  # fmt: skip
    unseen = list(frames(40, seed=9))
    wanted = scores_of(float_path, unseen)
    errors = [np.abs(scores_of(p, unseen) - wanted).mean() for p in (ours, plain)]
    assert errors[0] <= errors[1] + 0.002


def test_no_calibration_picture_is_a_usage_error(float_path: Path, tmp_path: Path) -> None:
    """Nothing is written when there is nothing to calibrate with."""
    with pytest.raises(UsageError, match="calibration"):
        quantize_int8(float_path, [], tmp_path / "int8.onnx")
    assert not list(tmp_path.iterdir())


def test_the_float_nodes_are_named_from_the_graph_itself(float_path: Path) -> None:
    """Resize, normalization, pooling and softmax are among them; no backbone convolution is."""
    model = onnx.load(float_path)
    left = set(float_nodes(model))
    kinds = {n.op_type for n in model.graph.node if n.name in left}
    assert {"Cast", "Resize", "Softmax", "ReduceLogSumExp"} <= kinds
    backbone = [n.name for n in model.graph.node if any("features.body" in i for i in n.input)]
    assert backbone
    assert left.isdisjoint(backbone)


def test_latency_is_taken_in_a_process_without_torch(float_path: Path) -> None:
    """The probe answers with ordered percentiles over the asked number of runs (it refuses to run beside torch)."""
    taken = latency(float_path, (64, 64, 3), runs=20)
    assert 0 < taken.best_ms <= taken.p50_ms <= taken.p99_ms
    assert taken.runs == 20


def test_two_files_are_compared_in_turns(float_path: Path) -> None:
    """A file compared with itself is as fast as itself."""
    compared = compare_latency(float_path, float_path, (64, 64, 3), runs=60)
    assert compared.speedup == pytest.approx(1, abs=0.5)


def test_a_missing_file_fails_with_the_reason(tmp_path: Path) -> None:
    """The probe's own message reaches the caller."""
    with pytest.raises(EnvironmentTroubleError, match=r"nothing\.onnx"):
        latency(tmp_path / "nothing.onnx", (8, 8, 3), runs=1)
