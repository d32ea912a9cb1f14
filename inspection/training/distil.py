"""Distillation: the teacher's answers, on the very pictures the student sees, train a network small enough for a device.

Invariant: one augmented crop is drawn for both, at the larger of their two sizes, and resized for whoever sees it smaller
(a function that is matched must be asked at the same place: Beyer et al., "Knowledge distillation: a good teacher is
patient and consistent", 2022). No epoch is cut off: the best one is kept, after all of them.
"""

import time
from pathlib import Path

import torch
from lightning.pytorch.utilities.seed import isolate_rng

from inspection.contracts import sha256_hex
from inspection.data.product import Product, StudentPlan, TrainPlan
from inspection.data.snapshot_record import Snapshot
from inspection.errors import UsageError
from inspection.training.cache import Pictures
from inspection.training.engine import Compute, OnEpoch, choose_precision, fit
from inspection.training.fit import bookmark_of, keep, load_data, starting_network
from inspection.training.loading import STEPS_FROM_TEACHER
from inspection.training.module import Distiller
from inspection.training.record import Trained


def distil(
    teacher: Trained,
    snapshot: Snapshot,
    product: Product,
    pictures: Pictures,
    workdir: Path,
    *,
    warm_start: Path | None = None,
    on_epoch: OnEpoch | None = None,
    compute: Compute | None = None,
    bookmarks: Path | None = None,
) -> Trained:
    """Train ``product.student`` to answer as ``teacher`` does; the result lies in ``workdir/trained``.

    ``warm_start``: folder of an earlier student; ``bookmarks`` as for `train`. Raises UsageError when the teacher knows
    other classes than the snapshot, and as `train`.
    """
    if teacher.classes != snapshot.classes:
        raise UsageError(f"the teacher scores {teacher.classes}, the snapshot holds {snapshot.classes}: train it anew")
    started = time.monotonic()
    compute, student = compute or Compute(), product.student
    plan = student_plan(product, teacher)
    with isolate_rng():
        torch.manual_seed(plan.seed)
        start = starting_network(snapshot, plan, warm_start)
        net = start.net
        epochs = start.epochs(student)
        tuning = start.tuning(plan, student_rate(student, borrowed=start.borrowed), epochs)
        product = product.model_copy(update={"train": shared_size(plan, teacher)})
        data = load_data(snapshot, product, net, pictures, workdir, compute, start.steps(STEPS_FROM_TEACHER))
        master = teacher.network()
        module = Distiller(
            net,
            tuning,
            master,
            temperature=student.temperature,
            hard_label_share=student.hard_label_share,
            teacher_bf16=choose_precision("auto", master, compute.accelerator) == "bf16",
        )
        precision = choose_precision(plan.precision, net, compute.accelerator)
        kept = fit(
            module,
            data,
            epochs=epochs,
            patience=epochs,
            precision=precision,
            compute=compute,
            bookmark=bookmark_of(
                bookmarks or workdir, snapshot, product, start, precision, compute, sha256_hex(teacher.weights.read_bytes())
            ),
            on_epoch=on_epoch,
            compile_network=plan.compile_network,
        )
    origin = f"distilled from {teacher.backbone}; {start.origin}"
    return keep(workdir / "trained", snapshot, net, kept, origin, precision, time.monotonic() - started)


def student_plan(product: Product, teacher: Trained) -> TrainPlan:
    """The product's way of training, with the student's network; as large as the teacher's where nothing is said."""
    student = product.student
    size = {"height": student.height or teacher.height, "width": student.width or teacher.width}
    return product.train.model_copy(update={"backbone": student.backbone, "pretrained": student.pretrained, **size})


_FRESH_RATE, _BORROWED_RATE = 2e-3, 1e-3


def student_rate(plan: StudentPlan, *, borrowed: bool) -> float:
    """A student's learning rate; ``borrowed``: its weights came from other pictures."""
    if plan.learning_rate is not None:
        return plan.learning_rate
    return _BORROWED_RATE if borrowed else _FRESH_RATE


def shared_size(plan: TrainPlan, teacher: Trained) -> TrainPlan:
    """The same, at the size of the pictures that both are shown: each side as long as the longer of the two."""
    size = {"height": max(plan.height, teacher.height), "width": max(plan.width, teacher.width)}
    return plan.model_copy(update=size)
