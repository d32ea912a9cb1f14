"""From teacher to bundle: distil, export, quantize, choose by measurement, calibrate thresholds, pack.

Invariants: calibration pictures come from the training side, thresholds from the validation side, the golden side is not
looked at; int8 is shipped only when it is faster and says what the float file says, otherwise float is.
"""

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score
from sqlalchemy import func, select

from inspection.contracts import MODEL_NAME, RECIPE_NAME, InputDescription, Origin, Recipe, decide, sha256_hex
from inspection.data.pictures import decode_bgr, encode_png
from inspection.data.product import Product, StudentPlan
from inspection.data.snapshot_record import Example, Split
from inspection.models.tiles import worst_tile
from inspection.release.bundle import choose_self_test, pack
from inspection.release.export import export_onnx
from inspection.release.measure import compare_latency, scores_of
from inspection.release.quantize import quantize_int8
from inspection.release.thresholds import calibrate
from inspection.settings import Settings
from inspection.stages.candidate import Candidate, Shipped
from inspection.stages.evidence import log_student
from inspection.stages.heritage import keep_student, student_of_champion
from inspection.stages.material import Material, Say
from inspection.store.session import Store
from inspection.store.tables import BundleRow
from inspection.training.distil import distil
from inspection.training.engine import Compute
from inspection.training.record import Trained, load_trained

SELF_TEST_PICTURES = 8
TIMING_RUNS = 100

Scores = NDArray[np.float32]


def build(settings: Settings, store: Store, candidate: Candidate, say: Say) -> Candidate:
    """Everything between gate 1 and gate 2; returns the candidate with its bundle. Can be run again."""
    material = Material.load(store, candidate.product, candidate.snapshot)
    teacher = load_trained(candidate.teacher / "trained")
    say(f"distilling {teacher.backbone} into {material.product.student.backbone}")
    student = _distil(material, candidate, teacher, Compute.of(settings.training).here)
    keep_student(store, candidate)
    say(
        f"student ({student.started_from}): best epoch {student.best_epoch + 1} of {len(student.history)}: "
        f"{_words(student.best)}"
    )
    export_files(material, candidate, student)
    number = _next_version(store, candidate.product)
    shipped, recipe, scores = choose_file(material, candidate, student, number)
    say(
        f"shipping {shipped.precision}: {shipped.latency_ms:.2f} ms (float {shipped.float_latency_ms:.2f} ms), "
        f"{shipped.agreement:.1%} equal verdicts"
    )
    data = _pack(material, candidate, student, shipped, recipe, scores, number)
    candidate.bundle_file.write_bytes(data)
    made = candidate.with_(shipped=shipped, recipe=recipe, version=number, bundle=sha256_hex(data))
    return log_student(settings, material, made, student)


def _words(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())


def _distil(material: Material, candidate: Candidate, teacher: Trained, compute: Compute) -> Trained:
    earlier = student_of_champion(material, candidate.folder) if material.product.train.warm_start else None
    return distil(
        teacher,
        material.snapshot,
        material.product,
        material.picture,
        candidate.student,
        warm_start=earlier,
        compute=compute,
        bookmarks=candidate.bookmarks,
    )


def export_files(material: Material, candidate: Candidate, student: Trained) -> None:
    """Write the float file, and the int8 file calibrated on a sample of the training side."""
    export_onnx(student.deploy_graph(), candidate.float_onnx)
    training = material.of(Split.TRAIN)
    count = min(material.product.student.calibration_pictures, len(training))
    chosen = random.Random(material.product.train.seed).sample(training, count)  # noqa: S311 - a sample, not a secret
    quantize_int8(candidate.float_onnx, (f[None] for f in material.frames(chosen)), candidate.int8_onnx)


def _next_version(store: Store, product: str) -> int:
    query = select(func.coalesce(func.max(BundleRow.version), 0)).where(BundleRow.product == product)
    with store.begin(read_only=True) as session:
        return int(session.scalar(query) or 0) + 1


def _calibrated(
    scores: Scores, examples: Sequence[Example], classes: Sequence[str], product: Product, number: int
) -> Recipe:
    labels = [e.label for e in examples]
    return calibrate(scores, labels, classes, product, version=number, parts=[e.part for e in examples])


def _decisions(scores: Scores, classes: Sequence[str], recipe: Recipe) -> list[str]:
    return [decide(_by_class(row, classes), recipe).decision.value for row in scores]


def _by_class(row: NDArray[np.float32], classes: Sequence[str]) -> dict[str, float]:
    return {name: float(np.clip(value, 0.0, 1.0)) for name, value in zip(classes, row, strict=True)}


def choose_precision(agreement: float, accuracy_drop: float, speedup: float, plan: StudentPlan) -> str:
    """``int8`` only where it is faster and says what the float file says, else ``float32``. Pure.

    ``agreement``: share of equal decisions; ``accuracy_drop``: balanced accuracy of float minus that of int8, both in
    [0, 1]; ``speedup``: float time / int8 time.
    """
    agrees = agreement >= plan.min_agreement and accuracy_drop <= plan.max_balanced_accuracy_drop
    return "int8" if agrees and speedup > 1.0 else "float32"


def choose_file(material: Material, candidate: Candidate, student: Trained, number: int) -> tuple[Shipped, Recipe, Scores]:
    """Measure both files on the validation side and choose by `choose_precision`; its recipe and scores with it."""
    examples = material.of(Split.VALIDATION)
    frames = material.frames(examples)
    good_index = student.classes.index(student.good_class)
    exact, small = (
        worst_tile(scores_of(file, frames), material.tiles, good_index)
        for file in (candidate.float_onnx, candidate.int8_onnx)
    )
    recipe = _calibrated(exact, examples, student.classes, material.product, number)
    equal = np.asarray(_decisions(exact, student.classes, recipe)) == np.asarray(_decisions(small, student.classes, recipe))
    truth = [student.classes.index(e.label) for e in examples]
    drop = balanced_accuracy_score(truth, exact.argmax(1)) - balanced_accuracy_score(truth, small.argmax(1))
    times = compare_latency(candidate.float_onnx, candidate.int8_onnx, _typical(frames), runs=TIMING_RUNS)
    agreement = float(equal.mean())
    precision = choose_precision(agreement, float(drop), times.speedup, material.product.student)
    int8 = precision == "int8"
    shipped = Shipped(
        precision=precision,
        latency_ms=(times.int8_model if int8 else times.float_model).p50_ms * material.tiles,
        float_latency_ms=times.float_model.p50_ms * material.tiles,
        agreement=agreement if int8 else 1.0,
        length=(candidate.int8_onnx if int8 else candidate.float_onnx).stat().st_size,
        float_length=candidate.float_onnx.stat().st_size,
    )
    scores = small if int8 else exact
    return shipped, _calibrated(scores, examples, student.classes, material.product, number), scores


def _typical(frames: Sequence[NDArray[np.uint8]]) -> tuple[int, int, int]:
    sizes = sorted((f.shape for f in frames), key=lambda s: s[0] * s[1])
    height, width, _ = sizes[len(sizes) // 2]
    return int(height), int(width), 3


def _pack(
    material: Material,
    candidate: Candidate,
    student: Trained,
    shipped: Shipped,
    recipe: Recipe,
    scores: Scores,
    number: int,
) -> bytes:
    by_key = {
        e.picture: _by_class(row, student.classes) for e, row in zip(material.of(Split.VALIDATION), scores, strict=True)
    }
    cases = choose_self_test(by_key, recipe, count=SELF_TEST_PICTURES)
    chosen = candidate.model_copy(update={"shipped": shipped}).chosen_onnx
    files = {MODEL_NAME: chosen.read_bytes(), RECIPE_NAME: recipe.canonical()}
    # Whole pictures, losslessly: the device cuts its region of interest by itself.
    files |= {case.path: encode_png(decode_bgr(material.picture(key))) for key, case in cases.items()}
    return pack(
        files,
        name=f"{material.product.name}-edge",
        version=number,
        product=material.product.name,
        created_at=datetime.now(UTC),
        backbone=student.backbone,
        precision=shipped.precision,
        input=InputDescription(model_height=student.height, model_width=student.width),
        classes=student.classes,
        good_class=student.good_class,
        metrics=_metrics(candidate, shipped),
        self_test=list(cases.values()),
        origin=Origin(
            mlflow_run_id=candidate.run_id,
            snapshot_id=candidate.snapshot,
            teacher=candidate.teacher_version,
            exporters={name: version(name) for name in ("torch", "onnx", "onnxruntime")},
        ),
    )


def _metrics(candidate: Candidate, shipped: Shipped) -> dict[str, float]:
    measured: dict[str, Any] = shipped.model_dump(include={"latency_ms", "float_latency_ms", "agreement"})
    gate_1 = candidate.golden_1.metrics("gate_1") if candidate.golden_1 else {}
    return gate_1 | {f"shipped/{name}": float(value) for name, value in measured.items()}
