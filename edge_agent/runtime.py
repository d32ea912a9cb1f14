"""The inference port, and ONNX Runtime on the CPU behind it.

Invariants: the model gets raw uint8 frames and does its own preprocessing; it is loaded from bytes that were verified,
never again from disk; an answer that breaks the contract (shape, NaN, outside [0, 1]) is a ModelError, never a score.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
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
"""How runtimes say that memory ran out: in the words of exceptions that say other things too."""

_SUM_TOLERANCE = 0.02
"""How far class scores may be from summing to 1: int8 models requantize the softmax in steps of 1/256."""


@dataclass(frozen=True)
class Inference:
    """Scores float32 ``[N, K]`` in [0, 1], defect maps float32 ``[N, h, w]`` in [0, 1], and the novelty float32 ``[N]`` in
    [0, 1] of a model that gives one."""

    scores: NDArray[np.float32]
    defect_maps: NDArray[np.float32]
    novelty: NDArray[np.float32] | None = None


class Runtime(Protocol):
    """Something that runs a bundle's model."""

    def infer(self, tiles: Sequence[Image]) -> Inference:
        """Tiles uint8 ``[H, W, 3]`` BGR, all of one size, to the scores and maps of each. ModelError when the model fails
        or talks nonsense, ShortageError or MemoryError when there is too little memory now."""


def outputs_of(manifest: Manifest) -> list[str]:
    """Names of the outputs a runtime asks its model for, in the order `checked` takes their values."""
    named = manifest.output
    return [named.scores, named.defect_map, *([named.novelty] if named.novelty is not None else [])]


def checked(answers: Sequence[NDArray[np.float32]], count: int, classes: int) -> Inference:
    """What a model answered about ``count`` tiles, once it is sure to keep the contract. ModelError when it does not."""
    scores, maps = answers[:2]
    novelty = answers[2] if len(answers) > 2 else None
    if scores.shape != (count, classes) or maps.ndim != 3 or len(maps) != count:
        raise ModelError(f"model answered with shapes {scores.shape} and {maps.shape}")
    if novelty is not None and novelty.shape != (count,):
        raise ModelError(f"model answered with a novelty of shape {novelty.shape} about {count} pictures")
    if not all(np.isfinite(answer).all() for answer in answers):
        raise ModelError("model answered with NaN or infinity")
    off = np.abs(scores.sum(axis=1) - 1.0).max()
    if off > _SUM_TOLERANCE or scores.min() < -_SUM_TOLERANCE:
        raise ModelError(f"class scores are no probabilities (sum is off by {off:.3f})")
    if novelty is not None and (novelty.min() < -_SUM_TOLERANCE or novelty.max() > 1 + _SUM_TOLERANCE):
        raise ModelError(f"novelty is not in [0, 1]: {novelty.min():.3f} to {novelty.max():.3f}")
    return Inference(
        np.clip(scores, 0.0, 1.0), np.clip(maps, 0.0, 1.0), None if novelty is None else np.clip(novelty, 0, 1)
    )


def joined(answers: Sequence[Inference]) -> Inference:
    """The answers about several batches (at least one) as one."""
    if len(answers) == 1:
        return answers[0]
    novelty = [answer.novelty for answer in answers if answer.novelty is not None]
    return Inference(
        np.concatenate([answer.scores for answer in answers]),
        np.concatenate([answer.defect_maps for answer in answers]),
        np.concatenate(novelty) if novelty else None,
    )


def meant(error: Exception, words: str) -> AgentError:
    """A runtime's own error as ours: a model that fails for want of memory has not failed itself."""
    return ShortageError(words) if any(said in str(error) for said in _NO_MEMORY) else ModelError(words)


class _Batches(threading.local):
    """Tiles as contiguous batches of at most ``size``, in memory that stays: touching fresh memory costs as much as the
    copy. One for each thread."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._room: Image = np.empty((0, 0, 0, 3), np.uint8)

    def of(self, tiles: Sequence[Image]) -> Iterator[Image]:
        """Uint8 ``[n, H, W, 3]`` each, overwritten by the next. What lies so already is not copied."""
        for start in range(0, len(tiles), self._size):
            some = tiles[start : start + self._size]
            if len(some) == 1 and some[0].flags.c_contiguous:
                yield some[0][None]
                continue
            if self._room.shape[1:] != some[0].shape:
                self._room = np.empty((self._size, *some[0].shape), np.uint8)
            batch = self._room[: len(some)]
            for place, tile in zip(batch, some, strict=True):
                np.copyto(place, tile)
            yield batch


class BatchedRuntime(ABC):
    """What all runtimes share: how tiles are batched, and what an answer must look like.

    Tiles go in batches of as many as there are threads: a larger batch keeps no core busier, and its activations no longer
    fit the core's cache (six tiles of a 4K frame on one thread: 43 ms in one batch, 33 one by one).
    """

    def __init__(self, manifest: Manifest, threads: int) -> None:
        self._input = manifest.input.name
        self._outputs = outputs_of(manifest)
        self._classes = len(manifest.classes)
        self._batches = _Batches(threads)

    def infer(self, tiles: Sequence[Image]) -> Inference:
        """See the port."""
        return joined([checked(self._run(batch), len(batch), self._classes) for batch in self._batches.of(tiles)])

    @abstractmethod
    def _run(self, batch: Image) -> Sequence[NDArray[np.float32]]:
        """A batch uint8 ``[n, H, W, 3]`` to the outputs' arrays, unchecked. ModelError, or ShortageError."""


class OnnxRuntime(BatchedRuntime):
    """``model.onnx`` on ONNX Runtime's CPU provider with ``threads`` intra-op threads."""

    def __init__(self, model: bytes, manifest: Manifest, *, threads: int = 1) -> None:
        super().__init__(manifest, threads)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # it would keep the memory of a second run of the model, and be no faster
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except _ERRORS as error:
            raise meant(error, f"model {manifest.name} {manifest.version} does not load here: {error}") from error

    def _run(self, batch: Image) -> Sequence[NDArray[np.float32]]:
        try:
            return self._session.run(self._outputs, {self._input: batch})  # type: ignore[no-any-return]  # it has no types
        except _ERRORS as error:
            raise meant(error, f"inference failed on a batch of shape {batch.shape}: {error}") from error
