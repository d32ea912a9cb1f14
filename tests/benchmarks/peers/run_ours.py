"""The product itself, in the same budget: a teacher and its student, shipped in int8; or what good pictures alone tell.

    python -m tests.benchmarks.peers.run_ours TASK ANSWER [STUDENT | "cold"]

The default recipe: teacher and student train for equally many epochs. What an epoch of each costs is tried first on a few
steps, which count.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from inspection.cli.common import TilesType
from inspection.contracts import Box, Limits, sha256_hex, tile_count, tiles_of
from inspection.data.product import AugmentPlan, Product, StudentPlan, TrainPlan
from inspection.data.snapshot_record import Example, Snapshot, Split
from inspection.models import catalogue
from inspection.models.deploy import ColdStartGraph
from inspection.models.network import InspectionNet
from inspection.models.novelty import learn_novelty
from inspection.models.tiles import worst_tile
from inspection.release.export import Graph, export_onnx
from inspection.release.measure import session_of
from inspection.release.quantize import quantize_int8
from inspection.stages.material import Frames
from inspection.training.distil import distil
from inspection.training.fit import train
from inspection.training.loading import STEPS_FROM_LABELS, STEPS_FROM_TEACHER, batch_size
from tests.benchmarks.peers.protocol import Clock, Device, Task, Told, on_device, on_one_core
from tests.benchmarks.sets import MOBILENET

_MARGIN = 0.97  # of the budget: an epoch is not divided


class Ours:
    """A task as the product's own snapshot and plans."""

    def __init__(self, task: Task, student: str) -> None:
        self.task = task
        self._paths: dict[str, Path] = {}
        examples = [
            self._example(path, label, side)
            for side, pictures in ((Split.TRAIN, task.train), (Split.VALIDATION, task.validation))
            for path, label in pictures
        ]
        ordered = sorted(examples, key=lambda e: e.picture)
        self.snapshot = Snapshot(product="peers", good_class=task.classes[0], classes=task.classes, examples=ordered)
        weights = task.weights or "none"
        self._plan = TrainPlan(
            backbone=MOBILENET, pretrained=weights, height=task.side, width=task.side, seed=task.seed,
            augment=AugmentPlan(rotate_90=True),
        )  # fmt: skip
        self._tiling = TilesType().convert(task.tiles, None, None)
        self._student = StudentPlan(backbone=student, pretrained=weights if student == MOBILENET else "none")

    def _example(self, path: str, label: str, side: Split) -> Example:
        digest = sha256_hex(Path(path).read_bytes())
        self._paths[digest] = Path(path)
        drawn = self.task.boxes.get(path, [])
        boxes = [Box(x=x, y=y, width=width, height=height, label=label) for x, y, width, height in drawn]
        return Example(picture=digest, label=label, part=digest, group=digest, split=side, boxes=boxes)

    def picture(self, digest: str) -> bytes:
        """A picture's file."""
        return self._paths[digest].read_bytes()

    def product(self, epochs: int) -> Product:
        """Its networks train so long."""
        taught = {"epochs": epochs, "patience": epochs}
        return Product(
            name="peers", good_class=self.task.classes[0], classes=self.task.classes,
            limits=Limits(escape_rate=0.05, overkill_rate=0.05), train=self._plan.model_copy(update=taught),
            student=self._student.model_copy(update={"epochs": epochs}), tiling=self._tiling,
        )  # fmt: skip

    def frames(self, examples: Sequence[Example]) -> Frames:
        """What the network is shown of them."""
        return Frames(examples, self.picture, self.product(1))

    def calibration(self) -> Frames:
        """A sample of the training side."""
        return self.frames(self.snapshot.of(Split.TRAIN)).sample(self._student.calibration_pictures, seed=0)

    def tiles(self, frame: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """As a device cuts it."""
        cut = tiles_of(frame.shape[0], frame.shape[1], self.product(1))
        return [np.ascontiguousarray(frame[t.y : t.y + t.height, t.x : t.x + t.width]) for t in cut]


def seconds_of_epochs(ours: Ours) -> tuple[float, float]:
    """Processor seconds of an epoch of the teacher and of the student, from a few steps of each."""
    task, product = ours.task, ours.product(1)
    shape = {"height": task.side, "width": task.side}
    master = catalogue.build(product.train.backbone, len(task.classes), pretrained="none", **shape)
    student = catalogue.build(product.student.backbone, len(task.classes), pretrained="none", **shape)
    found, tiles = [], tile_count(product)
    for net, steps, teacher in ((master, STEPS_FROM_LABELS, None), (student, STEPS_FROM_TEACHER, master.eval())):
        size = batch_size(len(task.train) * tiles, product.train.batch_size, steps)
        one = _seconds_of_step(net.train(), torch.rand(size, 3, task.side, task.side), teacher)
        shown = len(task.train) + len(task.validation) / 3  # no gradients: a third of the work
        found.append(one * shown * tiles / size)
    return found[0], found[1]


def _seconds_of_step(net: InspectionNet, batch: torch.Tensor, teacher: InspectionNet | None) -> float:
    net, batch = net.to(memory_format=torch.channels_last), batch.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    taken = []
    for _ in range(5):
        started = time.process_time()
        if teacher is not None:
            with torch.no_grad():
                teacher.eval()(batch)
        optimizer.zero_grad()
        sum(out.square().mean() for out in net.train()(batch)).backward()
        optimizer.step()
        taken.append(time.process_time() - started)
    return float(np.median(taken[1:]))


def in_budget(ours: Ours, clock: Clock, folder: Path) -> tuple[Graph, float, list[str]]:
    """The student's graph, and its epochs. As far as the teacher's forecast was wrong, the student's is."""
    of_teacher, of_student = seconds_of_epochs(ours)
    epochs = max(2, int(clock.left * _MARGIN / (of_teacher + of_student)))
    before = clock.cpu
    teacher = train(ours.snapshot, ours.product(epochs), ours.picture, folder / "teacher")
    took = clock.cpu - before
    slower = max(1.0, took / (epochs * of_teacher))  # epochs of the head alone are cheap: no hint that others are
    left = int(clock.left * _MARGIN / (of_student * slower))
    before = clock.cpu
    student = distil(teacher, ours.snapshot, ours.product(max(2, left)), ours.picture, folder / "student")
    weights = "from the given weights" if ours.task.weights else "from random weights"
    same = "the same" if ours.product(1).student.pretrained != "none" else "random weights"
    notes = [
        f"teacher {_short(MOBILENET)} {weights}, {epochs} epochs, {took:.0f} CPU s",
        f"student {_short(student.backbone)} from {same}, {left} epochs, {clock.cpu - before:.0f} CPU s",
    ]
    return student.deploy_graph(), left, notes


def _short(backbone: str) -> str:
    return backbone.partition("?")[0]


def cold(ours: Ours) -> Graph:
    """Novelty, learnt from good pictures alone."""
    task, product = ours.task, ours.product(1)
    net = catalogue.build(MOBILENET, 2, pretrained=str(task.weights), height=task.side, width=task.side).eval()
    good = [e for e in ours.snapshot.of(Split.TRAIN) if e.label == ours.snapshot.good_class]
    batches = (torch.from_numpy(frame)[None] for frame in ours.frames(good))
    parts = [e.part for e in good for _ in range(tile_count(product))]
    return ColdStartGraph(net, learn_novelty(net, batches, parts, seed=task.seed)).eval()


def device(kind: str, path: Path, ours: Ours) -> Device:
    """A file in ONNX Runtime, one thread: the frame goes in as it is, or tile after tile."""
    session = session_of(path)

    def predict(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        rows = [np.asarray(session.run(["scores"], {"frame": tile[None]})[0][0], np.float32) for tile in ours.tiles(frame)]
        return worst_tile(np.stack(rows), len(rows), good_index=0)[0]

    return on_device(f"{kind}, ONNX Runtime", predict, ours.task, path.stat().st_size)


def main(asked: Path, answer: Path, student: str) -> None:
    """See the module."""
    task, epochs = Task.read(asked), 1.0
    torch.manual_seed(task.seed)
    with tempfile.TemporaryDirectory() as name:
        folder, clock = Path(name), Clock(task.cpu_seconds)
        ours = Ours(task, StudentPlan().backbone if student == "cold" else student)
        if student == "cold":
            graph, notes = cold(ours), ["novelty: good pictures alone"]
        else:
            graph, epochs, notes = in_budget(ours, clock, folder)
        wall, cpu = clock.wall, clock.cpu
        exact, small = folder / "float.onnx", folder / "int8.onnx"
        export_onnx(graph, exact)
        quantize_int8(exact, (f[None] for f in ours.calibration()), small, float_stem=True)
        on_one_core()
        devices = [device("float", exact, ours), device("int8", small, ours)]
    versions = {name: version(name) for name in ("escapement", "torch", "timm", "onnxruntime")}
    Told("ours", wall, cpu, epochs, devices, versions, notes).write(answer)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else StudentPlan().backbone)
