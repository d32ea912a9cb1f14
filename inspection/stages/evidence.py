"""What each stage leaves in MLflow: one run per candidate (the teacher's), with the student's run nested in it.

Invariant: a run from which a version is registered says by itself what it was made from (snapshot, environment, commit)
and how good it is (scorecard, gate, plots). Names are chosen for the comparison page: ``golden/...`` is the teacher on the
golden parts, ``bundle/...`` the shipped file on them, ``map/...`` where that file points, ``latency/...`` milliseconds on
one thread. What compares candidates stands on the teacher's run as well.
"""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import inspection
from inspection.contracts import Recipe, Verdict
from inspection.data.pictures import decode_bgr
from inspection.data.snapshot_record import Split
from inspection.release.export import export_onnx
from inspection.release.map_score import MapScore
from inspection.release.plots import (
    confusion_figure,
    escape_overkill_figure,
    offenders_figure,
    search_figure,
    worst_offenders,
)
from inspection.release.registry import Registry, Run, edge_name, run_name, teacher_name
from inspection.release.scorecard import Scorecard
from inspection.release.search import Bar, to_markdown
from inspection.settings import Settings
from inspection.stages.candidate import Candidate
from inspection.stages.material import Material
from inspection.training.record import Trained

LogEpoch = Callable[[int, dict[str, float]], None]
Judged = Sequence[tuple[Verdict, str]]

EXAMPLE_SIDE = 64  # MLflow writes the input example as JSON too: keep it small


def commit() -> str | None:
    """The commit this program runs from; None outside a checkout."""
    where = Path(inspection.__file__).parents[1]
    done = subprocess.run(["git", "-C", str(where), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _plans(material: Material) -> dict[str, Any]:
    keep = {"train", "student", "retrain", "limits", "costs"}
    return material.product.model_dump(mode="json", include=keep)


def _made_from(run: Run, settings: Settings, material: Material) -> None:
    """The snapshot as the run's dataset, and what the run runs on."""
    run.snapshot(material.snapshot, f"{settings.blob_url}/snapshots/{material.snapshot.digest}.json")
    run.environment()


def _example(material: Material) -> NDArray[np.uint8]:
    frame = decode_bgr(material.picture(material.of(Split.VALIDATION)[0].picture))
    small = cv2.resize(frame, (EXAMPLE_SIDE, EXAMPLE_SIDE), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small[None], dtype=np.uint8)


class TeacherRun:
    """The candidate's run while the teacher is trained and judged; use as a context manager."""

    def __init__(self, settings: Settings, material: Material) -> None:
        self._registry, self._material, self._settings = Registry(settings.mlflow_url), material, settings
        self._held = ExitStack()

    def __enter__(self) -> "TeacherRun":
        product = self._material.product.name
        number = len(self._registry.versions(teacher_name(product))) + 1
        self._run: Run = self._held.enter_context(
            self._registry.run(product, run_name("teacher", number), kind="teacher", commit=commit())
        )
        self._run.params(_plans(self._material))
        _made_from(self._run, self._settings, self._material)
        return self

    def __exit__(self, *exc_info: Any) -> bool | None:
        return self._held.__exit__(*exc_info)

    @property
    def id(self) -> str:
        """The run's id."""
        return self._run.id

    def comparison(self, champion_run: str | None) -> str:
        """Address of MLflow's page that compares this run with the champion's; without one, of the product's runs."""
        product = self._material.product.name
        if champion_run is None:
            return self._registry.experiment_page(product)
        return self._registry.comparison_page(product, [champion_run, self.id])

    def log_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """One point of each curve."""
        self._run.metrics(metrics, step=epoch)

    def finish(self, candidate: Candidate, teacher: Trained, judged: Judged) -> Candidate:
        """Scorecard, plots, the model itself and its registered version; returns the candidate with that version."""
        card, answer = candidate.golden_1, candidate.gate_1
        if card is None or answer is None:
            raise ValueError("finish() comes after gate 1")
        self._run.params({"teacher.started_from": teacher.started_from, "teacher.precision": teacher.precision})
        self._run.metrics({"train/seconds": teacher.seconds, "train/best_epoch": float(teacher.best_epoch)})
        self._run.scorecard("golden", card)
        self._run.gate(1, answer)
        _promise(self._run, "teacher", candidate.teacher_recipe)
        _plot(self._run, self._material, card, judged)
        export_onnx(teacher.deploy_graph(), candidate.teacher_onnx)
        model = self._run.onnx_model("teacher", candidate.teacher_onnx, _example(self._material))
        tags = {"snapshot": candidate.snapshot, "gate1": answer.answer.value, "backbone": teacher.backbone}
        name = teacher_name(candidate.product)
        return candidate.with_(
            teacher_version=self._registry.register(name, model, run=self._run, tags=tags, description=answer.why)
        )


def _promise(run: Run, whose: str, recipe: Recipe | None) -> None:
    """What the thresholds promise of escapes: the sentence as a tag, its numbers as metrics."""
    if recipe is not None and (said := recipe.promise) is not None:
        run.tags({f"promise.{whose}": said.words})
        run.metrics({f"promise/{whose}_escape_rate": said.escape_rate, f"promise/{whose}_parts": said.parts})


def _plot(run: Run, material: Material, card: Scorecard, judged: Judged) -> None:
    """Confusion, the trade of escape against overkill, and the worst offenders as a picture grid.

    A verdict's ``sequence`` is the place of its picture among the golden examples, counted from 1.
    """
    product = material.product
    run.figure("plots/confusion.png", confusion_figure(card))
    run.figure("plots/escape_against_overkill.png", escape_overkill_figure(card, product.limits))
    worst = worst_offenders(judged, product.good_class)
    examples = material.of(Split.GOLDEN)
    pictures = {v.id: decode_bgr(material.picture(examples[v.sequence - 1].picture)) for v, _ in worst}
    run.figure("plots/worst_offenders.png", offenders_figure(worst, pictures, product.good_class))


def log_student(settings: Settings, material: Material, candidate: Candidate, student: Trained, bar: Bar) -> Candidate:
    """The student's nested run with its origin, curves, file and the search for it, and the edge model's registered
    version. ``bar``: what the search asked of a file."""
    registry = Registry(settings.mlflow_url)
    parent, shipped = registry.reopen(candidate.run_id), candidate.shipped
    if shipped is None:
        raise ValueError("log_student() comes after the file was chosen")
    name = run_name("student", candidate.version or 0)
    with registry.run(candidate.product, name, kind="student", parent=parent, commit=commit()) as run:
        _made_from(run, settings, material)
        run.params({"student": material.product.student.model_dump(mode="json"), "precision": shipped.precision})
        run.params({"runtime": shipped.runtime, "quantizer": shipped.quantizer or ""})
        run.history(student.history)
        _log_search(run, candidate, bar)
        figures = {"latency/shipped_ms": shipped.latency_ms, "latency/float_ms": shipped.float_latency_ms}
        figures |= {"shipped/agreement": shipped.agreement, "shipped/bytes": float(shipped.length)}
        figures |= _given(
            {
                "shipped/guard_overkill": shipped.guard_overkill,
                "shipped/accuracy_drop": shipped.accuracy_drop,
                "shipped/speedup": shipped.speedup,
            }
        )
        run.metrics(figures)
        parent.metrics(figures)
        for each in (run, parent):
            _promise(each, "bundle", candidate.recipe)
        model = run.onnx_model("edge", candidate.chosen_onnx, _example(material))
        tags = {
            "snapshot": candidate.snapshot,
            "precision": shipped.precision,
            "runtime": shipped.runtime,
            "bundle": candidate.bundle or "",
            "teacher": candidate.teacher_version or "",
        }
        version = registry.register(edge_name(candidate.product), model, run=run, tags=tags)
    return candidate.with_(student_run_id=run.id, edge_version=version)


def _given(figures: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if value is not None}


def _log_search(run: Run, candidate: Candidate, bar: Bar) -> None:
    """All builds as a table and a plot, what was shipped among them."""
    found, chosen = candidate.searched, candidate.chosen_build
    if chosen is not None:
        run.text("build_search.md", to_markdown(found, chosen, bar))
        run.json("build_search.json", [one.model_dump(mode="json") for one in found])
        run.figure("plots/build_search.png", search_figure(found, chosen))


@contextmanager
def cold_start_run(settings: Settings, material: Material, number: int) -> Iterator[Run]:
    """The run of a cold start: no training, hence no curves; what it was made from."""
    product = material.product.name
    with Registry(settings.mlflow_url).run(
        product, run_name("cold start", number), kind="cold-start", commit=commit()
    ) as run:
        run.params(_plans(material))
        _made_from(run, settings, material)
        yield run


def log_cold_start(settings: Settings, run: Run, material: Material, candidate: Candidate, bar: Bar) -> Candidate:
    """What was measured, the file itself, and the edge model's registered version."""
    shipped = candidate.shipped
    if shipped is None:
        raise ValueError("log_cold_start() comes after the file was chosen")
    figures = {"latency/shipped_ms": shipped.latency_ms, "latency/float_ms": shipped.float_latency_ms}
    run.metrics(figures | {"shipped/agreement": shipped.agreement, "shipped/bytes": float(shipped.length)})
    _log_search(run, candidate, bar)
    model = run.onnx_model("edge", candidate.chosen_onnx, _example(material))
    tags = {
        "snapshot": candidate.snapshot,
        "precision": shipped.precision,
        "bundle": candidate.bundle or "",
        "cold_start": "yes",
    }
    registry = Registry(settings.mlflow_url)
    version = registry.register(edge_name(candidate.product), model, run=run, tags=tags)
    return candidate.with_(edge_version=version, comparison=registry.experiment_page(candidate.product))


def log_gate_2(
    settings: Settings, material: Material, candidate: Candidate, judged: Judged, pointing: MapScore | None = None
) -> Candidate:
    """Gate 2's answer and the bundle's scorecard on both runs, its plots on the student's, the answer on the version.

    ``judged``: the bundle's verdicts on the golden examples with their true labels (`inspection.release.replay`);
    ``pointing``: the score of their regions, where people drew boxes.
    """
    card, answer = candidate.golden_2, candidate.gate_2
    if card is None or answer is None:
        raise ValueError("log_gate_2() comes after gate 2")
    registry = Registry(settings.mlflow_url)
    student = registry.reopen(candidate.student_run_id) if candidate.student_run_id else None
    for run in filter(None, (registry.reopen(candidate.run_id), student)):
        run.scorecard("bundle", card)
        run.gate(2, answer)
        _log_pointing(run, pointing)
    if student is not None:
        _plot(student, material, card, judged)
    if candidate.edge_version is not None:
        registry.tag_version(edge_name(candidate.product), candidate.edge_version, {"gate2": answer.answer.value})
    return candidate


def _log_pointing(run: Run, score: MapScore | None) -> None:
    """Metrics ``map/...``, JSON and a page, beside the scorecard's."""
    if score is not None:
        run.metrics(score.metrics("map"))
        run.json("scorecards/map.json", score.model_dump(mode="json"))
        run.text("scorecards/map.md", score.to_markdown())
