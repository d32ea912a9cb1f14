"""From teacher to bundle: distil, search for the file (`build_search`), calibrate thresholds, pack.

Invariants: calibration pictures come from the training side, thresholds from the validation side, the golden side is not
looked at.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from inspection.contracts import (
    MODEL_NAME,
    RECIPE_NAME,
    InputDescription,
    Origin,
    OutputDescription,
    Recipe,
    sha256_hex,
)
from inspection.data.pictures import decode_bgr, encode_png
from inspection.data.snapshot_record import Split
from inspection.models.deploy import GuardedGraph
from inspection.release.bundle import choose_self_test, pack
from inspection.release.export import Graph
from inspection.release.measure import Answers
from inspection.release.search import reference_of, to_markdown
from inspection.release.thresholds import calibrate
from inspection.settings import Settings
from inspection.stages.build_search import Chosen, Frames, Rounded, Search, Student, bar_of, check_runtimes
from inspection.stages.candidate import Candidate, Shipped
from inspection.stages.evidence import log_student
from inspection.stages.familiar import is_guarded, learn_good
from inspection.stages.heritage import keep_student, student_of_champion
from inspection.stages.judging import Rule, by_class, guard_overkill, limit_of
from inspection.stages.material import Material, Say
from inspection.store.session import Store
from inspection.store.tables import BundleRow
from inspection.training.cache import clear_pictures
from inspection.training.distil import distil
from inspection.training.engine import Compute
from inspection.training.predict import predict
from inspection.training.qat import train_rounded
from inspection.training.record import Trained, load_trained

SELF_TEST_PICTURES = 8
_OF_A_BUNDLE = ("bundle", "golden_2", "champion_2", "gate_2", "student_run_id", "edge_version")


def build(settings: Settings, store: Store, candidate: Candidate, say: Say) -> Candidate:
    """Everything between gate 1 and gate 2, by the product's student plan of today; returns the candidate with its bundle,
    of which no gate has said anything yet. Can be run again."""
    material = Material.behind(store, candidate)
    check_runtimes(material.product.student)
    try:
        return _build(settings, material, candidate, say)
    finally:
        clear_pictures(candidate.folder)


def _build(settings: Settings, material: Material, candidate: Candidate, say: Say) -> Candidate:
    compute = Compute.of(settings.training).here
    teacher = load_trained(candidate.teacher / "trained")
    earlier = student_of_champion(material, candidate.folder) if material.product.train.warm_start else None
    folders = [candidate.student_folder(number) for number in range(len(material.product.student.students()))]
    made = distilled(material, folders, teacher, earlier, compute, say, candidate.bookmarks)
    number = next_version(material.store, candidate.product)
    search = search_of(material, made, teacher, number, say)
    chosen = search.run(rounding(material, folders[0], teacher, made[folders[0]], compute, say))
    candidate = shipping(material, candidate, chosen, say)
    keep_student(material.store, candidate)
    candidate = pack_bundle(material, candidate, chosen, number)
    return log_student(settings, material, candidate, made[chosen.student.folder], search.bar)


def search_in_words(candidate: Candidate) -> str:
    """The table of a built candidate's search, and what was chosen."""
    plan, chosen = (candidate.definition.student if candidate.definition else None), candidate.chosen_build
    if plan is None or chosen is None:
        return ""
    return to_markdown(candidate.searched, chosen, bar_of(plan)).rstrip()


def distilled(
    material: Material,
    folders: Sequence[Path],
    teacher: Trained,
    earlier: Path | None,
    compute: Compute,
    say: Say,
    bookmarks: Path | None = None,
) -> dict[Path, Trained]:
    """The plan's own student and its alternatives, each in a folder of its own, begun from an ``earlier`` one where there
    is one and it fits."""
    made = {}
    for folder, plan in zip(folders, material.product.student.students(), strict=True):
        say(f"distilling {teacher.backbone} into {plan.backbone}")
        student = distil(
            teacher,
            material.snapshot,
            material.product.model_copy(update={"student": plan}),
            material.picture,
            folder,
            warm_start=earlier,
            compute=compute,
            bookmarks=bookmarks,
        )
        say(
            f"student ({student.started_from}): best epoch {student.best_epoch + 1} of {len(student.history)}: "
            f"{_words(student.best)}"
        )
        made[folder] = student
    return made


def search_of(material: Material, made: Mapping[Path, Trained], teacher: Trained, number: int, say: Say) -> Search:
    """The search for the file of bundle ``number`` among these students, by their folders."""
    return Search(
        material,
        [Student(folder, trained, device_graph(material, trained)) for folder, trained in made.items()],
        rule_of(material, teacher.classes, number),
        say,
        teacher=predict(teacher, material.of(Split.VALIDATION), material.picture, framed=material.product),
    )


def _words(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())


def device_graph(material: Material, student: Trained) -> Graph:
    """What the device's file computes: the student, and where it is guarded the novelty of its own features, learnt from
    good training pictures after it was distilled."""
    graph = student.deploy_graph()
    guarded = is_guarded(material.product.student, material.snapshot)
    return GuardedGraph(graph, learn_good(material, graph.net)) if guarded else graph


def rule_of(material: Material, classes: list[str], number: int) -> Rule:
    """How a file gets the recipe of version ``number``: bands from its scores, and the limit on a novelty it gives."""
    examples = material.of(Split.VALIDATION)
    labels, parts = [e.label for e in examples], [e.part for e in examples]

    def rule(answers: Answers) -> Recipe:
        recipe = calibrate(answers.scores, labels, classes, material.product, version=number, parts=parts)
        limit = limit_of(answers, examples, material.product.good_class)
        return recipe if limit is None else recipe.model_copy(update={"unfamiliar": limit})

    return rule


def rounding(
    material: Material, folder: Path, teacher: Trained, student: Trained, compute: Compute, say: Say
) -> Rounded | None:
    """Training with rounding beside ``folder``, for the student there where no quantizer makes a good file of it; None: the
    plan wants none."""
    if not material.product.student.qat_epochs:
        return None

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        say(f"with rounding, epoch {epoch + 1}: {_words(metrics)}")

    def rounded(frames: Frames) -> Graph:
        trained = train_rounded(
            student,
            teacher,
            material.snapshot,
            material.product,
            material.picture,
            folder.with_name(f"{folder.name}-rounded"),
            frames,
            on_epoch=on_epoch,
            compute=compute,
        )
        return device_graph(material, trained)

    return rounded


def next_version(store: Store, product: str) -> int:
    """The number of the product's next bundle."""
    query = select(func.coalesce(func.max(BundleRow.version), 0)).where(BundleRow.product == product)
    with store.begin(read_only=True) as session:
        return int(session.scalar(query) or 0) + 1


def shipping(material: Material, candidate: Candidate, chosen: Chosen, say: Say) -> Candidate:
    """The candidate with what is shipped, by which product, and all that was measured on the way to it. What was said of an
    earlier bundle goes here, so that no kill leaves the new one with it."""
    shipped = _shipped(material, chosen)
    say(shipped.in_words())
    gone = dict.fromkeys(_OF_A_BUNDLE)
    return candidate.with_(**gone, definition=material.product, shipped=shipped, searched=chosen.found)


def _shipped(material: Material, chosen: Chosen) -> Shipped:
    one, reference = chosen.measured, reference_of(chosen.found)
    if one.latency_ms is None or reference.latency_ms is None:
        raise ValueError("what is shipped was timed, and so was what it is compared with")
    examples, product = material.of(Split.VALIDATION), material.product
    return Shipped(
        precision=one.build.precision,
        latency_ms=one.latency_ms,
        float_latency_ms=reference.latency_ms,
        agreement=one.agreement,
        length=one.length,
        float_length=reference.length,
        guard_overkill=guard_overkill(
            chosen.answers, examples, chosen.student.network.classes, chosen.recipe, product.good_class
        ),
        accuracy_drop=one.accuracy_drop,
        speedup=one.speedup,
        runtime=one.build.runtime,
        quantizer=one.build.quantizer,
        student=one.build.student,
        file=one.file,
    )


def pack_bundle(material: Material, candidate: Candidate, chosen: Chosen, number: int) -> Candidate:
    """Write the bundle of the chosen file, with a self-test of validation pictures; returns the candidate with it."""
    data = _packed(material, candidate, chosen, number)
    candidate.bundle_file.write_bytes(data)
    return candidate.with_(recipe=chosen.recipe, version=number, bundle=sha256_hex(data))


def _packed(material: Material, candidate: Candidate, chosen: Chosen, number: int) -> bytes:
    examples, network, answers = material.of(Split.VALIDATION), chosen.student.network, chosen.answers
    by_key = {e.picture: by_class(row, network.classes) for e, row in zip(examples, answers.scores, strict=True)}
    said = ((e.picture, answers.novelty_at(place)) for place, e in enumerate(examples))
    novelty = {picture: value for picture, value in said if value is not None}
    cases = choose_self_test(by_key, chosen.recipe, novelty=novelty, count=SELF_TEST_PICTURES)
    files = {MODEL_NAME: candidate.chosen_onnx.read_bytes(), RECIPE_NAME: chosen.recipe.canonical()}
    # Whole pictures, losslessly: the device cuts its region of interest by itself.
    files |= {case.path: encode_png(decode_bgr(material.picture(key))) for key, case in cases.items()}
    return pack(
        files,
        name=f"{material.product.name}-edge",
        version=number,
        product=material.product.name,
        created_at=datetime.now(UTC),
        runtime=chosen.measured.build.runtime,
        backbone=network.backbone,
        precision=chosen.measured.build.precision,
        input=InputDescription(model_height=network.height, model_width=network.width),
        output=OutputDescription(novelty=None if answers.novelty is None else "novelty"),
        classes=network.classes,
        good_class=network.good_class,
        metrics=_metrics(candidate),
        self_test=list(cases.values()),
        origin=Origin(
            mlflow_run_id=candidate.run_id,
            snapshot_id=candidate.snapshot,
            teacher=candidate.teacher_version,
            exporters={name: version(name) for name in ("torch", "onnx", "onnxruntime")},
            cold_start=candidate.cold_start,
        ),
    )


def _metrics(candidate: Candidate) -> dict[str, float]:
    names = {"latency_ms", "float_latency_ms", "agreement", "guard_overkill", "accuracy_drop", "speedup"}
    measured: dict[str, Any] = candidate.shipped.model_dump(include=names) if candidate.shipped else {}
    gate_1 = candidate.golden_1.metrics("gate_1") if candidate.golden_1 else {}
    return gate_1 | {f"shipped/{name}": float(value) for name, value in measured.items() if value is not None}
