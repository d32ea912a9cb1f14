"""Answers about one picture: which stand, and withdrawing them by hand. Labels stay append-only: a retraction is a row."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from inspection.data.labels import LABEL_STUDIO, answers_about, retract_picture
from inspection.store.session import Store
from inspection.store.tables import LabelRow


class AnswerView(BaseModel):
    """An answer as people and scripts read it; ``task`` is Label Studio's, where it comes from there."""

    model_config = ConfigDict(frozen=True)

    origin: str
    origin_id: str
    label: str | None  # None: cannot tell
    annotator: str
    made_at: datetime
    task: int | None = None

    def in_words(self) -> str:
        """One line for people."""
        where = f"{self.origin} {self.origin_id}"
        return f"{self.label or 'cannot tell'} by {self.annotator}, {self.made_at:%Y-%m-%d %H:%M} UTC ({where})"


def standing(store: Store, product: str, picture: str) -> list[AnswerView]:
    """The answers about a picture that stand (``picture`` as in `retract_picture`)."""
    with store.begin(read_only=True) as session:
        return [_view(row) for row in answers_about(session, product, picture)]


def withdraw(
    store: Store, product: str, picture: str, *, who: str, why: str, answer: str | None = None
) -> list[AnswerView]:
    """Withdraw the answers about a picture, or the one with that origin id; what was withdrawn. Raises UsageError."""
    with store.begin() as session:
        return [_view(row) for row in retract_picture(session, product, picture, who=who, why=why, origin_id=answer)]


def withdrawn_in_words(answers: list[AnswerView]) -> str:
    """For people, with what is left to do where the source still holds an answer."""
    lines = [f"retracted: {answer.in_words()}" for answer in answers]
    tasks = ", ".join(str(answer.task) for answer in answers if answer.task is not None)
    if tasks:
        lines.append(
            f"Label Studio still holds it: delete the annotation of task {tasks} too, or the next pull brings it back"
        )
    return "\n".join(lines)


def _view(row: LabelRow) -> AnswerView:
    return AnswerView(
        origin=row.origin,
        origin_id=row.origin_id,
        label=row.label,
        annotator=row.annotator,
        made_at=row.made_at,
        task=row.body.get("task") if row.origin == LABEL_STUDIO else None,
    )
