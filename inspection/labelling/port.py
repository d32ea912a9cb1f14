"""The port to Label Studio: what the loop needs of a labelling server, and the records that cross it.

Invariants: an implementation translates every failure into our own errors (UsageError: a setting is wrong; ServerError:
unreachable, or answers nonsense; LabelError: the server refuses an interface); a listing is complete or it raises.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict

KEY_FIELD = "escapement_key"
"""Field of a task's data that holds our key, ``<purpose>/<picture sha256>``: the handle for finding it again."""

LINK_FIELD = "escapement"
"""Field of a task's data that holds our own ids (``task``: row id; ``picture``: sha256)."""


def task_key(purpose: str, picture: str) -> str:
    """Our key of a task."""
    return f"{purpose}/{picture}"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class StudioProject(_Record):
    """A project. ``created_at`` tells it from another one that got the same id in a new database."""

    id: int
    title: str
    description: str
    config: str
    created_at: AwareDatetime


class StudioTab(_Record):
    """A tab of the Data Manager; ``data`` has ``title``, ``filters``, ``ordering``."""

    id: int
    data: dict[str, Any]


class StudioAnnotation(_Record):
    """One operator's answer. ``result`` is Label Studio's list of regions and choices."""

    id: int
    result: list[dict[str, Any]]
    cancelled: bool
    annotator: str
    created_at: AwareDatetime
    updated_at: AwareDatetime

    @property
    def made_at(self) -> datetime:
        """When the answer got its present form."""
        return max(self.created_at, self.updated_at)


class StudioTask(_Record):
    """A task with its annotations, cancelled ones included."""

    id: int
    data: dict[str, Any]
    updated_at: AwareDatetime
    annotations: tuple[StudioAnnotation, ...]

    @property
    def key(self) -> str | None:
        """Our key, or None when somebody else made this task."""
        key = self.data.get(KEY_FIELD)
        return key if isinstance(key, str) else None


class TaskState(_Record):
    """A task without its annotations: how many answers count, how many were cancelled."""

    id: int
    key: str | None
    answers: int
    cancelled: int


class NewTask(_Record):
    """A task to create; ``prediction`` has ``model_version``, ``score``, ``result``."""

    data: dict[str, Any]
    prediction: dict[str, Any] | None = None


class Changes(_Record):
    """Tasks changed since a stamp. ``newest``: everything stamped up to here was read; None when nothing changed."""

    tasks: tuple[StudioTask, ...]
    newest: AwareDatetime | None


class Counts(_Record):
    """Tasks and answers (annotations not cancelled) of a project, and when the project was made."""

    tasks: int
    answers: int
    created_at: AwareDatetime


class LabelStudio(Protocol):
    """A labelling server, as one user. Safe to share between threads."""

    def projects(self) -> list[StudioProject]:
        """All projects this user sees."""
        ...

    def project(self, project_id: int) -> StudioProject:
        """One project. UsageError when there is none."""
        ...

    def create_project(self, title: str, description: str, config: str, settings: Mapping[str, Any]) -> StudioProject:
        """Make a project (``title``: 3 to 50 characters). LabelError when the interface is refused."""
        ...

    def change_project(self, project_id: int, **fields: Any) -> StudioProject:
        """Change ``title``, ``description`` or ``label_config``. LabelError when the interface is refused."""
        ...

    def delete_project(self, project_id: int) -> None:
        """Delete a project with everything in it."""
        ...

    def tabs(self, project_id: int) -> list[StudioTab]:
        """The project's tabs, left to right."""
        ...

    def save_tab(self, project_id: int, data: Mapping[str, Any], tab_id: int | None = None) -> StudioTab:
        """Change a tab, or add one at the right end."""
        ...

    def create_tasks(self, project_id: int, tasks: Sequence[NewTask]) -> list[int]:
        """Create tasks; their ids in the same order. Not repeated on failure: it may or may not have happened."""
        ...

    def find_tasks(self, project_id: int, keys: Sequence[str]) -> dict[str, list[TaskState]]:
        """The tasks with these keys, oldest first; keys without a task are absent."""
        ...

    def change_data(self, task_id: int, data: Mapping[str, Any]) -> None:
        """Replace a task's data, its answers stay; nothing happens when the task is gone already."""
        ...

    def delete_task(self, task_id: int) -> None:
        """Delete one task with its annotations; nothing happens when it is gone already."""
        ...

    def changes(self, project_id: int, since: datetime | None) -> Changes:
        """All tasks whose server stamp is later than ``since``; without one, all that hold an answer."""
        ...

    def read_tasks(self, project_id: int, task_ids: Sequence[int]) -> list[StudioTask]:
        """These tasks; those that are gone are absent."""
        ...

    def task_states(self, project_id: int) -> Iterator[TaskState]:
        """Every task of the project, by id. Slow on a large project: for repairs."""
        ...

    def counts(self, project_id: int) -> Counts:
        """Tasks and answers of the whole project, other people's tasks included."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
