"""Anomalib's PatchCore on good pictures alone, and its own int8 export for OpenVINO.

    python -m tests.benchmarks.peers.run_anomalib TASK ANSWER [SHARE]

Licence: Anomalib is Apache-2.0. PatchCore with random features would say nothing, so it wants the given weights, in timm's
network, whose layers of stride 8 and 16 it remembers (as it does of its own default network). EfficientAD fetches a teacher
and a set of pictures when it begins to learn, so it cannot be had where no hub is reachable.
It learns in one pass, however large the budget is, and keeps ``SHARE`` of all patches (its default: 0.1). A device's score
is raw (no threshold is known without defects).
"""

import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import timm
import torch
from anomalib.data import Folder
from anomalib.deploy import CompressionType, ExportType, OpenVINOInferencer
from anomalib.engine import Engine
from anomalib.models import Patchcore
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import Compose, Normalize, Resize

from tests.benchmarks.peers.protocol import Clock, Device, Task, Told, bytes_below, on_device, on_one_core

NAME, LAYERS = "mobilenetv2_100", ("blocks.2", "blocks.4")


def laid_out(task: Task, folder: Path) -> Path:
    """Good pictures: those of the training side to learn from, those of the validation side for int8's ranges."""
    for side, pictures in (("train", task.train), ("val", task.validation)):
        (folder / side).mkdir(parents=True, exist_ok=True)
        for number, (path, label) in enumerate(pictures):
            if label == task.classes[0]:
                shutil.copyfile(path, folder / side / f"{number}{Path(path).suffix}")
    return folder


def network(task: Task, share: float) -> Patchcore:
    """PatchCore on the given weights, which keeps ``share`` of the patches."""
    if task.weights is None:
        raise SystemExit("PatchCore needs weights: its features are never trained")
    half = [0.5, 0.5, 0.5]
    seen = Compose([Resize((task.side, task.side), antialias=True), Normalize(mean=half, std=half)])
    model = Patchcore(
        backbone=NAME, layers=LAYERS, pre_trained=False, coreset_sampling_ratio=share,
        pre_processor=PreProcessor(transform=seen), post_processor=False, evaluator=False, visualizer=False,
    )  # fmt: skip
    # A name is all it takes of a network; these weights were made with another padding than the name's default.
    extractor = model.model.feature_extractor
    body = timm.create_model(
        NAME, pretrained=False, pad_type="same", exportable=True, features_only=True, out_indices=extractor.idx
    )
    weights = torch.load(task.weights, weights_only=True)
    told = body.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()}, strict=False)
    if told.missing_keys:
        raise SystemExit(f"the weights lack {told.missing_keys}")
    extractor.feature_extractor = body.eval()
    return model


def pictures(task: Task) -> Folder:
    """Its own way of reading folders."""
    root = laid_out(task, Path(task.folder) / "pictures")
    size = Resize((task.side, task.side), antialias=True)
    return Folder(
        name="good", root=root, normal_dir="train", normal_test_dir="val", test_split_mode="from_dir",
        val_split_mode="same_as_test", augmentations=size, num_workers=0, seed=task.seed,
    )  # fmt: skip


def device(kind: str, path: Path, task: Task) -> Device:
    """A file, by its own inferencer."""
    # OpenVINO gives an output the names of all nodes it has fused into it, and anomalib takes any: by place instead.
    OpenVINOInferencer.post_process = staticmethod(lambda found: {"pred_score": found[0], "anomaly_map": found[1]})
    model = OpenVINOInferencer(path, device="CPU", config={"INFERENCE_NUM_THREADS": 1})

    def predict(frame: np.ndarray) -> np.ndarray:
        small = cv2.resize(frame, (task.side, task.side), interpolation=cv2.INTER_AREA)
        distance = float(np.ravel(model.predict(small[:, :, ::-1]).pred_score)[0])
        return np.array([1 / (1 + distance), distance / (1 + distance)])

    return on_device(kind, predict, task, bytes_below(path) + bytes_below(path.with_suffix(".bin")))


def main(asked: Path, answer: Path, share: float) -> None:
    """See the module."""
    task = Task.read(asked)
    os.chdir(task.folder)
    torch.manual_seed(task.seed)
    model, data = network(task, share), pictures(task)
    engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=task.folder, max_epochs=1)
    clock = Clock(task.cpu_seconds)
    engine.fit(model=model, datamodule=data)
    wall, cpu = clock.wall, clock.cpu
    made = {}
    for kind, compression in (("float", None), ("int8", CompressionType.INT8_PTQ)):
        made[kind] = engine.export(
            model=model, export_type=ExportType.OPENVINO, export_root=Path(task.folder) / kind,
            input_size=(task.side, task.side), compression_type=compression, datamodule=data,
        )  # fmt: skip
    on_one_core()
    devices = [device(f"{kind}, OpenVINO", Path(path), task) for kind, path in made.items()]
    versions = {name: version(name) for name in ("anomalib", "torch", "timm", "openvino")}
    notes = [f"PatchCore on {NAME}'s given weights, {len(model.model.memory_bank)} patches kept", "good pictures alone"]
    Told("anomalib", wall, cpu, 1, devices, versions, notes).write(answer)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 0.1)
