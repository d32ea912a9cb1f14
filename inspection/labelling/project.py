"""The Label Studio project of a product: made, found again and kept up to date by code.

Invariants: a project is known by the marker line in its description, never by its title; there is one per product (of
several, the oldest); an interface changed by hand is left alone as long as it still asks what the product needs, and is
never overwritten silently; tabs people made are not touched.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from inspection.data.product import Product
from inspection.data.selection import AUDIT
from inspection.errors import LabelError
from inspection.labelling.interface import (
    ABOUT_FIELD,
    ANSWER,
    CANNOT_TELL,
    DEFECT,
    defects_of,
    labelling_config,
    read_config,
)
from inspection.labelling.port import KEY_FIELD, LINK_FIELD, LabelStudio, StudioProject

_TITLE_LENGTH = 50  # of Label Studio's database
_MARKER = re.compile(r"\[escapement product=(?P<product>\S+) interface=(?P<digest>[0-9a-f]{16})\]")
_SETTINGS: dict[str, Any] = {
    "show_skip_button": True,
    "enable_empty_annotation": False,
    "maximum_annotations": 1,
    "show_collab_predictions": True,  # the model's answer is there when an operator opens a task
    "sampling": "Sequential sampling",
    "evaluate_predictions_automatically": False,
}

# Columns nobody reads; several of them also cost the server a join per row.
_HIDDEN = (
    f"data.{KEY_FIELD}",
    f"data.{LINK_FIELD}",
    f"data.{ABOUT_FIELD}",
    *("inner_id", "updated_by", "file_upload", "storage_filename", "created_at", "avg_lead_time", "draft_exists"),
    *("annotations_results", "annotations_ids", "predictions_results", "predictions_model_versions", "comments"),
)


@dataclass(frozen=True)
class _Marked:
    project: StudioProject
    digest: str  # of the interface this program wrote last


def ensure_project(studio: LabelStudio, product: Product, *, restore: bool = False) -> int:
    """Find or make the product's project, bring interface and tabs up to date, and give its id.

    Raises LabelError when somebody changed the interface by hand so that controls or classes are missing, or classes
    appeared that the product does not know; ``restore`` overwrites such an interface with the product's own.
    """
    config = labelling_config(product)
    marked = _find(studio, product) or _create(studio, product, config)
    _update_interface(studio, product, marked, config, restore)
    _ensure_tabs(studio, marked.project.id)
    return marked.project.id


def _title(product: Product) -> str:
    return f"Escapement: {product.name}"[:_TITLE_LENGTH]


def _digest(config: str) -> str:
    return hashlib.sha256(config.encode()).hexdigest()[:16]


def _description(product: Product, config: str) -> str:
    return (
        f"Kept by Escapement for the product {product.name}. The next line is how it finds this project: leave it here.\n"
        f"[escapement product={product.name} interface={_digest(config)}]"
    )


def _find(studio: LabelStudio, product: Product) -> _Marked | None:
    projects = studio.projects()
    found = [
        _Marked(project, match["digest"])
        for project in projects
        if (match := _MARKER.search(project.description)) and match["product"] == product.name
    ]
    if found:
        return min(found, key=lambda m: m.project.id)
    for project in projects:
        if project.title == _title(product) and not _MARKER.search(project.description):
            raise LabelError(
                f"Label Studio's project {project.id} is called {project.title!r}, but the marker line is gone from its "
                f"description. If it is the project of {product.name}, put this line back:\n"
                f"[escapement product={product.name} interface={_digest(project.config)}]\nIf not, give it another title",
                code="marker_lost",
            )
    return None


def _create(studio: LabelStudio, product: Product, config: str) -> _Marked:
    made = studio.create_project(_title(product), _description(product, config), config, _SETTINGS)
    first = _find(studio, product)
    if first is None or first.project.id == made.id:
        return _Marked(made, _digest(config))
    studio.delete_project(made.id)  # somebody else made it at the same moment; ours is empty and younger
    return first


def _update_interface(studio: LabelStudio, product: Product, marked: _Marked, config: str, restore: bool) -> None:
    current = marked.project.config
    if current == config and marked.digest == _digest(config):
        return
    by_hand = _digest(current) != marked.digest and current != config
    if by_hand and not restore:
        _check_changed_by_hand(product, marked.project)
        return
    try:
        studio.change_project(marked.project.id, label_config=config, description=_description(product, config))
    except LabelError as error:
        raise LabelError(
            f"the interface of {product.name} (project {marked.project.id}) cannot be updated: {error}. A class that "
            "was answered with before cannot be taken away: keep it among the product's classes",
            code="interface_refused",
        ) from error


def _check_changed_by_hand(product: Product, project: StudioProject) -> None:
    asked = read_config(project.config)
    troubles = [
        f"the control {name!r} ({kind}) is missing"
        for name, kind in ((ANSWER, "Choices"), (DEFECT, "RectangleLabels"))
        if asked.controls.get(name) != kind
    ]
    known = {*product.classes, CANNOT_TELL}
    troubles += [f"the choice {name!r} is missing" for name in sorted(known - asked.choices)]
    troubles += [f"the box label {name!r} is missing" for name in sorted(set(defects_of(product)) - asked.boxes)]
    troubles += [f"{name!r} is no class of the product" for name in sorted((asked.choices | asked.boxes) - known)]
    if troubles:
        raise LabelError(
            f"the labelling interface of project {project.id} ({project.title}) was changed by hand and no longer fits "
            f"the product {product.name}: {'; '.join(troubles)}. Put it right under Settings > Labeling Interface, change "
            "the product's classes, or restore the product's own interface with `inspection pull-labels "
            f"--product {product.name} --restore-interface`",
            code="interface_changed",
        )


def _condition(column: str, operator: str, kind: str, value: Any) -> dict[str, Any]:
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


def _tabs() -> list[dict[str, Any]]:
    unanswered = _condition("total_annotations", "equal", "Number", 0)
    not_skipped = _condition("cancelled_annotations", "equal", "Number", 0)
    return [
        _tab("To label", [unanswered, not_skipped], "tasks:id"),
        _tab("Labelled", [_condition("total_annotations", "greater", "Number", 0)], "-tasks:updated_at"),
        _tab("Audit", [_condition("data.why", "equal", "String", AUDIT)], "tasks:id"),
        _tab("Skipped", [_condition("cancelled_annotations", "greater", "Number", 0)], "-tasks:updated_at"),
    ]


def _tab(title: str, conditions: list[dict[str, Any]], order: str) -> dict[str, Any]:
    hidden = [f"tasks:{column}" for column in _HIDDEN]
    return {
        "title": title,
        "type": "list",
        "target": "tasks",
        "filters": {"conjunction": "and", "items": conditions},
        "ordering": [order],
        "hiddenColumns": {"explore": hidden, "labeling": hidden},
    }


def _ensure_tabs(studio: LabelStudio, project_id: int) -> None:
    """Add our tabs, put changed filters back; everything else in a tab belongs to people."""
    there: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for tab in studio.tabs(project_id):
        there.setdefault(str(tab.data.get("title")), []).append((tab.id, tab.data))
    for wanted in _tabs():
        same = there.get(wanted["title"], [])
        if not same:
            studio.save_tab(project_id, wanted)
        for tab_id, data in same:
            if data.get("filters") != wanted["filters"]:
                studio.save_tab(project_id, data | {"filters": wanted["filters"]}, tab_id)
