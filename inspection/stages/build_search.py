"""The search for the device's file: builds are made, measured on the validation side, and one is chosen.

Invariants: calibration pictures come from the training side and are the same for all builds, measurements from the
validation side; the golden side is not looked at: gate 2 judges the one that was chosen, and none is tried after it failed,
since that would make the golden side a second validation side. The builds of a runtime are timed in turns with the
reference (ONNX Runtime's float file), in a process of their own; training with rounding begins only where no other int8
file is good enough.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inspection.contracts import ONNXRUNTIME, Decision, Recipe
from inspection.data.product import Product, StudentPlan
from inspection.data.snapshot_record import Example, Split
from inspection.errors import BundleError, EnvironmentTroubleError
from inspection.release.export import Graph, export_onnx
from inspection.release.measure import Answers, answers_of
from inspection.release.quantize import QUANTIZER_REFUSALS, first_line, quantize_int8
from inspection.release.search import FLOAT, PLAIN, QAT, Bar, Build, Measured, choose, finalists, in_words, reference_of
from inspection.release.trials import Trial, score, time_in_turns
from inspection.stages.judging import Rule, balanced_accuracy, decisions
from inspection.stages.material import Material, Say

log = logging.getLogger(__name__)

SCREENING_RUNS, TIMING_RUNS = 20, 100
FINALISTS = 3
_MEASURED_SIZES = 64
HISTOGRAM_PICTURES = 32  # each costs three times what minmax does, and says much more

Frames = Sequence[NDArray[np.uint8]]
Rounded = Callable[[Frames], Graph]
"""Trains the first student on with rounding; the frames are those its file will be calibrated on."""


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


@dataclass(frozen=True)
class Student:
    """What a device would compute, how it is described, and the folder beside which its files lie."""

    folder: Path
    network: Described
    graph: Graph

    def file(self, quantizer: str) -> Path:
        """Where the build of this quantizer lies."""
        return self.folder.with_name(f"{self.folder.name}-{_FILE_NAMES.get(quantizer, f'int8-{quantizer}')}.onnx")


_FILE_NAMES = {FLOAT: "float", "minmax": "int8", f"{QAT}-float": f"{QAT}-float"}


def check_runtimes(plan: StudentPlan) -> None:
    """EnvironmentTroubleError when a runtime that a build is to be measured on is not installed: before hours of work."""
    for runtime in plan.runtimes:
        if find_spec(runtime) is None:
            raise EnvironmentTroubleError(
                f"the product wants its builds tried on {runtime}, which is not installed here: "
                f"pip install {runtime}, or take it out of the product's student.runtimes"
            )


def calibration_frames(material: Material) -> Frames:
    """The same sample of the training side for every build: as many pictures as the plan says, or tiles of pictures."""
    plans = material.product
    return material.frames(material.of(Split.TRAIN)).sample(plans.student.calibration_pictures, plans.train.seed)


def quantize(exact: Path, frames: Frames, quantizer: str, out: Path) -> None:
    """Write the int8 file of one quantizer; `QAT` is minmax, of a network that was trained with rounding. Raises what ONNX
    Runtime's quantizer raises on a graph it cannot quantize."""
    if quantizer in ("percentile", "entropy"):
        some = (frame[None] for frame in frames[:HISTOGRAM_PICTURES])
        quantize_int8(exact, some, out, method=quantizer)  # type: ignore[arg-type]  # one of the two
    else:
        given = (frame[None] for frame in frames)
        quantize_int8(
            exact, given, out, per_channel=quantizer != "tensor", plain=quantizer == PLAIN, float_stem=quantizer == "stem"
        )


def bar_of(plan: StudentPlan) -> Bar:
    """What a plan asks of a file."""
    return Bar(plan.min_agreement, plan.max_balanced_accuracy_drop)


@dataclass(frozen=True)
class Chosen:
    """The build to ship: its measurement, answers on the validation side, the recipe calibrated on them; and all others."""

    measured: Measured
    answers: Answers
    recipe: Recipe
    student: Student
    found: list[Measured]


@dataclass
class Search:
    """One search. ``rule`` makes a file's recipe; ``teacher``: its scores ``[N, K]`` on the validation side (None: nobody
    taught, and the first student's float file stands for it)."""

    material: Material
    students: list[Student]
    rule: Rule
    say: Say
    teacher: NDArray[np.float32] | None = None
    _answers: dict[Build, Answers] = field(default_factory=dict)
    _files: dict[Build, Path] = field(default_factory=dict)
    _found: dict[Build, Measured] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._product: Product = self.material.product
        self._plan: StudentPlan = self._product.student
        self._examples: list[Example] = self.material.of(Split.VALIDATION)
        self._frames = self.material.frames(self._examples)
        self._classes = self.students[0].network.classes
        self._bad = np.asarray([e.label != self._product.good_class for e in self._examples])
        self._typical = _typical(self._frames)

    @property
    def bar(self) -> Bar:
        """What the product asks of a file."""
        return bar_of(self._plan)

    def run(self, rounded: Rounded | None = None) -> Chosen:
        """Build, measure, choose. ``rounded`` trains a student anew with rounding, where nothing else is good enough."""
        self.measure(rounded)
        best = self._time()
        chosen = choose([self._found[build] for build in best], self.bar)
        self.say(in_words(self.found, chosen, self.bar))
        student = next(s for s in self.students if s.folder.name == chosen.build.student)
        return Chosen(chosen, self._answers[chosen.build], self.recipe_of(chosen.build), student, self.found)

    @property
    def found(self) -> list[Measured]:
        """All builds so far, as they were measured."""
        return list(self._found.values())

    def recipe_of(self, build: Build) -> Recipe:
        """By a measured build's own answers."""
        return self.rule(self._answers[build])

    def measure(self, rounded: Rounded | None = None) -> None:
        """All that is not a matter of time: what is built, and what it answers."""
        frames = calibration_frames(self.material)
        for student in self.students:
            export_onnx(student.graph, student.file(FLOAT))
            self._add(student, FLOAT)
            for quantizer in dict.fromkeys([PLAIN, *self._plan.quantizers]):
                self._quantize(student, quantizer, student.file(FLOAT), frames)
        self._measure()
        if rounded is not None and not any(self._good(one) for one in self._found.values()):
            self.say("no int8 file is good enough: training with rounding")
            student = self.students[0]
            exact = student.file(f"{QAT}-float")
            export_onnx(rounded(frames), exact)
            self._quantize(student, QAT, exact, frames)
            self._measure()

    def _good(self, one: Measured) -> bool:
        return one.build.precision == "int8" and self.bar.met_by(one, reference_of(self._found.values()))

    # -- building -------------------------------------------------------------------------------------------------

    def _quantize(self, student: Student, quantizer: str, exact: Path, frames: Frames) -> None:
        out = student.file(quantizer)
        try:
            quantize(exact, frames, quantizer, out)
        except QUANTIZER_REFUSALS as error:
            log.warning("%s cannot be made int8 by %s: %s", student.network.backbone, quantizer, error)
            build = self._build(student, quantizer, ONNXRUNTIME)
            self._found[build] = Measured(build=build, file=out.name, error=first_line(error))
            return
        self._add(student, quantizer)

    def _add(self, student: Student, quantizer: str) -> None:
        """A file, to be measured on every runtime of the plan; ONNX Runtime is always one: all are compared with it."""
        for runtime in dict.fromkeys([ONNXRUNTIME, *self._plan.runtimes]):
            self._files[self._build(student, quantizer, runtime)] = student.file(quantizer)

    @staticmethod
    def _build(student: Student, quantizer: str, runtime: str) -> Build:
        made = student.network
        return Build(
            student=student.folder.name,
            backbone=made.backbone,
            height=made.height,
            width=made.width,
            quantizer=quantizer,
            runtime=runtime,
        )

    # -- measuring ------------------------------------------------------------------------------------------------

    def _measure(self) -> None:
        """Answers of what has none yet, and what follows from them."""
        todo = [build for build in self._files if build not in self._found]
        for build, said in self._answered(todo):
            if isinstance(said, str):
                self._found[build] = Measured(build=build, file=self._files[build].name, error=said)
            else:
                tiles, good = self.material.tiles, self._classes.index(self._product.good_class)
                self._answers[build] = said.by_picture(tiles, good)
        for build in todo:
            if build in self._answers:
                self._found[build] = self._measured(build)

    def _answered(self, builds: Sequence[Build]) -> Iterator[tuple[Build, Answers | str]]:
        """What each build says of each frame, or why it says nothing."""
        elsewhere = [build for build in builds if build.runtime != ONNXRUNTIME]
        for build in builds:
            if build not in elsewhere:
                yield build, self._said(build)
        if elsewhere:
            trials = [self._trial(build) for build in elsewhere]
            for build, answer in zip(elsewhere, score(trials, len(self._classes), self._frames), strict=True):
                yield build, answer.error or answer.answers

    def _said(self, build: Build) -> Answers | str:
        """What a file says here, or why it says nothing. The float files must: others are compared with them."""
        try:
            return answers_of(self._files[build], self._frames)
        except (BundleError, *QUANTIZER_REFUSALS) as error:
            if build.quantizer == FLOAT:
                raise
            return first_line(error)

    def _trial(self, build: Build) -> Trial:
        return Trial(self._files[build], build.runtime, novelty="novelty" in self.students[0].graph.outputs)

    def _measured(self, build: Build) -> Measured:
        answers = self._answers[build]
        exact = self._answers[build.model_copy(update={"quantizer": FLOAT, "runtime": ONNXRUNTIME})]
        first = self._answers[next(iter(self._files))]  # the reference is built first
        wanted = first.scores if self.teacher is None else self.teacher
        recipe = self.rule(exact)
        equal = self._decisions(answers, recipe) == self._decisions(exact, recipe)
        rejected = self._decisions(answers, self.rule(answers)) != Decision.OK.value
        return Measured(
            build=build,
            file=self._files[build].name,
            length=self._files[build].stat().st_size,
            agreement=float(equal.mean()),
            teacher_agreement=float((answers.scores.argmax(1) == wanted.argmax(1)).mean()),
            accuracy_drop=self._accuracy(first) - self._accuracy(answers),
            escape=float((~rejected[self._bad]).mean()) if self._bad.any() else None,
            overkill=float(rejected[~self._bad].mean()) if not self._bad.all() else None,
        )

    def _accuracy(self, answers: Answers) -> float:
        return balanced_accuracy(answers, self._examples, self._classes)

    def _decisions(self, answers: Answers, recipe: Recipe) -> NDArray[np.str_]:
        return np.asarray([decision.value for decision in decisions(answers, self._classes, recipe)])

    # -- timing ---------------------------------------------------------------------------------------------------

    def _time(self) -> list[Build]:
        """All a few times, then the best often enough to choose by."""
        self._time_some([build for build, one in self._found.items() if one.error is None], SCREENING_RUNS)
        best = finalists(list(self._found.values()), self.bar, FINALISTS)
        self._time_some(best, TIMING_RUNS)
        return best

    def _time_some(self, builds: Sequence[Build], runs: int) -> None:
        reference = reference_of(self._found.values()).build
        for runtime in dict.fromkeys(build.runtime for build in builds):
            ours = [build for build in builds if build.runtime == runtime and build != reference]
            if not ours and self._found[reference].latency_ms is not None:
                continue  # alone its caches would be warmer than they were beside the others
            trials = [self._trial(reference), *(self._trial(build) for build in ours)]
            tried = time_in_turns(trials, len(self._classes), self._typical, runs)
            if tried[0].error is not None:
                raise EnvironmentTroubleError(f"the float file of {reference} cannot be timed: {tried[0].error}")
            for build, answer in zip([reference, *ours], tried, strict=True):
                if build == reference and runtime != ONNXRUNTIME:
                    continue  # it was timed among its own
                if answer.error is not None:
                    self._found[build] = self._found[build].model_copy(update={"error": answer.error})
                    continue
                times = {
                    "latency_ms": float(np.median(answer.times)) * self.material.tiles,
                    "speedup": float(np.median(tried[0].times / answer.times)),
                }
                self._found[build] = self._found[build].model_copy(update=times)


def _typical(frames: Frames) -> tuple[int, int, int]:
    sizes = sorted((f.shape for f in frames[:_MEASURED_SIZES]), key=lambda s: s[0] * s[1])
    height, width, _ = sizes[len(sizes) // 2]
    return int(height), int(width), 3
