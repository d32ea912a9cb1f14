"""What Label Studio 1.23 answers with, as far as we read it. A field that is missing or of another type is an error."""

from typing import Any, Generic, TypeVar

from pydantic import AwareDatetime, BaseModel

from inspection.labelling.port import KEY_FIELD, StudioProject, TaskState


class User(BaseModel):
    id: int
    email: str


class Project(BaseModel):
    id: int
    title: str
    description: str | None = ""
    label_config: str | None = ""
    created_at: AwareDatetime

    def record(self) -> StudioProject:
        return StudioProject(
            id=self.id,
            title=self.title,
            description=self.description or "",
            config=self.label_config or "",
            created_at=self.created_at,
        )


class Imported(BaseModel):
    task_ids: list[int]


class ProjectCounts(BaseModel):
    id: int
    created_at: AwareDatetime
    task_number: int
    total_annotations_number: int


Row = TypeVar("Row", Project, ProjectCounts)


class Page(BaseModel, Generic[Row]):
    count: int
    results: list[Row]


ProjectPage = Page[Project]
CountsPage = Page[ProjectCounts]


class Annotation(BaseModel):
    id: int
    result: list[dict[str, Any]]
    was_cancelled: bool
    completed_by: int | None
    created_at: AwareDatetime
    updated_at: AwareDatetime


class Task(BaseModel):
    id: int
    data: dict[str, Any]
    updated_at: AwareDatetime
    total_annotations: int
    cancelled_annotations: int
    annotations: list[Annotation] = []

    def state(self) -> TaskState:
        key = self.data.get(KEY_FIELD)
        return TaskState(
            id=self.id,
            key=key if isinstance(key, str) else None,
            answers=self.total_annotations,
            cancelled=self.cancelled_annotations,
        )


class TaskPage(BaseModel):
    tasks: list[Task]
    total: int
