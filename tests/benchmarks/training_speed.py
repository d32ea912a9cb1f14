"""How fast we train beside a plain Lightning and torchvision loop, and how long the device waits for pictures.

    python -m tests.benchmarks.training_speed --set xsdd --backbone mobilenetv2_100 --side 128 [--accelerator cuda]

Subjects, each a process of its own, which take turns of so many steps: our own `fit` with the product's augmentation; the
same on one batch that stays on the device (no loader); and what a good engineer writes in an hour, with its loading
processes as asked. Same network, pictures, batch size. ``waiting``: share of the time that the training process waited for
the next batch. Pictures per processor second count loading processes, too: on a busy machine look at those.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from typing import Any

import torch

from tests.benchmarks.sets import GOOD
from tests.benchmarks.training_subjects import OURS, PEER, SYNTHETIC, Asked, run


class Subject:
    """A process that trains when it is told to."""

    def __init__(self, name: str, asked: Asked) -> None:
        self.name, self.turns = name, list[dict[str, float]]()
        command = [sys.executable, "-m", "tests.benchmarks.training_speed", "--subject", asked.written()]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._hear("ready")

    def take_turn(self) -> None:
        """So many steps; what they took is noted."""
        assert self._process.stdin is not None
        print("go", file=self._process.stdin, flush=True)
        self.turns.append(json.loads(self._hear("{")))

    def end(self) -> None:
        """It has said what it has to say."""
        self._process.communicate()

    def _hear(self, begins: str) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(begins):
                return line
        raise RuntimeError(f"the process of {self.name!r} ended with {self._process.wait()}")

    def middle(self, key: str) -> float:
        """Median over the turns."""
        return statistics.median(turn[key] for turn in self.turns)

    def against(self, other: "Subject", key: str = "pictures/s") -> float:
        """Median over the rounds of how many times as fast as the other's turn."""
        return statistics.median(one[key] / two[key] for one, two in zip(self.turns, other.turns, strict=True))


def measure(asked: Asked, rounds: int, peer_workers: list[int]) -> list[dict[str, Any]]:
    """A row per subject, and one of ratios."""
    named = {OURS: asked.of(OURS), SYNTHETIC: asked.of(SYNTHETIC)}
    named |= {f"plain Lightning, {n} workers": asked.of(PEER, workers=n) for n in peer_workers}
    with tempfile.TemporaryDirectory() as folder:
        subjects = [Subject(name, one.within(folder)) for name, one in named.items()]
        for _ in range(rounds):
            for subject in subjects:
                subject.take_turn()
        for subject in subjects:
            subject.end()
    ours, synthetic, *peers = subjects
    rows = [_row(subject) for subject in subjects]
    best = max(peers, key=lambda peer: peer.middle("pictures/s"))
    thrifty = max(peers, key=lambda peer: peer.middle("pictures per processor second"))
    told = {"set": asked.set, "network": asked.backbone, "px": asked.side, "batch": asked.batch}
    ratios = {
        "ours against the fastest plain loop": round(ours.against(best), 2),
        "ours against the thriftiest, per processor second": round(
            ours.against(thrifty, "pictures per processor second"), 2
        ),
        "ours against synthetic input": round(ours.against(synthetic), 3),
    }
    return [*(told | row for row in rows), told | ratios]


def _row(subject: Subject) -> dict[str, Any]:
    return {
        "subject": subject.name,
        "pictures/s": round(subject.middle("pictures/s"), 1),
        "pictures per processor second": round(subject.middle("pictures per processor second"), 1),
        "waiting": round(subject.middle("waiting"), 4),
    }


def main() -> None:
    """Ask for rows, or be one of the subjects."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--set", default="xsdd", choices=sorted(GOOD))
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20, help="of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--workers", type=int, help="our loading processes (default: what the product chooses)")
    cores = len(os.sched_getaffinity(0))
    plenty = [0, 2, min(cores - 1, 12)] if torch.cuda.is_available() else [0, 2]
    parser.add_argument("--peer-workers", type=int, nargs="+", default=plenty)
    parser.add_argument("--compile", action="store_true", help="compile our steps")
    parser.add_argument("--subject", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.subject:
        run(Asked.read(given.subject))
        return
    asked = Asked(
        set=given.set, backbone=given.backbone, side=given.side, batch=given.batch, steps=given.steps,
        accelerator=given.accelerator, workers=given.workers, compile=given.compile,
    )  # fmt: skip
    for row in measure(asked, given.rounds, given.peer_workers):
        print(json.dumps(row), flush=True)  # noqa: T201 - a program's answer


if __name__ == "__main__":
    main()
