"""What a peer's script is told and what it tells: JSON files, and the clock that all are measured by.

Invariant: nothing of the product is imported here, so that it runs in a peer's own environment (of numpy and OpenCV).
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

RUNS, WARM_UP = 100, 10


@dataclass(frozen=True)
class Task:
    """Pictures as (path, label), paths to judge, ``classes`` with the good one first, the side of the working size in
    pixels, the budget for all learning in seconds of processor time, a file of ImageNet weights (timm's mobilenetv2_100,
    ``pad_type="same"``, mean and standard deviation 0.5) or None, and the ``(H, W)`` of frames to be timed on. ``tiles``
    is how the product cuts them, and ``boxes`` where defects lie on a path's picture: ``(x, y, width, height)``."""

    train: list[tuple[str, str]]
    validation: list[tuple[str, str]]
    test: list[str]
    classes: list[str]
    side: int
    cpu_seconds: float
    weights: str | None
    frame: tuple[int, int]
    folder: str
    tiles: str = "1x1"
    boxes: dict[str, list[tuple[float, float, float, float]]] = field(default_factory=dict)
    seed: int = 0

    @classmethod
    def read(cls, path: Path) -> "Task":
        """From the file that `write` made."""
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        """For another process."""
        path.write_text(json.dumps(asdict(self)))

    @property
    def labelled(self) -> list[tuple[str, str]]:
        """All that may be learnt from."""
        return [*self.train, *self.validation]


@dataclass(frozen=True)
class Device:
    """What a device would run: scores of the test pictures ``[N][K]``, milliseconds from a frame in memory to its scores
    (one core, batch 1), bytes on disk."""

    name: str
    scores: list[list[float]]
    p50_ms: float
    best_ms: float
    length: int


@dataclass(frozen=True)
class Told:
    """What came of it. ``notes`` are for people: what was left out, and why."""

    peer: str
    wall: float
    cpu: float
    epochs: float
    devices: list[Device]
    versions: dict[str, str]
    notes: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """The answer."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "Told":
        """From the file that `write` made."""
        found: dict[str, Any] = json.loads(path.read_text())
        found["devices"] = [Device(**device) for device in found["devices"]]
        return cls(**found)


class Clock:
    """Seconds since it was made, of the clock and of the processor (all threads of this process), beside a budget."""

    def __init__(self, budget: float) -> None:
        self._budget = budget
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @property
    def wall(self) -> float:
        """Of the clock."""
        return time.perf_counter() - self._wall

    @property
    def cpu(self) -> float:
        """Of the processor: what others do on a busy machine does not count."""
        return time.process_time() - self._cpu

    @property
    def left(self) -> float:
        """Of the budget, seconds."""
        return self._budget - self.cpu

    @property
    def share(self) -> float:
        """Of the budget that is spent, in [0, 1]."""
        return min(1.0, self.cpu / self._budget)


def frame_of(path: str) -> np.ndarray:
    """uint8 ``[H, W, 3]``, BGR."""
    frame = cv2.imread(path, cv2.IMREAD_COLOR)
    if frame is None:
        raise ValueError(f"{path} is no picture")
    return frame


def on_device(name: str, predict: Callable[[np.ndarray], np.ndarray], task: Task, length: int) -> Device:
    """Judge the test pictures with ``predict`` (a BGR frame to scores ``[K]``), and time it."""
    scores = [[float(v) for v in predict(frame_of(path))] for path in task.test]
    frame = np.random.default_rng(0).integers(0, 256, (*task.frame, 3), dtype=np.uint8)
    taken = []
    for _ in range(RUNS + WARM_UP):
        started = time.perf_counter()
        predict(frame)
        taken.append((time.perf_counter() - started) * 1e3)
    return Device(name, scores, float(np.median(taken[WARM_UP:])), min(taken), length)


def on_one_core() -> None:
    """From here on this process, and every runtime it loads, has one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)


def bytes_below(path: Path) -> int:
    """Size of a file, or of all files in a folder."""
    return path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
