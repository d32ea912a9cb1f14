"""Files of a build on this device's own runtimes: their scores, and their times in turns. A build runs it as a subprocess.

    python -m edge_agent.trying < asked        # answers in JSON

``asked`` is a line of JSON (`Asked`) and, behind it, the bytes of the frames to score, one after another. Invariants: the
process holds what a station holds and no more; what is compared runs in turns, call by call, and its time is the
processor's (on one thread what a clock shows on an idle machine): a busy one, whose clock says little of the model, slows
all alike; a file that fails is named with its reason, and the others go on.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from pydantic import BaseModel

from edge_agent.errors import LackError, ModelError
from edge_agent.pictures import Image
from edge_agent.runtime import Runtime
from edge_agent.runtimes import make_runtime
from inspection.contracts import InputDescription, Manifest, OutputDescription


class Trial(BaseModel):
    """A file, the runtime it is tried on, and whether it has the output ``novelty``."""

    file: Path
    runtime: str
    novelty: bool = False


class Asked(BaseModel):
    """``frames``: height and width of each frame to score; ``timed``: of the frame to time on, ``runs`` times each."""

    trials: list[Trial]
    classes: int
    frames: list[tuple[int, int]] = []
    timed: tuple[int, int] | None = None
    runs: int = 0
    warm_up: int = 10
    threads: int = 1


class Answer(BaseModel):
    """Of one trial: scores by frame, milliseconds of processor time by run; or why there are none."""

    scores: list[list[float]] = []
    novelty: list[float] = []
    milliseconds: list[float] = []
    error: str | None = None


def _load(trial: Trial, asked: Asked) -> Runtime:
    known: dict[str, Any] = {  # of a bundle there is no more yet
        "name": trial.file.name,
        "version": 1,
        "runtime": trial.runtime,
        "input": InputDescription(model_height=1, model_width=1),
        "output": OutputDescription(novelty="novelty" if trial.novelty else None),
        "classes": [str(number) for number in range(asked.classes)],
    }
    manifest = Manifest.model_construct(**known)
    return make_runtime(trial.file.read_bytes(), manifest, threads=asked.threads)


def _frames(asked: Asked, source: BinaryIO) -> Iterator[Image]:
    for height, width in asked.frames:
        yield np.frombuffer(source.read(height * width * 3), np.uint8).reshape(height, width, 3)


def answers(asked: Asked, source: BinaryIO) -> list[Answer]:
    """One answer per trial, in order. LackError when a runtime is not installed."""
    found = [Answer() for _ in asked.trials]
    alive: dict[int, Runtime] = {}
    for number, trial in enumerate(asked.trials):
        try:
            alive[number] = _load(trial, asked)
        except ModelError as error:
            found[number].error = str(error)
    for frame in _frames(asked, source):
        for number in list(alive):
            _score(number, frame, alive, found)
    if asked.timed is not None:
        noise = np.random.default_rng(0).integers(0, 256, (*asked.timed, 3), dtype=np.uint8)
        for run in range(-asked.warm_up, asked.runs):
            for number in list(alive):
                _time(number, noise, alive, found, counts=run >= 0)
    return found


def _score(number: int, frame: Image, alive: dict[int, Runtime], found: list[Answer]) -> None:
    try:
        answer = alive[number].infer([frame])
        found[number].scores.append(answer.scores[0].tolist())
        found[number].novelty += [] if answer.novelty is None else answer.novelty.tolist()
    except ModelError as error:
        del alive[number]
        found[number].error = str(error)


def _time(number: int, frame: Image, alive: dict[int, Runtime], found: list[Answer], *, counts: bool) -> None:
    started = time.process_time()
    try:
        alive[number].infer([frame])
    except ModelError as error:
        del alive[number]
        found[number].error = str(error)
        return
    if counts:
        found[number].milliseconds.append((time.process_time() - started) * 1e3)


def main() -> None:
    """Read, try, answer; exit code 1 and a sentence when a runtime is not installed."""
    asked = Asked.model_validate_json(sys.stdin.buffer.readline())
    try:
        done = answers(asked, sys.stdin.buffer)
    except LackError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
    loaded = [name for name in ("torch", "lightning") if name in sys.modules]
    sys.stdout.write(json.dumps({"answers": [each.model_dump() for each in done], "loaded": loaded}))


if __name__ == "__main__":
    main()
