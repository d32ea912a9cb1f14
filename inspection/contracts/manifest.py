"""Manifest of a bundle: what the file is, where it came from, what it must answer on this device."""

from typing import ClassVar

from pydantic import Field

from inspection.contracts.base import Contract, Name, Part, Probability, Sha256, Utc
from inspection.contracts.verdict import Decision

MANIFEST_NAME = "manifest.json"
MODEL_NAME = "model.onnx"
RECIPE_NAME = "recipe.json"
ONNXRUNTIME, OPENVINO = "onnxruntime", "openvino"


class FileEntry(Part):
    """One file of the bundle: path inside it, length in bytes, SHA-256."""

    path: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")
    length: int = Field(ge=0)
    sha256: Sha256


class InputDescription(Part):
    """What ``model.onnx`` takes: uint8 frames ``[batch, height, width, 3]`` in ``colour`` order, any height and width.

    The graph resizes to ``model_height`` x ``model_width`` and normalizes by itself.
    """

    name: str = "frame"
    colour: str = "BGR"
    model_height: int = Field(gt=0)
    model_width: int = Field(gt=0)


class OutputDescription(Part):
    """Outputs of ``model.onnx``: class scores ``[batch, classes]`` float32 summing to 1, a defect map
    ``[batch, map_height, map_width]`` float32 in [0, 1], and where one is named the novelty ``[batch]`` float32 in
    [0, 1]."""

    scores: str = "scores"
    defect_map: str = "defect_map"
    novelty: str | None = None


class SelfTestCase(Part):
    """One picture of the self-test: its file in the bundle and what the device must answer (``novelty`` within the same
    tolerance, where it is said)."""

    path: str
    decision: Decision
    scores: dict[str, Probability]
    tolerance: float = Field(gt=0, lt=1)
    novelty: Probability | None = None


class Origin(Part):
    """Where the model came from: evidence that outlives the servers.

    ``cold_start``: it has learnt from good pictures alone, and nobody has taught it what a defect is.
    """

    mlflow_run_id: str | None = None
    snapshot_id: Sha256 | None = None
    teacher: str | None = None
    commit: str | None = None
    exporters: dict[str, str] = {}
    cold_start: bool = False


class Manifest(Contract):
    """A bundle's table of contents and provenance."""

    SCHEMA: ClassVar[str] = "escapement.manifest/1.1"

    name: Name
    version: int = Field(ge=1)
    product: Name
    created_at: Utc
    files: list[FileEntry]
    runtime: str = ONNXRUNTIME  # or OPENVINO; one that a device does not know is refused there
    backbone: str
    precision: str  # "int8" | "float32"
    input: InputDescription
    output: OutputDescription = OutputDescription()
    classes: list[str] = Field(min_length=2)
    good_class: str
    metrics: dict[str, float] = {}
    self_test: list[SelfTestCase] = Field(min_length=1)
    origin: Origin = Origin()
