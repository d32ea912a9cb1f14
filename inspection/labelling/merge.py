"""What was read from Label Studio, merged into the append-only labels inside the caller's unit of work.

Invariants: an answer is recorded once per content; an answer that was there and is cancelled or gone is retracted;
pictures are those of our own task rows, whatever a task's data say today.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from inspection.data.labels import LABEL_STUDIO, Answer, record_answers, retract
from inspection.data.product import Product
from inspection.labelling.answers import origin_id, read_boxes, read_label, task_of
from inspection.labelling.port import StudioTask, task_key
from inspection.store.tables import LabelRow, PictureRow, TaskRow

_AT_ONCE = 500


@dataclass(frozen=True)
class Merged:
    """Answers that were new, corrected, retracted, known already; cancelled annotations; tasks somebody else made."""

    answered: int = 0
    corrected: int = 0
    retracted: int = 0
    unchanged: int = 0
    skipped: int = 0
    foreign_tasks: int = 0

    def __add__(self, other: "Merged") -> "Merged":
        return Merged(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class _Known:
    """A task of ours on both sides."""

    task: StudioTask
    row: TaskRow
    picture: PictureRow


def merge_tasks(session: Session, product: Product, space: str, tasks: Sequence[StudioTask]) -> Merged:
    """Record the answers of these tasks and retract what they no longer hold. Raises LabelError, having written
    nothing that the caller's rollback does not take back."""
    parts = [tasks[start : start + _AT_ONCE] for start in range(0, len(tasks), _AT_ONCE)]
    return sum((_merge_part(session, product, space, part) for part in parts), Merged())


def retract_tasks(session: Session, product: Product, space: str, task_ids: Collection[int]) -> int:
    """Retract every answer to tasks that Label Studio no longer has; how many tasks that were."""
    gone = [origin for origin in live_answers(session, product, space) if task_of(origin) in task_ids] if task_ids else []
    _retract(session, gone, "the task was deleted")
    lost = {task_of(origin) for origin in gone}
    rows = TaskRow.label_studio_id.in_(lost) & (TaskRow.product == product.name)
    session.execute(update(TaskRow).where(rows).values(answered_at=None))
    return len(lost)


def live_answers(
    session: Session, product: Product, space: str, pictures: Collection[str] | None = None
) -> dict[str, datetime]:
    """Origin ids of a project's answers that stand, with when they were given; of all pictures, or of these."""
    mine = _of_project(product, space)
    if pictures is not None:
        mine = (*mine, LabelRow.picture.in_(pictures))
    rows = session.execute(select(LabelRow.origin_id, LabelRow.kind, LabelRow.made_at).where(*mine).order_by(LabelRow.id))
    latest = {origin: (kind, made_at) for origin, kind, made_at in rows}
    return {origin: made_at for origin, (kind, made_at) in latest.items() if kind == "answer"}


def live_count(session: Session, product: Product, space: str) -> int:
    """How many answers of a project stand."""
    latest = select(func.max(LabelRow.id)).where(*_of_project(product, space)).group_by(LabelRow.origin_id)
    standing = select(func.count()).where(LabelRow.id.in_(latest), LabelRow.kind == "answer")
    return session.scalar(standing) or 0


def known_keys(session: Session, product: Product) -> set[str]:
    """The keys of all tasks we ever reserved for a product."""
    rows = session.execute(select(TaskRow.purpose, TaskRow.picture).where(TaskRow.product == product.name))
    return {task_key(purpose, picture) for purpose, picture in rows}


def _of_project(product: Product, space: str) -> tuple[ColumnElement[bool], ...]:
    return (
        LabelRow.product == product.name,
        LabelRow.origin == LABEL_STUDIO,
        LabelRow.origin_id.startswith(space, autoescape=True),
    )


def _merge_part(session: Session, product: Product, space: str, tasks: Sequence[StudioTask]) -> Merged:
    known = _known(session, product, tasks)
    live = live_answers(session, product, space, {k.picture.sha256 for k in known})
    answers = [answer for k in known for answer in _answers(product, space, k)]
    recorded = record_answers(session, answers)
    there = {answer.origin_id for answer in answers}
    read = {k.task.id for k in known}
    dropped = [origin for origin in live if origin not in there and task_of(origin) in read]
    _retract(session, dropped, "the annotation was cancelled or deleted")
    for k in known:
        _mark_answered(k)
    return Merged(
        answered=len(there - live.keys()),
        corrected=recorded.new - len(there - live.keys()),
        retracted=len(dropped),
        unchanged=recorded.known,
        skipped=sum(a.cancelled for k in known for a in k.task.annotations),
        foreign_tasks=len(tasks) - len(known),
    )


def _known(session: Session, product: Product, tasks: Sequence[StudioTask]) -> list[_Known]:
    """Those of these tasks that have a row of ours."""
    keys = {task.key for task in tasks if task.key}
    pictures = {key.rpartition("/")[2] for key in keys}
    rows = session.execute(
        select(TaskRow, PictureRow)
        .join(PictureRow, PictureRow.sha256 == TaskRow.picture)
        .where(TaskRow.product == product.name, TaskRow.picture.in_(pictures))
    ).all()
    ours = {task_key(row.purpose, row.picture): (row, picture) for row, picture in rows}
    return [_Known(task, *ours[task.key]) for task in tasks if task.key in ours]


def _answers(product: Product, space: str, known: _Known) -> list[Answer]:
    task, picture = known.task, known.picture
    return [
        Answer(
            product=product.name,
            picture=picture.sha256,
            origin=LABEL_STUDIO,
            origin_id=origin_id(space, task, annotation),
            label=read_label(product, task, annotation),
            annotator=annotation.annotator,
            made_at=annotation.made_at,
            boxes=read_boxes(product, task, annotation, picture.width, picture.height),
            body={"task": task.id, "annotation": annotation.id, "result": annotation.result},
        )
        for annotation in task.annotations
        if not annotation.cancelled
    ]


def _retract(session: Session, origins: Collection[str], why: str) -> None:
    for origin in origins:
        retract(session, LABEL_STUDIO, origin, body={"why": why})


def _mark_answered(known: _Known) -> None:
    """A row is answered while its task holds an answer; a double of the task can answer it, but not take back."""
    standing = [a.made_at for a in known.task.annotations if not a.cancelled]
    if standing:
        known.row.answered_at = max(standing)
    elif known.row.label_studio_id in {known.task.id, None}:
        known.row.answered_at = None
