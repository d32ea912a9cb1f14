"""From teacher to bundle: distil, export, quantize, choose by measurement, calibrate thresholds, pack.

Invariants: calibration pictures come from the training side, thresholds from the validation side, the golden side is not
looked at; int8 is shipped only when it is faster and says what the float file says, otherwise float is.
"""

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import recall_score
from sqlalchemy import func, select

from inspection.contracts import (
    MODEL_NAME,
    RECIPE_NAME,
    Decision,
    InputDescription,
    Origin,
    OutputDescription,
    Recipe,
    decide,
    sha256_hex,
)
from inspection.data.pictures import decode_bgr, encode_png
from inspection.data.product import Product, StudentPlan
from inspection.data.snapshot_record import Example, Split
from inspection.models.deploy import GuardedGraph
from inspection.release.bundle import choose_self_test, pack
from inspection.release.export import Graph, export_onnx
from inspection.release.guard import unfamiliar_limit
from inspection.release.measure import Answers, answers_of, compare_latency
from inspection.release.quantize import quantize_int8
from inspection.release.thresholds import calibrate
from inspection.settings import Settings
from inspection.stages.candidate import Candidate, Shipped
from inspection.stages.evidence import log_student
from inspection.stages.familiar import learn_good
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
Rule = Callable[[Answers], Recipe]
"""From a file's answers about the validation examples to its recipe."""


class Described(Protocol):
    """What a manifest says of the network in a file."""

    @property
    def backbone(self) -> str: ...
    @property
    def classes(self) -> list[str]: ...
    @property
    def good_class(self) -> str: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...


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
    export_files(material, candidate, device_graph(material, student))
    number = next_version(store, candidate.product)
    shipped, recipe, answers = choose_file(material, candidate, student.classes, _rule(material, student, number))
    say(shipped.in_words())
    data = pack_files(material, candidate, student, shipped, recipe, answers, number)
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


def device_graph(material: Material, student: Trained) -> Graph:
    """What the device's file computes: the student, and where the plan says so the novelty of its own features, learnt
    after it was distilled from good training pictures."""
    graph = student.deploy_graph()
    return GuardedGraph(graph, learn_good(material, graph.net)) if material.product.student.novelty_guard else graph


def export_files(material: Material, candidate: Candidate, graph: Graph) -> None:
    """Write the float file, and the int8 file calibrated on a sample of the training side."""
    export_onnx(graph, candidate.float_onnx)
    training = material.of(Split.TRAIN)
    count = min(material.product.student.calibration_pictures, len(training))
    chosen = random.Random(material.product.train.seed).sample(training, count)  # noqa: S311 - a sample, not a secret
    quantize_int8(candidate.float_onnx, (f[None] for f in material.frames(chosen)), candidate.int8_onnx)


def next_version(store: Store, product: str) -> int:
    query = select(func.coalesce(func.max(BundleRow.version), 0)).where(BundleRow.product == product)
    with store.begin(read_only=True) as session:
        return int(session.scalar(query) or 0) + 1


def _rule(material: Material, student: Trained, number: int) -> Rule:
    """Bands from the scores, and for a file that gives a novelty the limit on it."""
    examples = material.of(Split.VALIDATION)

    def rule(answers: Answers) -> Recipe:
        recipe = _calibrated(answers.scores, examples, student.classes, material.product, number)
        limit = limit_of(answers, examples, material.product.good_class)
        return recipe if limit is None else recipe.model_copy(update={"unfamiliar": limit})

    return rule


def limit_of(answers: Answers, examples: Sequence[Example], good_class: str) -> float | None:
    """The limit on the novelty, from the good ones among ``examples``; None of a file that gives none."""
    if answers.novelty is None:
        return None
    good = [place for place, e in enumerate(examples) if e.label == good_class]
    return unfamiliar_limit(answers.novelty[good], [examples[place].part for place in good])


def _calibrated(
    scores: Scores, examples: Sequence[Example], classes: Sequence[str], product: Product, number: int
) -> Recipe:
    labels = [e.label for e in examples]
    return calibrate(scores, labels, classes, product, version=number, parts=[e.part for e in examples])


def _decisions(answers: Answers, classes: Sequence[str], recipe: Recipe) -> list[Decision]:
    rows = enumerate(answers.scores)
    return [decide(_by_class(row, classes), recipe, answers.novelty_at(place)).decision for place, row in rows]


def _guard_overkill(
    answers: Answers, examples: Sequence[Example], classes: Sequence[str], recipe: Recipe, good_class: str
) -> float | None:
    """Share of good parts that the scores alone would pass, and the novelty does not; None without a limit on it."""
    if recipe.unfamiliar is None:
        return None
    scores_alone = _decisions(answers, classes, recipe.model_copy(update={"unfamiliar": None}))
    both = _decisions(answers, classes, recipe)
    good = {e.part for e in examples if e.label == good_class}
    rejected, rejected_by_scores = (
        {e.part for e, decision in zip(examples, said, strict=True) if decision is not Decision.OK}
        for said in (both, scores_alone)
    )
    return len((rejected - rejected_by_scores) & good) / max(1, len(good))


def _by_class(row: NDArray[np.float32], classes: Sequence[str]) -> dict[str, float]:
    return {name: float(np.clip(value, 0.0, 1.0)) for name, value in zip(classes, row, strict=True)}


def choose_precision(agreement: float, accuracy_drop: float, speedup: float, plan: StudentPlan) -> str:
    """``int8`` only where it is faster and says what the float file says, else ``float32``. Pure.

    ``agreement``: share of equal decisions; ``accuracy_drop``: balanced accuracy of float minus that of int8, both in
    [0, 1]; ``speedup``: float time / int8 time.
    """
    agrees = agreement >= plan.min_agreement and accuracy_drop <= plan.max_balanced_accuracy_drop
    return "int8" if agrees and speedup > 1.0 else "float32"


def choose_file(
    material: Material, candidate: Candidate, classes: Sequence[str], rule: Rule
) -> tuple[Shipped, Recipe, Answers]:
    """Measure both files on the validation side and choose by `choose_precision`; its recipe and answers with it."""
    examples = material.of(Split.VALIDATION)
    frames = material.frames(examples)
    exact, small = (
        answers_of(file, frames).by_picture(material.tiles, classes.index(material.product.good_class))
        for file in (candidate.float_onnx, candidate.int8_onnx)
    )
    recipe = rule(exact)
    equal = [a is b for a, b in zip(_decisions(exact, classes, recipe), _decisions(small, classes, recipe), strict=True)]
    drop = _balanced_accuracy(exact, examples, classes) - _balanced_accuracy(small, examples, classes)
    times = compare_latency(candidate.float_onnx, candidate.int8_onnx, _typical(frames), runs=TIMING_RUNS)
    agreement = float(np.mean(equal))
    precision = choose_precision(agreement, drop, times.speedup, material.product.student)
    int8 = precision == "int8"
    answers = small if int8 else exact
    chosen = rule(answers)
    shipped = Shipped(
        precision=precision,
        latency_ms=(times.int8_model if int8 else times.float_model).p50_ms * material.tiles,
        float_latency_ms=times.float_model.p50_ms * material.tiles,
        agreement=agreement if int8 else 1.0,
        length=(candidate.int8_onnx if int8 else candidate.float_onnx).stat().st_size,
        float_length=candidate.float_onnx.stat().st_size,
        guard_overkill=_guard_overkill(answers, examples, classes, chosen, material.product.good_class),
    )
    return shipped, chosen, answers


def _balanced_accuracy(answers: Answers, examples: Sequence[Example], classes: Sequence[str]) -> float:
    """Mean recall of the classes that are there."""
    truth = [classes.index(e.label) for e in examples]
    return float(recall_score(truth, answers.scores.argmax(1), labels=sorted(set(truth)), average="macro"))


def _typical(frames: Sequence[NDArray[np.uint8]]) -> tuple[int, int, int]:
    sizes = sorted((f.shape for f in frames), key=lambda s: s[0] * s[1])
    height, width, _ = sizes[len(sizes) // 2]
    return int(height), int(width), 3


def pack_files(
    material: Material,
    candidate: Candidate,
    network: Described,
    shipped: Shipped,
    recipe: Recipe,
    answers: Answers,
    number: int,
) -> bytes:
    """The bundle of the chosen file, with a self-test of validation pictures."""
    examples = material.of(Split.VALIDATION)
    by_key = {e.picture: _by_class(row, network.classes) for e, row in zip(examples, answers.scores, strict=True)}
    said = ((e.picture, answers.novelty_at(place)) for place, e in enumerate(examples))
    novelty = {picture: value for picture, value in said if value is not None}
    cases = choose_self_test(by_key, recipe, novelty=novelty, count=SELF_TEST_PICTURES)
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
        backbone=network.backbone,
        precision=shipped.precision,
        input=InputDescription(model_height=network.height, model_width=network.width),
        output=OutputDescription(novelty=None if answers.novelty is None else "novelty"),
        classes=network.classes,
        good_class=network.good_class,
        metrics=_metrics(candidate, shipped),
        self_test=list(cases.values()),
        origin=Origin(
            mlflow_run_id=candidate.run_id,
            snapshot_id=candidate.snapshot,
            teacher=candidate.teacher_version,
            exporters={name: version(name) for name in ("torch", "onnx", "onnxruntime")},
            cold_start=candidate.cold_start,
        ),
    )


def _metrics(candidate: Candidate, shipped: Shipped) -> dict[str, float]:
    kept = {"latency_ms", "float_latency_ms", "agreement", "guard_overkill"}
    measured: dict[str, Any] = shipped.model_dump(include=kept, exclude_none=True)
    gate_1 = candidate.golden_1.metrics("gate_1") if candidate.golden_1 else {}
    return gate_1 | {f"shipped/{name}": float(value) for name, value in measured.items()}
