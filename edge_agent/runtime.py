"""The inference port, and ONNX Runtime on the CPU behind it.

Invariants: the model gets raw uint8 frames and does its own preprocessing; it is loaded from bytes that were verified,
never again from disk; an answer that breaks the contract (shape, NaN, outside [0, 1]) is a ModelError, never a score.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from edge_agent.errors import AgentError, ModelError, ShortageError
from edge_agent.pictures import Image
from inspection.contracts import Manifest

_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(e for e in vars(ort_state).values() if isinstance(e, type) and issubclass(e, Exception)),
)
"""What ONNX Runtime raises: its own exceptions share no base class below Exception."""

_NO_MEMORY = ("bad_alloc", "allocate memory")
"""How ONNX Runtime says that memory ran out: in the words of exceptions that say other things too."""

_SUM_TOLERANCE = 0.02
"""How far class scores may be from summing to 1: int8 models requantize the softmax in steps of 1/256."""


@dataclass(frozen=True)
class Inference:
    """Scores float32 ``[N, K]`` in [0, 1] and defect maps float32 ``[N, h, w]`` in [0, 1]."""

    scores: NDArray[np.float32]
    defect_maps: NDArray[np.float32]


class Runtime(Protocol):
    """Something that runs a bundle's model."""

    def infer(self, frames: Image) -> Inference:
        """Frames uint8 ``[N, H, W, 3]`` BGR to scores and maps. ModelError when the model fails or talks nonsense,
        ShortageError when there is too little memory now."""


def _meant(error: Exception, words: str) -> AgentError:
    """A model that fails for want of memory has not failed itself."""
    return ShortageError(words) if any(said in str(error) for said in _NO_MEMORY) else ModelError(words)


class OnnxRuntime:
    """``model.onnx`` on ONNX Runtime's CPU provider with ``threads`` intra-op threads."""

    def __init__(self, model: bytes, manifest: Manifest, *, threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except _ERRORS as error:
            raise _meant(error, f"model {manifest.name} {manifest.version} does not load here: {error}") from error
        self._input = manifest.input.name
        self._outputs = [manifest.output.scores, manifest.output.defect_map]
        self._classes = len(manifest.classes)

    def infer(self, frames: Image) -> Inference:
        """See the port."""
        try:
            scores, maps = self._session.run(self._outputs, {self._input: frames})
        except _ERRORS as error:
            raise _meant(error, f"inference failed on a frame of shape {frames.shape}: {error}") from error
        return self._checked(scores, maps, len(frames))

    def _checked(self, scores: NDArray[np.float32], maps: NDArray[np.float32], count: int) -> Inference:
        if scores.shape != (count, self._classes) or maps.ndim != 3 or len(maps) != count:
            raise ModelError(f"model answered with shapes {scores.shape} and {maps.shape}")
        if not (np.isfinite(scores).all() and np.isfinite(maps).all()):
            raise ModelError("model answered with NaN or infinity")
        off = np.abs(scores.sum(axis=1) - 1.0).max()
        if off > _SUM_TOLERANCE or scores.min() < -_SUM_TOLERANCE:
            raise ModelError(f"class scores are no probabilities (sum is off by {off:.3f})")
        return Inference(np.clip(scores, 0.0, 1.0), np.clip(maps, 0.0, 1.0))
