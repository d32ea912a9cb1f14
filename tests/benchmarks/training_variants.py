"""What memory layout, precision and compiling do to a training step, without loader or Lightning; in turns, in one process.

    python -m tests.benchmarks.training_variants --backbone resnet18 --side 128 --batch 32 [--accelerator cuda]

A step is forward, the product's loss, backward and AdamW, on one batch that stays on the device. ``worth after``: how many
pictures must be trained on before compiling has paid for itself.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from inspection.models import catalogue
from inspection.training.module import Classifier, Tuning
from inspection.training.schedule import Pace, make_optimizer

CLASSES = 7


@dataclass(frozen=True)
class Variant:
    """One way to take a step."""

    channels_last: bool
    precision: str
    compiled: bool

    @property
    def name(self) -> str:
        """In words."""
        layout = "channels last" if self.channels_last else "contiguous"
        return ", ".join([layout, self.precision, *(["compiled"] if self.compiled else [])])


VARIANTS = [
    Variant(channels_last, precision, compiled)
    for compiled in (False, True)
    for precision in ("float32", "bf16")
    for channels_last in (True, False)
    if channels_last or not compiled
]


@dataclass
class Stepper:
    """A network of its own that takes steps of one `Variant`."""

    variant: Variant
    net: Any
    batch: tuple[Tensor, Tensor, Tensor]
    first_seconds: float = 0.0
    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        images, labels, places = self.batch
        layout = torch.channels_last if self.variant.channels_last else torch.contiguous_format
        self.net.to(memory_format=layout).train()
        self.batch = (images.contiguous(memory_format=layout), labels, places)
        self._loss = Classifier(self.net, Tuning(1e-3, 0.02)).hard_loss
        self._optimizer, self._cycles = make_optimizer(self.net, Pace(1e-3, 0.02, 1.0, 0, 10**6), fused=True)
        if self.variant.compiled:
            self.net.compile()

    def take(self, steps: int) -> tuple[float, float]:
        """Wall and processor seconds a step took."""
        began, spent = time.perf_counter(), time.process_time()
        for _ in range(steps):
            self._step()
        if self.batch[0].is_cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / steps, (time.process_time() - spent) / steps

    def _step(self) -> None:
        images, labels, places = self.batch
        self._optimizer.zero_grad()
        half = self.variant.precision == "bf16"
        with torch.autocast(images.device.type, torch.bfloat16) if half else nullcontext():
            logits, maps = self.net(images)
            loss = self._loss(logits, maps, labels, places)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self._optimizer.step()
        self._cycles.step()


def measure(backbone: str, side: int, batch: int, steps: int, repeats: int, device: str) -> Iterator[dict[str, Any]]:
    """A row per variant."""
    torch.manual_seed(0)
    net = catalogue.build(backbone, CLASSES, pretrained="none", height=side, width=side).to(device)
    places = torch.zeros(batch, side, side, dtype=torch.uint8)
    places[:, side // 4 : side // 3, side // 4 : side // 3] = 2
    given = tuple(t.to(device) for t in (torch.randn(batch, 3, side, side), torch.arange(batch) % CLASSES, places))
    steppers = [Stepper(variant, copy.deepcopy(net), given) for variant in VARIANTS]  # type: ignore[arg-type]  # three
    for one in steppers:
        began = time.perf_counter()
        one.take(1)
        one.first_seconds = time.perf_counter() - began
        one.take(2)
    for _ in range(repeats):
        for one in steppers:
            wall, processor = one.take(steps)
            one.wall.append(wall)
            one.processor.append(processor)
    plain = {one.variant.precision: one for one in steppers if one.variant.channels_last and not one.variant.compiled}
    for one in steppers:
        yield _row(one, plain[one.variant.precision], backbone, side, batch)


def _row(one: Stepper, plain: Stepper, backbone: str, side: int, batch: int) -> dict[str, Any]:
    step, spent = statistics.median(one.wall), statistics.median(one.processor)
    row: dict[str, Any] = {
        "network": backbone,
        "px": side,
        "batch": batch,
        "variant": one.variant.name,
        "pictures/s": round(batch / step, 1),
        "pictures per processor second": round(batch / spent, 1),
        "first step, s": round(one.first_seconds, 2),
    }
    if one.variant.compiled:
        saved, cost = statistics.median(plain.wall) - step, one.first_seconds - plain.first_seconds
        row["against not compiled"] = round(statistics.median(p / o for p, o in zip(plain.wall, one.wall, strict=True)), 3)
        row["worth after, pictures"] = round(cost / saved * batch) if saved > 0 else None
    return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--accelerator", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    for line in measure(asked.backbone, asked.side, asked.batch, asked.steps, asked.repeats, asked.accelerator):
        print(json.dumps(line), flush=True)  # noqa: T201 - a program's answer
