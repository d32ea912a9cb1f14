"""Files on the agent's own runtimes, in a fresh process: their scores, and their times in turns.

Invariants: the agent is run, never imported; a file that a runtime refuses is reported with its reason, and does not stop
the others; a runtime that is not installed stops everything.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from inspection.errors import EnvironmentTroubleError
from inspection.release.measure import Answers

_COMMAND = (sys.executable, "-m", "edge_agent.trying")
_TAIL = 500


@dataclass(frozen=True)
class Trial:
    """A file on a runtime."""

    file: Path
    runtime: str
    novelty: bool = False  # it has that output


class Tried(BaseModel):
    """``scores`` by frame and class, ``novelty`` by frame where there is one, ``milliseconds`` of processor time by run;
    ``error``: why there are none, in words."""

    model_config = ConfigDict(frozen=True)

    scores: list[list[float]] = []
    novelty: list[float] = []
    milliseconds: list[float] = []
    error: str | None = None

    @property
    def answers(self) -> Answers:
        """What the file says of each frame."""
        return Answers(np.asarray(self.scores, np.float32), np.asarray(self.novelty, np.float32) if self.novelty else None)

    @property
    def times(self) -> NDArray[np.float64]:
        """Milliseconds, one per turn."""
        return np.asarray(self.milliseconds, np.float64)


class _Answer(BaseModel):
    answers: list[Tried]
    loaded: list[str]


def score(trials: Sequence[Trial], classes: int, frames: Sequence[NDArray[np.uint8]]) -> list[Tried]:
    """Scores of uint8 frames ``[H, W, 3]``, each frame by itself. Raises EnvironmentTroubleError."""
    return _ask(trials, classes, frames=frames)


def time_in_turns(trials: Sequence[Trial], classes: int, frame_shape: tuple[int, int, int], runs: int) -> list[Tried]:
    """``runs`` times of each trial on a frame ``(H, W, 3)``, one thread, in turns. Raises EnvironmentTroubleError.

    Processor time: of a file that is 2.2 times as fast where little else runs, the clock said 1.2 beside a load of 12 on
    two cores, the processor's time 1.7.
    """
    return _ask(trials, classes, timed=frame_shape[:2], runs=runs)


def _ask(
    trials: Sequence[Trial],
    classes: int,
    frames: Sequence[NDArray[np.uint8]] = (),
    timed: tuple[int, int] | None = None,
    runs: int = 0,
) -> list[Tried]:
    asked = {
        "trials": [
            {"file": str(trial.file.absolute()), "runtime": trial.runtime, "novelty": trial.novelty} for trial in trials
        ],
        "classes": classes,
        "frames": [frame.shape[:2] for frame in frames],
        "timed": timed,
        "runs": runs,
    }
    with subprocess.Popen(_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None  # noqa: S101 - it was asked for
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            for frame in frames:
                process.stdin.write(np.ascontiguousarray(frame).data)
        except BrokenPipeError:
            pass  # it says why on its other stream
        out, said = process.communicate()
    if process.returncode != 0:
        complaint = said.decode(errors="replace").strip()[-_TAIL:]
        raise EnvironmentTroubleError(f"trying the built files ended with exit code {process.returncode}: {complaint}")
    answer = _Answer.model_validate_json(out)
    if answer.loaded:
        raise EnvironmentTroubleError(f"the trying process was not clean: it had loaded {answer.loaded}")
    return answer.answers
