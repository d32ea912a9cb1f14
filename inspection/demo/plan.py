"""What a demo runs on: the product with its plan, the stations, the schedule of parts, and the takt."""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Self

import httpx
from huggingface_hub.constants import ENDPOINT

from inspection.contracts import Costs, Framing, Limits, Tiling, tiles_of
from inspection.data import picture_headers
from inspection.data.importers import read_directory
from inspection.data.product import (
    CollectPlan,
    Product,
    RetrainPlan,
    RolloutPlan,
    SchedulePlan,
    StudentPlan,
    TrainPlan,
)
from inspection.demo.images import images_schedule
from inspection.demo.line import Schedule, Sizes, rendered_schedule
from inspection.demo.renderer import Look
from inspection.errors import PictureError

SEED = 2026
STATIONS = ("press-1", "press-2", "press-3")
SIZES = Sizes(start=480, before=300, pool=480, after=300)
LOOK = Look(contrast=1.8, defect_size=1.8)  # what a network learns from scratch on two cores in minutes
_FINE_TUNING, _FINE_TUNING_STUDENT = 8e-4, 1e-3  # learning rates
_PEOPLE_ASK = 60
_HUB_SECONDS = 3.0
_ONE_TILE = Tiling()
_USUAL_SIDE, _LONGEST_SIDE = 128, 320  # of what a network is shown, in pixels
_DEFECT_SIDE = 12  # so many of them across a defect of the usual size, where boxes say how large defects are
NO_HUB = (
    f"The hub of learned weights ({ENDPOINT}) was out of reach: the networks began with random ones, which learn little "
    "from so few real pictures. --pretrained FILE and --student-pretrained FILE take weights kept on this machine."
)
_NO_LIMITS = "Without --max-escape and --max-overkill the gates only ask for no worse than the model before."
# A retrain pulls the labels by itself; each flow run takes some seconds of two cores that train: not all at one moment.
QUICK = SchedulePlan(collect="1-59/5 * * * *", sync_labels="2-59/5 * * * *", retrain="* * * * *", watch="3-59/5 * * * *")


@dataclass(frozen=True)
class Plan:
    """Everything that differs between demos. ``ask`` is how many tasks the operators get; takt in seconds."""

    product: Product
    schedule: Schedule
    stations: tuple[str, ...]
    seed: int
    pictures: str
    takt_seconds: float
    ask: int

    def tuned(
        self,
        *,
        backbone: str | None = None,
        pretrained: str | None = None,
        student: str | None = None,
        student_pretrained: str | None = None,
        size: int | None = None,
        max_escape: float | None = None,
        max_overkill: float | None = None,
    ) -> Self:
        """With what the command line overrides; learned weights are fine-tuned with smaller steps than random ones."""
        teacher = {**_network(backbone, pretrained, _FINE_TUNING), **_given(height=size, width=size)}
        plans = {
            "train": self.product.train.model_copy(update=teacher),
            "student": self.product.student.model_copy(update=_network(student, student_pretrained, _FINE_TUNING_STUDENT)),
            "limits": self.product.limits.model_copy(update=_given(escape_rate=max_escape, overkill_rate=max_overkill)),
        }
        return replace(self, product=self.product.model_copy(update=plans))

    def for_people(self) -> Self:
        """As few questions as a person answers in a few minutes."""
        collect = self.product.collect.model_copy(update={"max_tasks_per_run": _PEOPLE_ASK, "max_open_tasks": _PEOPLE_ASK})
        retrain = self.product.retrain.model_copy(update={"min_new_labels": round(0.7 * _PEOPLE_ASK)})
        product = self.product.model_copy(update={"collect": collect, "retrain": retrain})
        return replace(self, product=product, ask=_PEOPLE_ASK)

    def noted(self, note: str) -> Self:
        """With one more thing a reader of the figures must know."""
        return replace(self, schedule=replace(self.schedule, notes=(*self.schedule.notes, note)))


def _network(backbone: str | None, pretrained: str | None, fine_tuning: float) -> Mapping[str, Any]:
    if pretrained in (None, "none"):
        return _given(backbone=backbone, pretrained=pretrained)
    weights = pretrained if pretrained == "hub" else str(Path(pretrained).absolute())
    return _given(backbone=backbone, pretrained=weights, learning_rate=fine_tuning)


def _given(**values: Any) -> Mapping[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _product(name: str, schedule: Schedule, size: int, limits: Limits, ask: int) -> Product:
    return Product(
        name=name,
        good_class=schedule.good_class,
        classes=list(schedule.classes),
        limits=limits,
        train=TrainPlan(
            backbone="resnet18",
            pretrained="none",
            height=size,
            width=size,
            epochs=12,
            warm_epochs=7,
            patience=12,
            learning_rate=1.5e-3,
            warm_start=True,
        ),
        student=StudentPlan(
            epochs=16, warm_epochs=14, learning_rate=4e-3, max_balanced_accuracy_drop=0.03, min_agreement=0.95
        ),
        collect=CollectPlan(max_tasks_per_run=ask, max_open_tasks=2 * ask, audit_share=0.5, disagree_share=0.3),
        retrain=RetrainPlan(min_new_labels=round(0.85 * ask), cold_start_good=None),
        rollout=RolloutPlan(first_group=[STATIONS[0]], success_verdicts=10, timeout_seconds=300.0),
        schedule=QUICK,
    )


def rendered_plan() -> Plan:
    """The made-up product.

    Its limits are what some fifty golden parts of each kind can show: without any miss the bounds are at 6 %, and a model
    that rejects one good part in ten must not end the demo (12 of 53 are within 35 %).
    """
    schedule = rendered_schedule(SEED, STATIONS, SIZES, look=LOOK)
    ask = 400
    product = _product("lid", schedule, 112, Limits(escape_rate=0.25, overkill_rate=0.35), ask)
    return Plan(product, schedule, STATIONS, SEED, "rendered", 0.15, ask)


def _working_size(directory: Path, schedule: Schedule, tiling: Tiling) -> int:
    """Pixels a side a network is shown, a multiple of 32.

    Usually 128; more where boxes say that defects would be too small to see; never more than the pictures, or their tiles,
    have, since enlarging tells a network nothing.
    """
    sides = []
    for part in schedule.start:
        with suppress(PictureError):  # the import counts it, in quarantine
            header = picture_headers.read(part.source.read_bytes() if part.source else b"")
            tile = tiles_of(header.height, header.width, Framing(tiling=tiling))[0]
            sides.append(min(tile.width, tile.height))
    side = median(sides or [_USUAL_SIDE])
    boxes = [box for item in read_directory(directory, schedule.good_class) for box in item.boxes]
    small = median([min(box.width, box.height) for box in boxes] or [side])
    wanted = min(_LONGEST_SIDE, max(_USUAL_SIDE, math.ceil(_DEFECT_SIDE * side / small / 32) * 32))
    return int(min(wanted, max(32, side // 32 * 32)))


def hub_answers() -> bool:
    """Whether the hub of learned weights can be reached now."""
    try:
        httpx.head(ENDPOINT, timeout=_HUB_SECONDS)
    except httpx.HTTPError:
        return False
    return True


def images_plan(directory: Path, good: str, tiling: Tiling = _ONE_TILE) -> Plan:
    """A folder of real pictures. Nobody knows what can be asked of them: without limits of the person's own the gates
    compare with the model before, and that is all."""
    schedule = images_schedule(directory, good, STATIONS, seed=SEED)
    ask = min(320, len(schedule.before) + len(schedule.pool))
    size = _working_size(directory, schedule, tiling)
    product = _product("pictures", schedule, size, Limits(escape_rate=1.0, overkill_rate=1.0), ask)
    by_lot = product.retrain.model_copy(update={"group_by": "lot"})
    product = product.model_copy(update={"retrain": by_lot, "costs": Costs(escape=3.0), "tiling": tiling})
    schedule = replace(schedule, notes=(*schedule.notes, _NO_LIMITS))
    return Plan(product, schedule, STATIONS, SEED, str(directory), 0.15, ask)
