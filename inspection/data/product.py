"""What a product is and how its loop is tuned: one frozen record per product, kept as JSON in the store."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from inspection.contracts import Contract, Costs, Limits, Part, Region, Tiling
from inspection.contracts.base import Name, Probability


class AugmentPlan(Part):
    """Which changes keep a picture's class. Orientation or colour may *be* the defect: switch those off."""

    flip_horizontal: bool = True
    flip_vertical: bool = True
    rotate_90: bool = False
    rotate_degrees: float = Field(default=0.0, ge=0, le=180)  # either way; corners are filled by reflection
    shift_scale: float = Field(default=0.05, ge=0, le=0.5)  # share of the picture's side
    brightness_contrast: float = Field(default=0.2, ge=0, le=1)
    hue_saturation: float = Field(default=0.0, ge=0, le=0.5)  # share of the colour circle, and of full saturation
    blur_noise: bool = True


class TrainPlan(Part):
    """How the teacher is trained. ``pretrained``: "hub", "none", or a path to a state_dict (weights only).

    ``warm_start``: begin a retrain from the champion's weights when backbone, size and known classes allow it.
    """

    backbone: str = "resnet18"
    pretrained: str = "hub"
    height: int = Field(default=224, ge=32, le=2048)
    width: int = Field(default=224, ge=32, le=2048)
    epochs: int = Field(default=30, ge=1)
    warm_epochs: int | None = Field(default=None, ge=1)  # instead of `epochs` when started from the champion
    patience: int = Field(default=8, ge=1)
    batch_size: int = Field(default=32, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.02, ge=0)
    # Of `epochs`: the head alone, on the features as they came. None: 2 where weights came from other pictures,
    # but at most a third of them, else 0.
    probe_epochs: int | None = Field(default=None, ge=0)
    layer_decay: float = Field(default=1.0, gt=0, le=1)  # below 1, deeper layers learn more slowly
    average_share: float = Field(default=0.0, ge=0, le=1)  # of all steps: weights are averaged over about so many
    seed: int = Field(default=20_26, ge=0)
    warm_start: bool = False
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    compile_network: bool = False  # a minute or two once, then faster steps (inspection/training/README.md)
    augment: AugmentPlan = AugmentPlan()


Quantizer = Literal["minmax", "stem", "percentile", "entropy", "tensor"]
"""How a student is made int8: by the calibration of its activations, with a scale for each channel of the weights, or
("tensor": calibrated by minmax) one for each tensor; "stem" is minmax with the first convolutions left in float."""


class OtherStudent(Part):
    """Another network, or another size, to distil beside the plan's own. ``height``, ``width``: None is the teacher's."""

    backbone: str
    pretrained: str = "none"
    height: int | None = Field(default=None, ge=32, le=2048)
    width: int | None = Field(default=None, ge=32, le=2048)


class StudentPlan(Part):
    """How the device's network is distilled from the teacher and made small.

    What is shipped is searched (`inspection.release.search`): over ``alternatives``, each of which costs a distillation of
    its own, ``quantizers``, and ``runtimes``: a station that lacks one of these refuses a bundle that was built for it.
    ``qat_epochs``: of training with rounded weights and activations, where no quantizer is within the two limits (0: none).
    ``pretrained``: where nothing is said, "hub" in a product whose teacher takes its weights there, else "none".
    """

    backbone: str = "mobilenetv4_conv_small"
    pretrained: str = "none"
    height: int | None = Field(default=None, ge=32, le=2048)  # None: the teacher's
    width: int | None = Field(default=None, ge=32, le=2048)
    alternatives: list[OtherStudent] = []
    quantizers: list[Quantizer] = ["minmax", "stem"]
    runtimes: list[Literal["onnxruntime", "openvino"]] = Field(default=["onnxruntime"], min_length=1)
    qat_epochs: int = Field(default=3, ge=0)
    epochs: int = Field(default=30, ge=1)
    warm_epochs: int | None = Field(default=None, ge=1)  # instead of `epochs` when started from the champion's student
    learning_rate: float | None = Field(default=None, gt=0)  # None: 2e-3, and 1e-3 for weights from other pictures
    temperature: float = Field(default=2.0, gt=0)
    hard_label_share: float = Field(default=0.3, ge=0, le=1)
    calibration_pictures: int = Field(default=128, ge=8)
    max_balanced_accuracy_drop: Probability = 0.02
    min_agreement: Probability = 0.97
    novelty_guard: bool | None = None  # pictures unlike all that taught are INCONCLUSIVE; None: `familiar.is_guarded`

    def students(self) -> "list[StudentPlan]":
        """One plan for each network to distil, this one first."""
        return [self, *(self.model_copy(update=other.model_dump()) for other in self.alternatives)]


class CollectPlan(Part):
    """Which pictures are worth asking about: budget of one run, and its shares (the rest goes to the most uncertain)."""

    max_tasks_per_run: int = Field(default=100, ge=1)
    audit_share: Probability = 0.3  # of the budget: random passed parts, for an unbiased look at what was let through
    disagree_share: Probability = 0.3  # of the budget: NG or INCONCLUSIVE, so that overkill is seen too
    novel_share: Probability = 0.2  # of the budget: the most novel ones, where the model says how novel a picture is
    max_open_tasks: int = Field(default=400, ge=1)


class RetrainPlan(Part):
    """When a retrain is due and how labelled parts are split (permanently, by part group)."""

    min_new_labels: int = Field(default=100, ge=1)
    validation_share: float = Field(default=0.2, gt=0, lt=0.5)
    golden_share: float = Field(default=0.2, gt=0, lt=0.5)
    group_by: Literal["part", "lot"] = "part"  # "lot": parts of one lot look so alike that they stay on one side
    min_per_class: int = Field(default=4, ge=2)  # a class with fewer training pictures is left out and reported
    cold_start_good: int | None = Field(default=40, ge=10)  # good parts that begin a cold start (None: never by itself)
    may_shrink_to: dict[str, int] = {}  # by class: no fewer pictures on a side are meant, though the champion had more


class RolloutPlan(Part):
    """First group of stations, and when it has proved itself: that many verdicts made by the new digest."""

    first_group: list[str] = []  # empty: the first station by name
    success_verdicts: int = Field(default=20, ge=1)
    max_error_share: Probability = 0.05
    timeout_seconds: float = Field(default=900.0, gt=0)


class SchedulePlan(Part):
    """Cron expressions (UTC) of the flows, five fields each."""

    collect: str = "*/5 * * * *"
    sync_labels: str = "*/5 * * * *"
    retrain: str = "*/15 * * * *"
    watch: str = "*/10 * * * *"


class Product(Contract):
    """One product's definition."""

    SCHEMA: ClassVar[str] = "escapement.product/1.0"

    name: Name
    good_class: str
    classes: list[str] = Field(min_length=2)  # good class included; order is the order of the scores
    limits: Limits
    costs: Costs = Costs()
    region: Region | None = None
    tiling: Tiling = Tiling()
    train: TrainPlan = TrainPlan()
    student: StudentPlan = StudentPlan()
    collect: CollectPlan = CollectPlan()
    retrain: RetrainPlan = RetrainPlan()
    rollout: RolloutPlan = RolloutPlan()
    schedule: SchedulePlan = SchedulePlan()

    @model_validator(mode="before")
    @classmethod
    def _student_from_where_the_teacher_is(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        train, student = body.get("train", {}), body.get("student", {})
        if not (isinstance(train, dict | TrainPlan) and isinstance(student, dict | StudentPlan)):
            return body  # what is wrong with it is told by whoever reads it next
        source = train.pretrained if isinstance(train, TrainPlan) else train.get("pretrained", TrainPlan().pretrained)
        said = student.model_fields_set if isinstance(student, StudentPlan) else student.keys()
        if "pretrained" in said or source != "hub":
            return body
        given = student.model_dump(exclude_unset=True) if isinstance(student, StudentPlan) else student
        return body | {"student": {**given, "pretrained": source}}

    def group_of(self, part: str, lot: str | None) -> str:
        """What a part's pictures are kept together with when sides of a split are drawn."""
        return lot if self.retrain.group_by == "lot" and lot else part


def unknown_fields(part: Part, path: str = "") -> Iterator[tuple[str, list[str]]]:
    """What a document says that this program does not know: dotted name, and the names known at that place.

    They are kept all the same: a newer program may have written them.
    """
    known = sorted({field.alias or name for name, field in type(part).model_fields.items()})
    yield from ((f"{path}{name}", known) for name in part.model_extra or {})
    for name in type(part).model_fields:
        inner = getattr(part, name)
        if isinstance(inner, Part):
            yield from unknown_fields(inner, f"{path}{name}.")
