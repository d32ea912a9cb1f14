"""float ONNX -> int8 ONNX (static, QDQ), by ONNX Runtime's own quantizer.

Invariants: calibration frames are raw uint8 frames of the training split, as the device would see them; preprocessing,
what is behind the backbone (head, novelty), and where asked for its first convolutions, stay in float32; weights are per
channel int8, activations uint8 (the pair that every x86 and ARM kernel of ONNX Runtime is written for). The caller decides
whether the result is good enough to ship.
"""

import io
import itertools
import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime import quantization as ort_quantization
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from onnxruntime.quantization.shape_inference import quant_pre_process

from inspection.errors import UsageError
from inspection.release.measure import session_of

Calibration = Literal["minmax", "entropy", "percentile"]
_METHODS = {
    "minmax": ort_quantization.CalibrationMethod.MinMax,
    "entropy": ort_quantization.CalibrationMethod.Entropy,
    "percentile": ort_quantization.CalibrationMethod.Percentile,
}
QUANTIZER_REFUSALS = (
    ort_errors.EPFail,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    onnx.checker.ValidationError,
    ValueError,
    RuntimeError,
)
"""What ONNX Runtime raises on a graph that it cannot make int8, or cannot run."""

_STEM_CONVOLUTIONS = 3  # so many of a network's first lose most, and gain least, by int8 (README.md)
_ACTIVATIONS = {
    "Relu",
    "Clip",
    "HardSwish",
    "HardSigmoid",
    "Sigmoid",
    "LeakyRelu",
    "PRelu",
    "Tanh",
    "Elu",
    "Mul",
    "Div",
    "Erf",
    "Add",
}
_LINEAR = {"Gemm", "MatMul"}
_MEANS = {"ReduceMean", "GlobalAveragePool"}
_PERCENTILE = 99.99  # of an activation's values lie within its scale, by that method
_PREPROCESS, _HEAD, _NOVELTY = "preprocess.", "net.head.laterals.", "novelty."  # prefixes of weights' names in our exports


def quantize_int8(
    float_path: Path,
    calibration_frames: Iterable[NDArray[np.uint8]],
    out_path: Path,
    *,
    method: Calibration = "minmax",
    per_channel: bool = True,
    plain: bool = False,
    float_stem: bool = False,
) -> None:
    """Write an int8 version of an exported model.

    ``calibration_frames``: uint8 ``[1, H, W, 3]`` each, of any size. ``per_channel``: a scale for each channel of the
    weights, else one per tensor. ``plain``: as `quantize_static` does it by itself, nothing prepared, and nothing but
    novelty left in float. ``float_stem``: the backbone's beginning is left in float, too. Raises UsageError without frames.
    """
    frames = iter(calibration_frames)
    first = next(frames, None)
    if first is None:
        raise UsageError("quantization needs calibration pictures and got none: give some of the training split")
    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared, written = float_path if plain else Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        if not plain:
            # Symbolic inference chokes on free frame sizes; the exporter has written all shapes the quantizer asks for.
            quant_pre_process(str(float_path), str(prepared), skip_symbolic_shape=True)
        model = onnx.load(prepared)
        if _name_all(model):
            prepared = Path(folder) / "named.onnx"
            onnx.save(model, prepared)
        kept = _behind(model, _NOVELTY) if plain else float_nodes(model)
        if float_stem:
            kept += stem_nodes(model, kept)
        ort_quantization.quantize_static(
            str(prepared),
            str(written),
            _Frames(_at_working_size(float_path, itertools.chain([first], frames))),
            quant_format=ort_quantization.QuantFormat.QDQ,
            per_channel=per_channel,
            activation_type=ort_quantization.QuantType.QUInt8,
            weight_type=ort_quantization.QuantType.QInt8,
            nodes_to_exclude=kept,
            calibrate_method=_METHODS[method],
            # Histograms picture by picture: all tensors of all pictures at once took 3 GB for 128 of 224 px.
            extra_options={} if method == "minmax" else {"CalibPercentile": _PERCENTILE, "CalibStridedMinMax": 1},
        )
        onnx.checker.check_model(str(written))
        shutil.move(written, out_path)


def first_line(error: Exception) -> str:
    """What is wrong in a line: the quantizer's complaints go on for pages, or say nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _at_working_size(path: Path, frames: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Frames after the model's own resize, rounded to uint8 ``[1, h, w, 3]``.

    The calibrators keep every tensor of a frame: better of a small one, and all are as large as each other.
    """
    model = onnx.load(path)
    resized = next(n for n in model.graph.node if n.op_type == "Resize").output[0]
    del model.graph.output[:]  # ONNX Runtime leaves out what the new output does not need
    model.graph.output.append(onnx.helper.make_tensor_value_info(resized, onnx.TensorProto.FLOAT, None))
    session = session_of(model.SerializeToString())
    for frame in frames:
        planes = session.run(None, {"frame": frame})[0]
        yield np.ascontiguousarray(planes.round().clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1))


class _Frames(ort_quantization.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Hands frames to the calibrator one by one, or a range of them."""

    def __init__(self, frames: Iterator[NDArray[np.uint8]]) -> None:
        self._kept = list(frames)
        self._frames = iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._frames = iter(self._kept[start_index:end_index])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        frame = next(self._frames, None)
        return None if frame is None else {"frame": frame}


def float_nodes(model: Any) -> list[str]:
    """Names of the nodes that stay in float: all before the backbone, all behind the head's first convolutions, and novelty
    (distances magnify the directions in which good parts hardly differ, and a step of int8 with them)."""
    names: list[str] = []
    backbone: set[str] = set()  # tensors made by the backbone or later
    head: set[str] = set()  # tensors made by the head, or of novelty
    for node in model.graph.node:  # ONNX keeps nodes in topological order
        inputs = list(node.input)
        lateral = _is_lateral(node)
        if lateral or any(i.startswith(_NOVELTY) for i in inputs) or not head.isdisjoint(inputs):
            head.update(node.output)
        if _is_backbone_convolution(node) or not backbone.isdisjoint(inputs):
            backbone.update(node.output)
        outputs = list(node.output)
        if backbone.isdisjoint(outputs) or (not lateral and not head.isdisjoint(outputs)):
            names.append(node.name)
    return names


def stem_nodes(model: Any, elsewhere: Iterable[str]) -> list[str]:
    """Names of the backbone's nodes up to its third convolution, with the activation that follows it; ``elsewhere`` are the
    nodes that are not of the backbone. Where attention begins before, up to the last convolution before it. Convolutions
    within a gate do not count.

    A whole beginning, not one convolution by itself: between int8 ones ONNX Runtime makes a float one's weights int8 as it
    loads the file, with one scale for all channels (1.32, its optimizer's ``WeightBiasQuantization``).
    """
    others = set(elsewhere)
    backbone = (node for node in model.graph.node if node.name not in others)
    nodes = list(itertools.takewhile(lambda node: node.op_type not in _LINEAR and not _is_lateral(node), backbone))
    convolutions = [place for place, node in enumerate(nodes) if node.op_type == "Conv" and not _gates(nodes, node)]
    if not convolutions:
        return []
    end = convolutions[:_STEM_CONVOLUTIONS][-1] + 1
    made = {output for node in nodes[:end] for output in node.output}
    while end < len(nodes) and nodes[end].op_type in _ACTIVATIONS and _alone(nodes[end], made):
        made.update(nodes[end].output)
        end += 1
    return [node.name for node in nodes[:end]]


def _is_lateral(node: Any) -> bool:
    return any(i.startswith(_HEAD) for i in node.input)


def _alone(node: Any, made: set[str]) -> bool:
    """Whether a node carries an activation on: it is no sum of two tensors, as that round a block is."""
    return node.op_type != "Add" or len(made & set(node.input)) == 1


def _gates(nodes: Sequence[Any], convolution: Any) -> bool:
    """Whether a convolution sees the mean of a picture alone, as those of squeeze-and-excitation do."""
    means: set[str] = set()
    for node in nodes:
        if node is convolution:
            break
        if node.op_type in _MEANS or (node.op_type != "Mul" and node.input and node.input[0] in means):
            means.update(node.output)
    return convolution.input[0] in means


def _name_all(model: Any) -> bool:
    """Give every node a name: those without one could not be told apart. Returns whether any had none."""
    unnamed = [node for node in model.graph.node if not node.name]
    taken = {node.name for node in model.graph.node}
    fresh = (name for name in (f"unnamed_{number}" for number in itertools.count()) if name not in taken)
    for node, name in zip(unnamed, fresh, strict=False):
        node.name = name
    return bool(unnamed)


def _behind(model: Any, prefix: str) -> list[str]:
    """Names of the nodes that read weights of this prefix, and of all that follow from those."""
    names: list[str] = []
    made: set[str] = set()
    for node in model.graph.node:
        if any(i.startswith(prefix) for i in node.input) or not made.isdisjoint(node.input):
            made.update(node.output)
            names.append(node.name)
    return names


def _is_backbone_convolution(node: Any) -> bool:
    learned = node.op_type in {"Conv", *_LINEAR}
    return learned and not any(i.startswith(_PREPROCESS) for i in node.input)


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer logs a warning per excluded tensor and advises a step we have just done."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):  # the histogram calibrators print their progress
            yield
    finally:
        logger.setLevel(before)
