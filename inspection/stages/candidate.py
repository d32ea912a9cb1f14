"""A candidate on its way from snapshot to line: one folder of files and one JSON record, written after each stage.

Invariant: a stage reads what the stages before it wrote and never changes it, so that any stage can be run again; then
what later ones said of its former work is gone.
"""

from datetime import datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from inspection.contracts import ONNXRUNTIME, Recipe, sha256_hex
from inspection.data.product import Product
from inspection.errors import UsageError
from inspection.release.gate import GateAnswer
from inspection.release.scorecard import Scorecard
from inspection.release.search import Measured
from inspection.settings import Settings

RECORD = "candidate.json"
STUDENT = "student"


class Shipped(BaseModel):
    """What was measured on the way to the shipped file. Latencies in milliseconds of a picture (all its tiles, one after
    the other), one thread."""

    model_config = ConfigDict(frozen=True)

    precision: str  # "int8" | "float32"
    latency_ms: float
    float_latency_ms: float  # of the plan's own student, on ONNX Runtime
    agreement: float  # share of pictures on which shipped and float file give the same decision, [0, 1]
    length: int
    float_length: int
    guard_overkill: float | None = None  # share of good validation parts that only the novelty turns INCONCLUSIVE
    # What older versions did not say: they shipped the one student on ONNX Runtime.
    accuracy_drop: float | None = None  # balanced accuracy of that float file minus the shipped one's
    speedup: float | None = None  # float time / shipped time, median over turns
    runtime: str = ONNXRUNTIME
    quantizer: str | None = None
    student: str = STUDENT  # name of the folder
    file: str | None = None

    def in_words(self) -> str:
        """One line for people."""
        said = (
            f"shipping {self.precision} on {self.runtime}: {self.latency_ms:.2f} ms "
            f"(float {self.float_latency_ms:.2f} ms), {self.agreement:.1%} equal verdicts"
        )
        if self.guard_overkill is None:
            return said
        return f"{said}; {self.guard_overkill:.1%} of good validation parts are rejected as unfamiliar alone"


class Candidate(BaseModel):
    """The record. Fields of later stages are None until those have run."""

    model_config = ConfigDict(frozen=True)

    folder: Path
    product: str
    snapshot: str
    run_id: str
    started_at: datetime
    # The product as it was then, its student plan as it was when the bundle was built. None: made by an older version.
    definition: Product | None = None
    comparison: str | None = None  # address of MLflow's page that compares this run with the champion's
    teacher_recipe: Recipe | None = None
    teacher_version: str | None = None
    golden_1: Scorecard | None = None  # the teacher on the golden parts
    gate_1: GateAnswer | None = None
    shipped: Shipped | None = None
    searched: list[Measured] = []  # all builds that were measured on the way to it
    recipe: Recipe | None = None
    bundle: str | None = None
    version: int | None = None
    golden_2: Scorecard | None = None  # the bundle on the golden parts
    champion_2: Scorecard | None = None  # the champion's bundle on the same parts
    gate_2: GateAnswer | None = None
    student_run_id: str | None = None  # the run the edge version is registered on, nested in `run_id`
    edge_version: str | None = None
    cold_start: bool = False  # made from good pictures alone: there is no teacher, and gate 1 is not asked

    @property
    def bookmarks(self) -> Path:
        """Where trainings leave how far they are: beside all candidates, since a new run goes on where one was killed."""
        return self.folder.parent / "bookmarks"

    @property
    def teacher(self) -> Path:
        """Folder of the trained teacher."""
        return self.folder / "teacher"

    @property
    def student(self) -> Path:
        """Folder of the distilled student that is shipped; before one is, of the plan's own."""
        return self.folder / (self.shipped.student if self.shipped else STUDENT)

    def student_folder(self, number: int) -> Path:
        """Folder of a student by its place in the plan, the plan's own being 0."""
        return self.folder / (STUDENT if number == 0 else f"{STUDENT}-{number + 1}")

    @property
    def teacher_onnx(self) -> Path:
        """The teacher as ONNX (what MLflow keeps)."""
        return self.folder / "teacher.onnx"

    @property
    def float_onnx(self) -> Path:
        """The plan's own student before quantization."""
        return self.folder / "student-float.onnx"

    @property
    def int8_onnx(self) -> Path:
        """The plan's own student after quantization by `minmax`, where that is one of its quantizers."""
        return self.folder / "student-int8.onnx"

    @property
    def bundle_file(self) -> Path:
        """The packed bundle."""
        return self.folder / "bundle.tar"

    def packed(self) -> bytes:
        """The bundle that the record speaks of. UsageError before there is one, and where the file is another."""
        asked = f"run `inspection build-bundle {self.run_id}`"
        if self.bundle is None:
            raise UsageError(f"run {self.run_id} has no bundle yet: {asked}")
        if not self.bundle_file.is_file():
            raise UsageError(
                f"bundle {self.bundle[:12]} of run {self.run_id} is gone from {self.bundle_file}: {asked} again"
            )
        data = self.bundle_file.read_bytes()
        if sha256_hex(data) != self.bundle:
            raise UsageError(
                f"{self.bundle_file} is not bundle {self.bundle[:12]}, which run {self.run_id} says it holds: {asked} again"
            )
        return data

    @property
    def chosen_onnx(self) -> Path:
        """The file that is shipped."""
        if self.shipped is not None and self.shipped.file is not None:
            return self.folder / self.shipped.file
        return self.int8_onnx if self.shipped and self.shipped.precision == "int8" else self.float_onnx

    @property
    def chosen_build(self) -> Measured | None:
        """The shipped one among those that were searched; None where an older version built it."""
        shipped = self.shipped
        if shipped is None:
            return None
        asked = (shipped.student, shipped.quantizer, shipped.runtime)
        return next((m for m in self.searched if (m.build.student, m.build.quantizer, m.build.runtime) == asked), None)

    def save(self) -> Self:
        """Write the record atomically and return it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{RECORD}"
        temporary.write_text(self.model_dump_json(indent=1))
        temporary.replace(self.folder / RECORD)
        return self

    def with_(self, **changes: object) -> Self:
        """A copy with these fields, saved."""
        return self.model_copy(update=changes).save()


def folder_of(settings: Settings, run_id: str) -> Path:
    """Where a candidate's files are."""
    return settings.state / "work" / "candidates" / run_id


def load_candidate(settings: Settings, run_id: str) -> Candidate:
    """Read a candidate's record. Raises UsageError when there is none."""
    path = folder_of(settings, run_id) / RECORD
    if not path.is_file():
        known = sorted(p.parent.name for p in path.parents[1].glob(f"*/{RECORD}"))
        raise UsageError(
            f"no run {run_id!r} of a teacher or a cold start in {path.parents[1]}; there are: {', '.join(known) or 'none'}"
        )
    return Candidate.model_validate_json(path.read_bytes())


def folder_of_comparisons(settings: Settings) -> Path:
    """Where comparisons of the store's products lie."""
    return settings.state / "work" / "comparisons"


def comparison_of(settings: Settings, run_id: str) -> Path | None:
    """The record of what a comparison's run compared; None where no comparison was that run."""
    records = folder_of_comparisons(settings).glob("*/runs/*.json")
    return next((path for path in records if path.stem == run_id), None)


def candidate_of_bundle(settings: Settings, bundle: str) -> Candidate:
    """The candidate whose bundle has this digest (or a unique beginning of it). Raises UsageError."""
    found = []
    for path in sorted((settings.state / "work" / "candidates").glob(f"*/{RECORD}")):
        candidate = Candidate.model_validate_json(path.read_bytes())
        if candidate.bundle and candidate.bundle.startswith(bundle):
            found.append(candidate)
    if len(found) != 1:
        raise UsageError(f"{len(found)} bundles begin with {bundle!r}: give more of the digest `build-bundle` printed")
    return found[0]
