"""Chosen pictures become tasks: reserved in the store, created in Label Studio, confirmed in the store.

Invariants: one picture and purpose is one task, however often, however concurrently and after whatever crash this runs:
a row is reserved first (unique), one run at a time creates (a lease), and before anything is created the server is asked
for our key, so that what a dead run created is adopted. No transaction is open while the server is asked.
"""

import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from inspection.contracts import Box, Decision, Verdict
from inspection.data.product import Product
from inspection.data.selection import PURPOSE
from inspection.errors import MissingPictureError
from inspection.labelling.answers import namespace
from inspection.labelling.interface import (
    ABOUT_FIELD,
    ANSWER,
    DEFECT,
    IMAGE_FIELD,
    PICTURE,
    defects_of,
)
from inspection.labelling.port import KEY_FIELD, LINK_FIELD, LabelStudio, NewTask, TaskState, task_key
from inspection.labelling.relink import relink_open_tasks
from inspection.store.leases import Lease, hold
from inspection.store.session import Store, insert_new
from inspection.store.tables import PictureRow, TaskRow, VerdictRow, WatermarkRow

_CREATE_AT_ONCE = 100
_LEASE_SECONDS = 60.0
_DIGEST_SHOWN = 12


class Asked(Protocol):
    """A picture somebody chose to ask about (`inspection.data.selection.Choice`)."""

    @property
    def picture(self) -> str:
        """SHA-256 of the picture."""
        ...

    @property
    def why(self) -> str:
        """The reason, a short word."""
        ...

    @property
    def verdict(self) -> str | None:
        """Id of the verdict that led here."""
        ...


@dataclass(frozen=True)
class PushReport:
    """What a push did: tasks made, tasks adopted from a run that died, choices that had a task already, open tasks that
    were given a link to where the hub is now."""

    created: int
    adopted: int
    already: int
    doubles_removed: int
    relinked: int = 0


@dataclass(frozen=True)
class _Open:
    """A reserved row without a confirmed task, and what its task shows."""

    row: TaskRow
    picture: PictureRow
    verdict: Verdict | None


def push_tasks(
    store: Store,
    studio: LabelStudio,
    product: Product,
    project_id: int,
    choices: Sequence[Asked],
    picture_link: Callable[[str], str],
    *,
    purpose: str = PURPOSE,
    wait_seconds: float = 120.0,
) -> PushReport:
    """Make one task per chosen picture, finish what an earlier run left half done, and keep open tasks' links right.

    ``purpose`` is another word where a study asks about the same pictures again; ``picture_link`` gives the address a
    browser fetches a picture from, by its SHA-256. Raises MissingPictureError for a picture the store does not know
    (nothing is reserved then), LeaseError when another run holds on for longer than ``wait_seconds``, ServerError when
    Label Studio fails: run again, nothing is asked twice.
    """
    holder = f"{socket.gethostname()}/{os.getpid()}/{threading.get_ident()}"
    name = f"label_studio/{product.name}/push"
    space = namespace(studio.counts(project_id).created_at)
    with hold(store, name, holder, ttl_seconds=_LEASE_SECONDS, wait_seconds=wait_seconds) as lease:
        with store.begin() as session:
            lease.check(session)
            new = _reserve(session, product, choices, purpose)
            _forget_replaced(session, product, space)
            waiting = _waiting(session, product, purpose)
        adopted, doubles = _adopt(store, studio, lease, project_id, waiting)
        relinked = relink_open_tasks(store, studio, lease, product, project_id, picture_link)
        missing = [w for w in waiting if w.row.id not in adopted]
        for start in range(0, len(missing), _CREATE_AT_ONCE):
            part = missing[start : start + _CREATE_AT_ONCE]
            ids = studio.create_tasks(project_id, [_new_task(product, w, picture_link) for w in part])
            _confirm(store, lease, project_id, dict(zip((w.row.id for w in part), ids, strict=True)))
    return PushReport(len(missing), len(adopted), len(choices) - new, doubles, relinked)


def _reserve(session: Session, product: Product, choices: Sequence[Asked], purpose: str) -> int:
    """Reserve a row per choice; how many are new."""
    wanted = {choice.picture for choice in choices}
    known = set(session.scalars(select(PictureRow.sha256).where(PictureRow.sha256.in_(wanted))))
    if wanted - known:
        raise MissingPictureError(
            f"{len(wanted - known)} chosen pictures are not in the store, the first is {min(wanted - known)}: nothing "
            "was asked; take the pictures in first"
        )
    return sum(
        insert_new(
            session,
            TaskRow,
            product=product.name,
            picture=choice.picture,
            purpose=purpose,
            why=choice.why,
            verdict=choice.verdict,
        )
        for choice in choices
    )


def _waiting(session: Session, product: Product, purpose: str) -> list[_Open]:
    """Reserved rows without a task: fresh ones, those of a dead run, those whose project was replaced."""
    rows = session.execute(
        select(TaskRow, PictureRow)
        .join(PictureRow, PictureRow.sha256 == TaskRow.picture)
        .where(TaskRow.product == product.name, TaskRow.purpose == purpose)
        .where(TaskRow.label_studio_id.is_(None), TaskRow.answered_at.is_(None), TaskRow.closed_at.is_(None))
        .order_by(TaskRow.id)
    ).all()
    ids = {task.verdict for task, _ in rows if task.verdict}
    bodies = session.execute(select(VerdictRow.id, VerdictRow.body).where(VerdictRow.id.in_(ids)))
    verdicts = {verdict: Verdict.model_validate(body) for verdict, body in bodies}
    return [_Open(task, picture, verdicts.get(task.verdict or "")) for task, picture in rows]


def _forget_replaced(session: Session, product: Product, space: str) -> None:
    """When the project is another one than last time, its unanswered tasks are gone: ask again."""
    known = project_of_tasks(session, product)
    if known == space:
        return
    session.merge(WatermarkRow(name=_project_name(product), value=space))
    if known is not None:
        session.execute(update(TaskRow).where(TaskRow.product == product.name).values(label_studio_id=None))


def project_of_tasks(session: Session, product: Product) -> str | None:
    """The name space (`inspection.labelling.answers.namespace`) of the project a product's tasks were last made in."""
    row = session.get(WatermarkRow, _project_name(product))
    return row.value if row else None


def _project_name(product: Product) -> str:
    return f"label_studio/{product.name}/project"


def _adopt(
    store: Store, studio: LabelStudio, lease: Lease, project_id: int, waiting: Sequence[_Open]
) -> tuple[dict[int, int], int]:
    """Confirm the tasks the server has already. Row id -> task id, and how many unanswered doubles were removed."""
    keys = {task_key(w.row.purpose, w.row.picture): w.row.id for w in waiting}
    found = studio.find_tasks(project_id, list(keys)) if keys else {}
    kept = {keys[key]: _best(states).id for key, states in found.items()}
    _confirm(store, lease, project_id, kept)
    doubles = [s.id for states in found.values() for s in states if s != _best(states) and s.answers == 0]
    for task_id in doubles:
        studio.delete_task(task_id)
    return kept, len(doubles)


def _best(states: Sequence[TaskState]) -> TaskState:
    """The one to keep of several tasks with one key: an answered one, else the oldest."""
    return min(states, key=lambda s: (s.answers == 0, s.id))


def _confirm(store: Store, lease: Lease, project_id: int, ids: Mapping[int, int]) -> None:
    if not ids:
        return
    with store.begin() as session:
        lease.check(session)
        # A row that holds one of these ids speaks of a server that is gone: ids are unique on a living one.
        stale = TaskRow.label_studio_id.in_(ids.values()) & TaskRow.id.not_in(ids)
        session.execute(update(TaskRow).where(stale).values(label_studio_id=None))
        for row in session.scalars(select(TaskRow).where(TaskRow.id.in_(ids))):
            row.project_id, row.label_studio_id = project_id, ids[row.id]


def _new_task(product: Product, asked: _Open, picture_link: Callable[[str], str]) -> NewTask:
    row, picture, verdict = asked.row, asked.picture, asked.verdict
    facts = {
        "part": picture.part,
        "station": picture.station or "none",
        "why": row.why,
        "model": _model_says(product, verdict),
        "captured": f"{verdict.captured_at:%Y-%m-%d %H:%M:%S} UTC" if verdict else "unknown",
    }
    shown = f"Part {facts['part']} | station {facts['station']} | asked: {facts['why']} | model: {facts['model']}"
    data: dict[str, Any] = {
        IMAGE_FIELD: picture_link(row.picture),
        KEY_FIELD: task_key(row.purpose, row.picture),
        LINK_FIELD: {"task": row.id, "picture": row.picture, "purpose": row.purpose, "verdict": row.verdict},
        ABOUT_FIELD: f"{shown} | captured {facts['captured']}",
        **facts,
    }
    return NewTask(data=data, prediction=_prediction(product, picture, verdict))


def _named(product: Product, verdict: Verdict) -> str | None:
    """The class the model names: its defect class, or the good class when it passed the part."""
    named = verdict.defect_class or (product.good_class if verdict.decision is Decision.OK else None)
    return named if named in product.classes else None


def _model_says(product: Product, verdict: Verdict | None) -> str:
    if verdict is None:
        return "not asked"
    named = _named(product, verdict) or verdict.defect_class  # a cold start's names no class people choose from
    if named is None and verdict.reason is not None and verdict.novelty is not None:
        return f"{verdict.decision.value}, {verdict.reason}"
    score = f" {verdict.scores[named]:.2f}" if named in verdict.scores and named else ""
    return f"{verdict.decision.value}, {named}{score}" if named else verdict.decision.value


def _prediction(product: Product, picture: PictureRow, verdict: Verdict | None) -> dict[str, Any] | None:
    """What an operator finds filled in: the model's class, and its regions as boxes."""
    named = _named(product, verdict) if verdict else None
    if verdict is None or named is None:
        return None
    choice = {"from_name": ANSWER, "to_name": PICTURE, "type": "choices", "value": {"choices": [named]}}
    boxes = [_rectangle(box, picture) for box in verdict.regions if box.label in defects_of(product)]
    return {
        "model_version": (verdict.bundle_digest or "unknown")[:_DIGEST_SHOWN],
        "score": verdict.scores.get(named, 0.0),
        "result": [choice, *(box for box in boxes if box)],
    }


def _rectangle(box: Box, picture: PictureRow) -> dict[str, Any] | None:
    """A box in percent of the picture's size, cut at its edges; None when nothing of it is inside."""
    left, top = min(box.x, picture.width), min(box.y, picture.height)
    width, height = min(box.width, picture.width - left), min(box.height, picture.height - top)
    if width <= 0 or height <= 0:
        return None
    value = {
        "x": 100 * left / picture.width,
        "y": 100 * top / picture.height,
        "width": 100 * width / picture.width,
        "height": 100 * height / picture.height,
        "rotation": 0,
        "rectanglelabels": [box.label],
    }
    size = {"original_width": picture.width, "original_height": picture.height, "image_rotation": 0}
    return {"from_name": DEFECT, "to_name": PICTURE, "type": "rectanglelabels", "value": value, **size}
