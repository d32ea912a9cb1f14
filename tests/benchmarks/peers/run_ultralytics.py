"""Ultralytics' classifier, and its own int8 export.

    python -m tests.benchmarks.peers.run_ultralytics TASK ANSWER

Licence: Ultralytics is AGPL-3.0. It lives in an environment of its own for this comparison, and is a dependency of nothing.
Its weights lie on a hub; from where none is reachable it learns from scratch. Its own settings, but for flips up and down
(its default knows an up and a down) and the length of the training, which follows the budget as its ``time`` setting does.
"""

import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics import YOLO, settings

from tests.benchmarks.peers.protocol import Clock, Device, Task, Told, bytes_below, on_device, on_one_core

NETWORK, FIRST_GUESS = "yolo11n-cls", 30


def laid_out(task: Task, folder: Path) -> Path:
    """A folder per side and class, as it wants pictures; the numbers keep our order of classes."""
    for side, pictures in (("train", task.train), ("val", task.validation)):
        for number, (path, label) in enumerate(pictures):
            place = folder / side / f"{task.classes.index(label):03}"
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place / f"{number}{Path(path).suffix}")
    return folder


def learn(task: Task, clock: Clock, data: Path) -> tuple[Path, int]:
    """Its best weights, and the epochs it took."""
    done = []

    def pace(trainer: Any) -> None:
        if trainer.stop:
            return
        done.append(clock.cpu)
        fitting = int(len(done) * task.cpu_seconds / clock.cpu)
        trainer.epochs = trainer.args.epochs = max(len(done), fitting)
        trainer._setup_scheduler()
        trainer.scheduler.last_epoch = trainer.epoch
        trainer.stop = len(done) >= trainer.epochs

    model = YOLO(f"{NETWORK}.yaml")
    model.add_callback("on_fit_epoch_end", pace)
    model.train(
        data=str(data), imgsz=task.side, batch=32, epochs=FIRST_GUESS, workers=0, device="cpu", plots=False, amp=False,
        pretrained=False, flipud=0.5, seed=task.seed, project=task.folder, name="run", verbose=False, patience=1000,
    )  # fmt: skip
    return Path(model.trainer.best), len(done)


def device(kind: str, path: Path, task: Task) -> Device:
    """A file, by its own predictor."""
    model = YOLO(path, task="classify")

    def predict(frame: np.ndarray) -> np.ndarray:
        return model.predict(frame, imgsz=task.side, device="cpu", verbose=False)[0].probs.data.numpy()

    return on_device(kind, predict, task, bytes_below(path))


def main(asked: Path, answer: Path) -> None:
    """See the module."""
    task = Task.read(asked)
    settings.update(
        {name: False for name in ("mlflow", "tensorboard", "wandb", "hub", "sync", "comet") if name in settings}
    )
    data = laid_out(task, Path(task.folder) / "pictures")
    clock = Clock(task.cpu_seconds)
    best, epochs = learn(task, clock, data)
    wall, cpu = clock.wall, clock.cpu
    common: dict[str, Any] = {"imgsz": task.side, "device": "cpu", "verbose": False}
    ways: dict[str, dict[str, Any]] = {
        "float, ONNX Runtime": {"format": "onnx"},
        "int8, ONNX Runtime": {"format": "onnx", "quantize": 8, "data": str(data)},
        "int8, OpenVINO": {"format": "openvino", "quantize": 8, "data": str(data)},
    }
    files = {}
    for number, (kind, way) in enumerate(ways.items()):
        own = best.with_name(f"way{number}.pt")  # an export deletes the one before it
        shutil.copyfile(best, own)
        files[kind] = YOLO(own).export(**way, **common)
    on_one_core()
    torch.set_num_threads(1)
    devices = [device(kind, Path(path), task) for kind, path in files.items()]
    versions = {name: version(name) for name in ("ultralytics", "torch", "openvino", "onnxruntime")}
    notes = [f"{NETWORK} from random weights: its own lie on a hub"]
    Told("ultralytics", wall, cpu, epochs, devices, versions, notes).write(answer)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
