"""Latency in a fresh process, and the answers of an ONNX file.

Invariants: the measuring process holds numpy and ONNX Runtime and nothing else (a torch beside it changes thread pools
and memory); files that are compared run in turns, call by call, so that a busy machine slows both alike.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from inspection.errors import BundleError, EnvironmentTroubleError
from inspection.models.tiles import worst_tile

_UNLOADABLE = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
)

_WARM_UP = 10
_PROBE = """
import json, sys, time
import numpy, onnxruntime
asked = json.load(sys.stdin)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1  # of more, processor time would be the sum
sessions = [onnxruntime.InferenceSession(p, options, providers=["CPUExecutionProvider"]) for p in asked["paths"]]
frame = numpy.random.default_rng(0).integers(0, 256, asked["shape"], dtype=numpy.uint8)
times = [[] for _ in sessions]
for turn in range(asked["runs"] + asked["warm_up"]):
    for session, taken in zip(sessions, times):
        start = time.process_time()
        session.run(None, {"frame": frame})
        if turn >= asked["warm_up"]:
            taken.append((time.process_time() - start) * 1e3)
loaded = [m for m in ("torch", "cv2", "lightning") if m in sys.modules]
json.dump({"times": times, "loaded": loaded}, sys.stdout)
"""


@dataclass(frozen=True)
class Latency:
    """Milliseconds of processor time per frame; ``best_ms`` is the least disturbed by other programs."""

    p50_ms: float
    p99_ms: float
    best_ms: float
    runs: int


@dataclass(frozen=True)
class Comparison:
    """Two files timed in turns. ``speedup`` is the median over turns of float time / int8 time."""

    float_model: Latency
    int8_model: Latency
    speedup: float


def latency(path: Path, frame_shape: tuple[int, int, int], runs: int = 200) -> Latency:
    """Time ``path`` on frames ``(H, W, 3)``, one thread, batch 1, in a fresh process. Raises EnvironmentTroubleError."""
    return _summary(_times([path], frame_shape, runs)[0])


def compare_latency(float_path: Path, int8_path: Path, frame_shape: tuple[int, int, int], runs: int = 200) -> Comparison:
    """Time both files in turns in one fresh process, as `latency` does one. Raises EnvironmentTroubleError."""
    slow, fast = _times([float_path, int8_path], frame_shape, runs)
    return Comparison(_summary(slow), _summary(fast), float(np.median(slow / fast)))


def _times(paths: Sequence[Path], shape: tuple[int, int, int], runs: int) -> list[NDArray[np.float64]]:
    asked = {"paths": [str(p) for p in paths], "shape": [1, *shape], "runs": runs, "warm_up": _WARM_UP}
    done = subprocess.run(
        [sys.executable, "-c", _PROBE], input=json.dumps(asked), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise EnvironmentTroubleError(
            f"timing {', '.join(p.name for p in paths)} failed with exit code {done.returncode}: "
            f"{done.stderr.strip()[-500:]}"
        )
    answer = json.loads(done.stdout)
    if answer["loaded"]:
        raise EnvironmentTroubleError(f"the timing process was not clean: it had loaded {answer['loaded']}")
    return [np.asarray(t) for t in answer["times"]]


def _summary(times: NDArray[np.float64]) -> Latency:
    p50, p99 = np.percentile(times, [50, 99])
    return Latency(float(p50), float(p99), float(times.min()), len(times))


def session_of(path: Path | bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU, from a file or its bytes. Raises BundleError when it does not load."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # what fails is raised; the rest is advice about the graph
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except _UNLOADABLE as error:
        what = path if isinstance(path, Path) else "what was given"
        raise BundleError(f"{what} is not a model ONNX Runtime can load: {error}") from error


@dataclass(frozen=True)
class Answers:
    """What a file says of N pictures: ``scores`` float32 ``[N, K]``, and ``novelty`` float32 ``[N]`` in [0, 1] where it has
    that output."""

    scores: NDArray[np.float32]
    novelty: NDArray[np.float32] | None = None

    def by_picture(self, tiles: int, good_index: int) -> Self:
        """The same of pictures that were shown as ``tiles`` each: the worst tile's scores, the most novel one's novelty."""
        novelty = None if self.novelty is None else self.novelty.reshape(-1, tiles).max(1)
        return replace(self, scores=worst_tile(self.scores, tiles, good_index), novelty=novelty)

    def novelty_at(self, place: int) -> float | None:
        """The novelty of one picture, as the decision rule takes it."""
        return None if self.novelty is None else float(np.clip(self.novelty[place], 0.0, 1.0))


def answers_of(path: Path, frames: Iterable[NDArray[np.uint8]], *, threads: int = 1) -> Answers:
    """Answers about uint8 frames ``[H, W, 3]`` or ``[1, H, W, 3]``, one session, one at a time. Raises BundleError where
    scores are no numbers."""
    session = session_of(path, threads)
    wanted = [output for output in session.get_outputs() if output.name in ("scores", "novelty")]
    rows = [session.run([o.name for o in wanted], {"frame": f if f.ndim == 4 else f[None]}) for f in frames]
    found = {output.name: [row[place][0] for row in rows] for place, output in enumerate(wanted)}
    classes = next(output.shape[1] for output in wanted if output.name == "scores")
    scores = np.asarray(found["scores"], dtype=np.float32).reshape(len(rows), classes)
    if not np.isfinite(scores).all():
        raise BundleError(f"{path.name} gives scores that are no numbers: has its training diverged?")
    return Answers(scores, np.asarray(found["novelty"], dtype=np.float32) if "novelty" in found else None)


def scores_of(path: Path, frames: Iterable[NDArray[np.uint8]], *, threads: int = 1) -> NDArray[np.float32]:
    """Class scores float32 ``[N, K]``: see `answers_of`."""
    return answers_of(path, frames, threads=threads).scores
