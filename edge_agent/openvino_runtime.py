"""OpenVINO on the CPU behind the inference port: for stations that have it (``pip install openvino``).

Invariants: the same verified bytes of the same ``model.onnx``, the same checks of its answers; float stays float32,
whatever shorter floats the processor has, so that a score does not depend on where it is made.

OpenVINO 2026.4.1 reads our graph wrongly in two places, and both are mended as it is read; a self-test would refuse the
bundle otherwise. It drops the antialiasing of ``Resize`` (gray levels off by up to 70): the node becomes OpenVINO's own
Pillow resize, the same triangle filter (0.0001 gray levels). And with frames of free size the first answer after an ``If``
is made from memory nobody has written yet: each size of frame is compiled by itself, which also lets it drop the ``If``.
"""

import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ModelError
from edge_agent.pictures import Image
from edge_agent.runtime import BatchedRuntime, meant
from inspection.contracts import Manifest

# Importing OpenVINO tells its maker so, and writes to the home folder; without this package it does neither.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # what Python means by "not to be found"
import openvino  # noqa: E402
from openvino import opset11  # noqa: E402

_ERRORS = (RuntimeError, ValueError, TypeError)
_SIZES_KEPT = 4  # a station has one size of frame, or of tile, and a smaller last batch; a known part may have another


class _Compiled(threading.local):
    """A model compiled for one shape. Requests are not to be shared by threads: each makes its own."""

    def __init__(self, model: openvino.CompiledModel) -> None:
        self.request = model.create_infer_request()


class OpenVinoRuntime(BatchedRuntime):
    """``model.onnx`` on OpenVINO's CPU plugin with ``threads`` threads, made for the shortest answer (one stream).

    The first frame of a new size waits until the model is compiled for it (tenths of a second).
    """

    def __init__(self, model: bytes, manifest: Manifest, *, threads: int = 1) -> None:
        super().__init__(manifest, threads)
        self._core = openvino.Core()
        self._options = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self._lock = threading.Lock()
        self._compiled: OrderedDict[tuple[int, ...], _Compiled] = OrderedDict()
        try:
            self._model = self._core.read_model(model)
            _resize_like_onnx(self._model)
            missing = {self._input, *self._outputs} - {
                name for port in (*self._model.inputs, *self._model.outputs) for name in port.get_names()
            }
        except _ERRORS as error:
            raise meant(error, f"model {manifest.name} {manifest.version} does not load here: {error}") from error
        if missing:
            raise ModelError(f"model {manifest.name} {manifest.version} has no {', '.join(sorted(missing))}")

    def _run(self, batch: Image) -> Sequence[NDArray[np.float32]]:
        try:
            answer = self._for(batch.shape).request.infer({self._input: batch}, share_inputs=True)
            return [np.asarray(answer[name]) for name in self._outputs]
        except _ERRORS as error:
            raise meant(error, f"inference failed on a batch of shape {batch.shape}: {error}") from error

    def _for(self, shape: tuple[int, ...]) -> _Compiled:
        """The model for batches of ``shape``; the shape that was not used for longest makes room."""
        with self._lock:
            found = self._compiled.pop(shape, None)
            if found is None:
                model = self._model.clone()
                model.reshape({self._input: list(shape)})
                found = _Compiled(self._core.compile_model(model, "CPU", self._options))
            self._compiled[shape] = found
            if len(self._compiled) > _SIZES_KEPT:
                self._compiled.popitem(last=False)
            return found


def _resize_like_onnx(model: openvino.Model) -> None:
    """Give antialiased linear ``Resize`` nodes the filter that ONNX means."""
    for node in model.get_ops():
        if node.get_type_name() != "Interpolate" or not node.get_attributes().get("antialias"):
            continue
        axes = node.input_value(2) if node.get_input_size() > 2 else None
        given = node.get_attributes()["shape_calculation_mode"]  # sizes or scales
        mended = opset11.interpolate(node.input_value(0), node.input_value(1), "bilinear_pillow", given, axes=axes)
        for user in node.output(0).get_target_inputs():
            user.replace_source_output(mended.output(0))
