"""A plain fine-tune script with timm, as an engineer would write it in an hour; int8 by ONNX Runtime's quantizer.

    python -m tests.benchmarks.peers.run_timm TASK ANSWER

Licences: timm and ONNX Runtime are Apache-2.0 and MIT. It learns from all labelled pictures (it chooses no epoch, so it
needs no validation side), with flips and quarter turns, AdamW and a cosine over the budget.
"""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import timm
import torch
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch.nn import functional

from tests.benchmarks.peers.protocol import Clock, Device, Task, Told, frame_of, on_device, on_one_core

NAME = "mobilenetv2_100"
RATE, DECAY, BATCH, WARM_UP = 1e-3, 0.02, 32, 0.1


def planes(frame: np.ndarray, side: int) -> np.ndarray:
    """float32 ``[3, side, side]``, RGB in [-1, 1]."""
    small = cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small[:, :, ::-1].transpose(2, 0, 1), np.float32) / 127.5 - 1


def network(task: Task) -> torch.nn.Module:
    """The ImageNet network with a new classifier."""
    net: Any = timm.create_model(NAME, pretrained=False, pad_type="same")
    if task.weights is not None:
        weights = torch.load(task.weights, weights_only=True)
        net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
    net.reset_classifier(len(task.classes))
    return net.to(memory_format=torch.channels_last)


def turned(batch: torch.Tensor) -> torch.Tensor:
    """Each picture flipped and turned by quarters at random."""
    return torch.stack(
        [torch.rot90(p.flip(2) if torch.rand(()) < 0.5 else p, int(torch.randint(4, ())), (1, 2)) for p in batch]
    )


def learn(task: Task, clock: Clock) -> tuple[torch.nn.Module, float]:
    """The network, and how many times it saw all pictures."""
    pictures = torch.from_numpy(np.stack([planes(frame_of(path), task.side) for path, _ in task.labelled]))
    labels = torch.tensor([task.classes.index(label) for _, label in task.labelled])
    net = network(task).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    seen = 0
    while True:
        for chosen in torch.randperm(len(labels)).split(BATCH):
            if len(chosen) < 2:
                continue
            if clock.left <= 0:
                return net.eval(), seen / len(labels)
            share = clock.share
            rate = share / WARM_UP if share < WARM_UP else 0.5 * (1 + np.cos(np.pi * (share - WARM_UP) / (1 - WARM_UP)))
            optimizer.param_groups[0]["lr"] = RATE * float(rate)
            batch = turned(pictures[chosen]).contiguous(memory_format=torch.channels_last)
            loss = functional.cross_entropy(net(batch), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += len(chosen)


class Reader(CalibrationDataReader):
    """Up to 128 training pictures."""

    def __init__(self, task: Task) -> None:
        order = np.random.default_rng(0).permutation(len(task.train))[:128]
        self._left = [planes(frame_of(task.train[i][0]), task.side)[None] for i in order]

    def get_next(self) -> dict[str, np.ndarray] | None:
        """One at a time."""
        return {"input": self._left.pop()} if self._left else None


def device(kind: str, path: Path, task: Task) -> Device:
    """A file in ONNX Runtime, one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def predict(frame: np.ndarray) -> np.ndarray:
        logits = session.run(None, {"input": planes(frame, task.side)[None]})[0][0]
        e = np.exp(logits - logits.max())
        return e / e.sum()

    return on_device(f"{kind}, ONNX Runtime", predict, task, path.stat().st_size)


def main(asked: Path, answer: Path) -> None:
    """See the module."""
    task = Task.read(asked)
    torch.manual_seed(task.seed)
    clock = Clock(task.cpu_seconds)
    net, epochs = learn(task, clock)
    wall, cpu = clock.wall, clock.cpu
    exact, small = Path(task.folder) / "float.onnx", Path(task.folder) / "int8.onnx"
    example = torch.zeros((1, 3, task.side, task.side))
    torch.onnx.export(net, (example,), exact, input_names=["input"], dynamo=True, external_data=False)
    prepared = exact.with_name("prepared.onnx")
    quant_pre_process(str(exact), str(prepared))
    quantize_static(str(prepared), str(small), Reader(task), per_channel=True)
    on_one_core()
    devices = [device("float", exact, task), device("int8", small, task)]
    versions = {name: version(name) for name in ("timm", "torch", "onnxruntime")}
    weights = "from the given weights" if task.weights else "from random weights"
    Told("timm", wall, cpu, epochs, devices, versions, [f"{NAME} {weights}"]).write(answer)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
