"""A Label Studio in memory that implements the port: stamps rise, ids rise, deleting an annotation moves its task."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

from inspection.errors import ServerError, UsageError
from inspection.labelling.port import (
    Changes,
    Counts,
    NewTask,
    StudioAnnotation,
    StudioProject,
    StudioTab,
    StudioTask,
    TaskState,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


class FakeStudio:
    """The counterpart, simulated. ``fail_on`` names the method whose next call dies (after its work where ``late``)."""

    def __init__(self, created_at: datetime = START) -> None:
        self._ids = itertools.count(1)
        self._clock = created_at
        self.store: dict[int, StudioProject] = {}
        self.tab_store: dict[int, list[StudioTab]] = {}
        self.tasks: dict[int, tuple[int, StudioTask]] = {}
        self.predictions: dict[int, dict[str, Any] | None] = {}
        self.fail_on = ""
        self.late = False
        self.calls: list[str] = []

    # what an operator or an administrator does

    def annotate(self, task_id: int, result: list[dict[str, Any]], *, cancelled: bool = False, who: str = "anna") -> int:
        now = self._now()
        made = StudioAnnotation(
            id=next(self._ids), result=result, cancelled=cancelled, annotator=who, created_at=now, updated_at=now
        )
        self._change(task_id, (*self.tasks[task_id][1].annotations, made))
        return made.id

    def change_annotation(self, task_id: int, annotation_id: int, **fields: Any) -> None:
        self._change(
            task_id,
            tuple(
                a.model_copy(update={**fields, "updated_at": self._now()}) if a.id == annotation_id else a
                for a in self.tasks[task_id][1].annotations
            ),
        )

    def delete_annotation(self, task_id: int, annotation_id: int, *, silently: bool = False) -> None:
        """``silently``: as if the server had not moved the task's stamp."""
        left = tuple(a for a in self.tasks[task_id][1].annotations if a.id != annotation_id)
        project, task = self.tasks[task_id]
        if silently:
            self.tasks[task_id] = (project, task.model_copy(update={"annotations": left}))
        else:
            self._change(task_id, left)

    def tick(self, seconds: float) -> None:
        self._clock += timedelta(seconds=seconds)

    def _now(self) -> datetime:
        self._clock += timedelta(milliseconds=1)
        return self._clock

    def _change(self, task_id: int, annotations: tuple[StudioAnnotation, ...]) -> None:
        project, task = self.tasks[task_id]
        update = {"annotations": annotations, "updated_at": self._now()}
        self.tasks[task_id] = (project, task.model_copy(update=update))

    def _enter(self, name: str) -> None:
        self.calls.append(name)
        if self.fail_on == name and not self.late:
            self._die()

    def _leave(self, name: str) -> None:
        if self.fail_on == name and self.late:
            self._die()

    def _die(self) -> None:
        self.fail_on = ""
        raise ServerError("the fake died on purpose")

    # the port

    def projects(self) -> list[StudioProject]:
        self._enter("projects")
        return list(self.store.values())

    def project(self, project_id: int) -> StudioProject:
        if project_id not in self.store:
            raise UsageError(f"no project {project_id}")
        return self.store[project_id]

    def create_project(self, title: str, description: str, config: str, settings: Mapping[str, Any]) -> StudioProject:
        made = StudioProject(
            id=next(self._ids), title=title, description=description, config=config, created_at=self._now()
        )
        self.store[made.id] = made
        self.tab_store[made.id] = []
        return made

    def change_project(self, project_id: int, **fields: Any) -> StudioProject:
        self._enter("change_project")
        names = {"label_config": "config"}
        update = {names.get(k, k): v for k, v in fields.items()}
        self.store[project_id] = self.store[project_id].model_copy(update=update)
        return self.store[project_id]

    def delete_project(self, project_id: int) -> None:
        del self.store[project_id]

    def tabs(self, project_id: int) -> list[StudioTab]:
        return list(self.tab_store[project_id])

    def save_tab(self, project_id: int, data: Mapping[str, Any], tab_id: int | None = None) -> StudioTab:
        self._enter("save_tab")
        tabs = self.tab_store[project_id]
        saved = StudioTab(id=tab_id or next(self._ids), data=dict(data))
        self.tab_store[project_id] = [t for t in tabs if t.id != saved.id] + [saved]
        return saved

    def create_tasks(self, project_id: int, tasks: Sequence[NewTask]) -> list[int]:
        self._enter("create_tasks")
        ids = []
        for new in tasks:
            task = StudioTask(id=next(self._ids), data=new.data, updated_at=self._now(), annotations=())
            self.tasks[task.id] = (project_id, task)
            self.predictions[task.id] = new.prediction
            ids.append(task.id)
        self._leave("create_tasks")
        return ids

    def find_tasks(self, project_id: int, keys: Sequence[str]) -> dict[str, list[TaskState]]:
        self._enter("find_tasks")
        found: dict[str, list[TaskState]] = {}
        for state in self.task_states(project_id):
            if state.key in keys:
                found.setdefault(str(state.key), []).append(state)
        return found

    def change_data(self, task_id: int, data: Mapping[str, Any]) -> None:
        self._enter("change_data")
        if task_id in self.tasks:
            project, task = self.tasks[task_id]
            update = {"data": dict(data), "updated_at": self._now()}
            self.tasks[task_id] = (project, task.model_copy(update=update))
        self._leave("change_data")

    def delete_task(self, task_id: int) -> None:
        self.tasks.pop(task_id, None)

    def changes(self, project_id: int, since: datetime | None) -> Changes:
        self._enter("changes")
        there = self._of(project_id)
        if since is None:
            answered = tuple(t for t in there if any(not a.cancelled for a in t.annotations))
            return Changes(tasks=answered, newest=max((t.updated_at for t in there), default=None))
        tasks = tuple(t for t in there if t.updated_at > since)
        return Changes(tasks=tasks, newest=max((t.updated_at for t in tasks), default=None))

    def read_tasks(self, project_id: int, task_ids: Sequence[int]) -> list[StudioTask]:
        self._enter("read_tasks")
        return [t for t in self._of(project_id) if t.id in task_ids]

    def task_states(self, project_id: int) -> Iterator[TaskState]:
        for task in self._of(project_id):
            cancelled = sum(a.cancelled for a in task.annotations)
            yield TaskState(id=task.id, key=task.key, answers=len(task.annotations) - cancelled, cancelled=cancelled)

    def counts(self, project_id: int) -> Counts:
        self._enter("counts")
        tasks = self._of(project_id)
        answers = sum(not a.cancelled for t in tasks for a in t.annotations)
        return Counts(tasks=len(tasks), answers=answers, created_at=self.store[project_id].created_at)

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _of(self, project_id: int) -> list[StudioTask]:
        return sorted((t for p, t in self.tasks.values() if p == project_id), key=lambda t: t.id)
