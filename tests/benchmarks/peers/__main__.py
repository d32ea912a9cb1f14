"""Peers on the same pictures, split and budget of processor time.

    python -m tests.benchmarks.peers --set xsdd --side 128 --cpu-minutes 5 --peer timm --peer ours --out peers.jsonl
    python -m tests.benchmarks.peers --render peers.jsonl

Peers: a plain script with ``timm`` (Apache-2.0), ``ultralytics`` (AGPL-3.0: it is never a dependency, here or anywhere else
in this project), ``anomalib`` (Apache-2.0; good pictures alone); ``anomalib-few`` keeps a hundredth of the patches where
its default keeps a tenth, which takes longer to choose than a short budget. ``ours`` is the product with its defaults,
``ours-same`` with the teacher's kind of network as the student, ``ours-cold`` learns from good pictures alone; ours alone
cuts pictures into ``--tiles`` (``--side`` is a tile's, then) and learns from boxes where a set has them. Each peer has an
environment of its own below ``--envs``, made from PyPI when it is not there (``--borrow``: a folder of site-packages it may
look into, after its own, instead of installing everything again), and runs `run_PEER.py` in it, off line.

The budget is processor time of the learning process, so a busy machine is unfair to nobody. A peer may use the training and
the validation side as it sees fit. Scores of the test side come back, and the figures are ours for all.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inspection.data.snapshot_record import Split
from tests.benchmarks.judging import Side, markdown, of_classes, of_defects
from tests.benchmarks.peers.protocol import Task, Told, frame_of
from tests.benchmarks.scorecards import append, read
from tests.benchmarks.sets import GOOD, MOBILENET, MOBILENET_WEIGHTS, RealSet

ROOT = Path(__file__).parents[3]
NEEDS = {
    "timm": ["timm", "torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "opencv-python-headless"],
    "ultralytics": ["ultralytics", "onnx", "onnxscript", "onnxslim", "onnxruntime", "openvino", "nncf"],
    "anomalib": [
        "anomalib",
        "torch",
        "torchvision",
        "timm",
        "openvino",
        "nncf",
        "onnx",
        "onnxscript",
        "opencv-python-headless",
    ],
}
PEERS: dict[str, tuple[str, list[str]]] = {
    **{name: (name, []) for name in NEEDS},
    "anomalib-few": ("anomalib", ["0.01"]),
    "ours": ("ours", []),
    "ours-same": ("ours", [MOBILENET]),
    "ours-cold": ("ours", ["cold"]),
}
"""By name: the script that runs it, and what the script is told more."""
GOOD_ALONE = {"anomalib", "anomalib-few", "ours-cold"}
OFF_LINE = {"HF_HUB_OFFLINE": "1", "YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "false", "NO_ALBUMENTATIONS_UPDATE": "1"}
SHOWN = (
    "set", "px", "tiles", "peer", "device", "accuracy", "AUROC", "escape at 5% overkill, curve", "epochs", "train CPU s",
    "train wall s", "ms", "best ms", "bytes", "notes",
)  # fmt: skip


def environment(peer: str, envs: Path, borrow: Path | None) -> Path:
    """A peer's Python, installed now where it is not there."""
    home = envs / peer
    python = home / "bin" / "python"
    ready = home / "ready"
    if not ready.exists():
        venv.create(home, with_pip=True, clear=True)
        if borrow is not None:
            own = next((home / "lib").glob("python*/site-packages"))
            (own / "borrowed.pth").write_text(f"{borrow.resolve()}\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *NEEDS[peer]], check=True)
        ready.touch()
    return python


def task_of(name: str, side: int, tiles: str, cpu_seconds: float, weights: str, per_class: int | None, folder: str) -> Task:
    """The set with its split, as `RealSet.snapshot` draws the validation side."""
    real = RealSet.load(name)
    snapshot = real.snapshot(per_class)
    sides = {
        split: [(str(real.items[e.picture].path), e.label) for e in snapshot.of(split)]
        for split in (Split.TRAIN, Split.VALIDATION, Split.GOLDEN)
    }
    test = [path for path, _ in sides[Split.GOLDEN]]
    boxes = {
        str(item.path): [(box.x, box.y, box.width, box.height) for box in item.boxes]
        for item in real.items.values()
        if item.boxes and item.split is not Split.GOLDEN
    }
    height, width = sorted(frame_of(path).shape[:2] for path in test)[len(test) // 2]
    return Task(
        sides[Split.TRAIN], sides[Split.VALIDATION], test, snapshot.classes, side, cpu_seconds,
        str(MOBILENET_WEIGHTS) if weights == "file" else None, (height, width), folder, tiles, boxes,
    )  # fmt: skip


def told_by(peer: str, task: Task, python: Path) -> Told:
    """Run a peer's script. RuntimeError with the end of what it said when it fails."""
    asked, answer = Path(task.folder) / "task.json", Path(task.folder) / "answer.json"
    task.write(asked)
    script, more = PEERS[peer]
    command: list[str | Path] = [python, "-m", f"tests.benchmarks.peers.run_{script}", asked, answer, *more]
    own = {"PYTHONPATH": str(ROOT), "YOLO_CONFIG_DIR": task.folder}
    done = subprocess.run(
        command, env=os.environ | OFF_LINE | own, cwd=task.folder, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{peer} failed: {done.stdout[-1000:]}\n{done.stderr[-3000:]}")
    return Told.read(answer)


def rows_of(peer: str, told: Told, name: str, side: int, truth: Sequence[str], classes: list[str]) -> list[dict[str, Any]]:
    """A row per file that a device would run."""
    alone = peer in GOOD_ALONE
    labels = [label if not alone or label == GOOD[name] else "defective" for label in truth]
    known = [GOOD[name], "defective"] if alone else classes
    rows = []
    for device in told.devices:
        judged = Side(np.array(device.scores), labels, known, GOOD[name])
        rows.append(
            {
                "set": name, "px": side, "peer": peer, "device": device.name, **({} if alone else of_classes(judged)),
                **of_defects(judged, None), "epochs": round(told.epochs, 1), "train CPU s": round(told.cpu, 1),
                "train wall s": round(told.wall, 1), "ms": round(device.p50_ms, 3), "best ms": round(device.best_ms, 3),
                "bytes": device.length, "notes": "; ".join(told.notes), "versions": told.versions,
            }
        )  # fmt: skip
    return rows


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--set", default="xsdd", choices=sorted(GOOD))
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--tiles", default="1x1")
    parser.add_argument("--cpu-minutes", type=float, default=5.0)
    parser.add_argument("--per-class", type=int)
    parser.add_argument("--pretrained", default="file", choices=["file", "none"])
    parser.add_argument("--peer", action="append", choices=[*PEERS])
    parser.add_argument("--envs", type=Path, default=Path.home() / ".cache" / "escapement-peers")
    parser.add_argument("--borrow", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--render", type=Path)
    asked = parser.parse_args()
    peers = asked.peer or [*PEERS]
    if asked.tiles != "1x1" and any(PEERS[peer][0] != "ours" for peer in peers):
        parser.error("no peer cuts pictures into tiles: name ours with --peer")
    if asked.render is not None:
        print(markdown(read(asked.render), SHOWN))  # noqa: T201 - a program's answer
        return
    for peer in peers:
        key = {
            "set": asked.set, "px": asked.side, "peer": peer, "budget": asked.cpu_minutes * 60,
            "per class": asked.per_class, "pretrained": asked.pretrained, "tiles": asked.tiles,
        }  # fmt: skip
        if any(key.items() <= row.items() for row in read(asked.out)):
            continue
        kind = PEERS[peer][0]
        python = Path(sys.executable) if kind == "ours" else environment(kind, asked.envs, asked.borrow)
        with tempfile.TemporaryDirectory() as folder:
            task = task_of(asked.set, asked.side, asked.tiles, key["budget"], asked.pretrained, asked.per_class, folder)
            told = told_by(peer, task, python)
        real = RealSet.load(asked.set)
        truth = [e.label for e in real.snapshot(asked.per_class).of(Split.GOLDEN)]
        for row in rows_of(peer, told, asked.set, asked.side, truth, task.classes):
            print(json.dumps(key | row), flush=True)  # noqa: T201 - a program's answer
            append(asked.out, key | row)


if __name__ == "__main__":
    main()
