"""What an annotation says: Label Studio's list of regions and choices, read as one label and its boxes. Pure.

Invariants: an answer is exactly one choice that is a class of the product or "cannot tell"; boxes are pixels inside the
picture; anything else raises LabelError and names task and class. An answer's origin id names project, task and
annotation for ever: the project's moment of creation is part of it, because a new database counts ids from 1 again.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from inspection.contracts import Box
from inspection.data.product import Product
from inspection.errors import LabelError
from inspection.labelling.interface import ANSWER, CANNOT_TELL, DEFECT
from inspection.labelling.port import StudioAnnotation, StudioTask


def namespace(created_at: datetime) -> str:
    """What all origin ids of a project begin with."""
    return f"{created_at.astimezone(UTC):%Y%m%dT%H%M%S.%f}/"


def task_prefix(space: str, task_id: int) -> str:
    """What all origin ids of one task begin with."""
    return f"{space}{task_id}/"


def origin_id(space: str, task: StudioTask, annotation: StudioAnnotation) -> str:
    """The name of an answer at its source: when the project was made, task id, annotation id."""
    return f"{task_prefix(space, task.id)}{annotation.id}"


def task_of(origin: str) -> int:
    """The Label Studio task an origin id speaks of."""
    return int(origin.split("/")[1])


def read_label(product: Product, task: StudioTask, annotation: StudioAnnotation) -> str | None:
    """The class an annotation answers with; None is "cannot tell"."""
    choices = [
        choice
        for item in annotation.result
        if item.get("from_name") == ANSWER and item.get("type") == "choices"
        for choice in _value(item).get("choices", [])
    ]
    where = f"Label Studio's task {task.id}, annotation {annotation.id} by {annotation.annotator}"
    if len(choices) != 1:
        raise LabelError(
            f"{where}, has {len(choices) or 'no'} answers instead of one: open the task and choose one, or delete the "
            "annotation",
            code="not_one_answer",
        )
    if choices[0] == CANNOT_TELL:
        return None
    _check_class(product, choices[0], where)
    return str(choices[0])


def read_boxes(product: Product, task: StudioTask, annotation: StudioAnnotation, width: int, height: int) -> list[Box]:
    """The boxes of an annotation in pixels of a picture of ``width`` x ``height``, cut at its edges."""
    where = f"Label Studio's task {task.id}, annotation {annotation.id} by {annotation.annotator}"
    boxes = []
    for item in annotation.result:
        if item.get("from_name") != DEFECT or item.get("type") != "rectanglelabels":
            continue
        try:
            value = _Rectangle.model_validate(_value(item))
        except ValidationError as error:
            raise LabelError(f"{where}, has a box nobody can read: draw it again ({error})", code="bad_box") from error
        _check_class(product, value.rectanglelabels[0], where)
        box = value.pixels(width, height)
        boxes += [box] if box else []
    return boxes


class _Rectangle(BaseModel):
    """A box in percent of the picture's size; ``rotation`` in degrees about the top left corner is not kept."""

    x: float = Field(allow_inf_nan=False)
    y: float = Field(allow_inf_nan=False)
    width: float = Field(allow_inf_nan=False)
    height: float = Field(allow_inf_nan=False)
    rectanglelabels: list[str] = Field(min_length=1, max_length=1)

    def pixels(self, width: int, height: int) -> Box | None:
        left, right = (min(max(v, 0.0), 100.0) * width / 100 for v in (self.x, self.x + self.width))
        top, bottom = (min(max(v, 0.0), 100.0) * height / 100 for v in (self.y, self.y + self.height))
        if right <= left or bottom <= top:
            return None
        return Box(x=left, y=top, width=right - left, height=bottom - top, label=self.rectanglelabels[0])


def _value(item: Mapping[str, Any]) -> Mapping[str, Any]:
    value = item.get("value")
    return value if isinstance(value, dict) else {}


def _check_class(product: Product, name: object, where: str) -> None:
    if name not in product.classes:
        raise LabelError(
            f"{where}, says {name!r}, which is no class of the product {product.name} ({', '.join(product.classes)}): "
            "add it to the product's classes, or correct the answer. No label was taken over",
            code="unknown_class",
        )
