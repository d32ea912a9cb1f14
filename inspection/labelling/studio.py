"""Label Studio over HTTP, through label-studio-sdk: authentication, both token kinds, retries, errors in words.

Invariants: nothing of the SDK, httpx or JSON leaves this file except as our own records and errors; reads are repeated on
a broken connection, writes are not; pages are read by task id, so that no task is skipped when others come or go.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from inspection.errors import LabelError, ServerError, UsageError
from inspection.labelling.port import (
    KEY_FIELD,
    Changes,
    Counts,
    LabelStudio,
    NewTask,
    StudioAnnotation,
    StudioProject,
    StudioTab,
    StudioTask,
    TaskState,
)
from inspection.labelling.wire import CountsPage, Imported, Page, Project, ProjectPage, Row, Task, TaskPage, User

__all__ = ["LabelStudio", "SdkStudio", "connect"]

_T = TypeVar("_T")
_PAGE = 500
_CREATE_AT_ONCE = 500
_FIND_AT_ONCE = 100  # keys of 70 characters each: the query stays below the 64 KiB a request line may have
_READS = 2
_PROJECT_FIELDS = "id,title,description,label_config,created_at"


def connect(url: str, token: str, *, timeout_seconds: float = 60.0, connect_seconds: float = 5.0) -> LabelStudio:
    """Connect as the owner of ``token``: a legacy token, or a personal access token (refreshed as needed).

    Raises ServerError when nobody answers at ``url``, UsageError when the token is not accepted.
    """
    # Not at the top: the SDK loads pandas, a second that only those who talk to the server should pay.
    from label_studio_sdk.base_client import LabelStudioBase as Client
    from label_studio_sdk.core.api_error import ApiError

    if not token.isascii() or not token.strip():
        raise UsageError("label_studio_token: the token is empty or has characters no token has")
    # trust_env off: proxies and certificates of the surrounding shell are none of this connection's business.
    http = httpx.Client(timeout=httpx.Timeout(timeout_seconds, connect=connect_seconds), trust_env=False)
    try:
        try:
            client = Client(base_url=url.rstrip("/") + "/", api_key=token, httpx_client=http, max_retries=_READS)
        except ApiError as error:
            raise _token_refused(url, error.body) from error
        studio = SdkStudio(url, client, http)
        studio.whoami()
        return studio
    except BaseException:
        http.close()
        raise


class SdkStudio:
    """The port on a real Label Studio. Use `connect`."""

    def __init__(self, url: str, client: Any, http: httpx.Client) -> None:
        self._url = url
        self._http = http
        # The SDK's own request method (authentication, token refresh, retries), without its parsing of answers: that
        # takes as long again as the request, and guesses among several types of task.
        self._send = client._client_wrapper.httpx_client.request
        self._emails: dict[int, str] = {}

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def whoami(self) -> str:
        """E-mail address of the token's owner."""
        return self._get("api/current-user/whoami", User).email

    # projects and tabs

    def projects(self) -> list[StudioProject]:
        """All projects this user sees."""
        found: list[StudioProject] = []
        page = 1
        while True:
            query = {"page": page, "page_size": 100, "include": _PROJECT_FIELDS, "filter": "all"}
            answer = self._get("api/projects/", ProjectPage, query)
            found += [p.record() for p in answer.results]
            if len(found) >= answer.count or not answer.results:
                return found
            page += 1

    def project(self, project_id: int) -> StudioProject:
        """One project."""
        return self._one_project(project_id, _PROJECT_FIELDS, ProjectPage).record()

    def create_project(self, title: str, description: str, config: str, settings: Mapping[str, Any]) -> StudioProject:
        """Make a project."""
        body = {"title": title, "description": description, "label_config": config, **settings}
        return self._write("POST", "api/projects/", Project, body).record()

    def change_project(self, project_id: int, **fields: Any) -> StudioProject:
        """Change fields of a project."""
        return self._write("PATCH", f"api/projects/{project_id}/", Project, fields).record()

    def delete_project(self, project_id: int) -> None:
        """Delete a project with everything in it."""
        self._request("DELETE", f"api/projects/{project_id}/")

    def tabs(self, project_id: int) -> list[StudioTab]:
        """The project's tabs, left to right."""
        return self._get("api/dm/views/", list[StudioTab], {"project": project_id})

    def save_tab(self, project_id: int, data: Mapping[str, Any], tab_id: int | None = None) -> StudioTab:
        """Change a tab, or add one at the right end."""
        method, path = ("POST", "api/dm/views/") if tab_id is None else ("PATCH", f"api/dm/views/{tab_id}/")
        return self._write(method, path, StudioTab, {"project": project_id, "data": dict(data)})

    # tasks

    def create_tasks(self, project_id: int, tasks: Sequence[NewTask]) -> list[int]:
        """Create tasks; their ids in the same order."""
        ids: list[int] = []
        for part in _parts(tasks, _CREATE_AT_ONCE):
            body = [{"data": t.data, "predictions": [t.prediction] if t.prediction else []} for t in part]
            path = f"api/projects/{project_id}/import?return_task_ids=true"
            made = self._write("POST", path, Imported, body).task_ids
            if len(made) != len(part):
                raise ServerError(f"Label Studio at {self._url} made {len(made)} tasks of {len(part)}: run this again")
            ids += made
        return ids

    def find_tasks(self, project_id: int, keys: Sequence[str]) -> dict[str, list[TaskState]]:
        """The tasks with these keys, oldest first."""
        found: dict[str, list[TaskState]] = {}
        for part in _parts(keys, _FIND_AT_ONCE):
            wanted = _filter(f"data.{KEY_FIELD}", "in_list", "String", list(part))
            for page in self._pages(project_id, [wanted], full=False):
                for task in page.tasks:
                    found.setdefault(str(task.data.get(KEY_FIELD)), []).append(task.state())
        return found

    def change_data(self, task_id: int, data: Mapping[str, Any]) -> None:
        """Replace a task's data; nothing happens when the task is gone already."""
        self._request("PATCH", f"api/tasks/{task_id}/", body={"data": dict(data)}, missing_ok=True)

    def delete_task(self, task_id: int) -> None:
        """Delete one task; nothing happens when it is gone already."""
        self._request("DELETE", f"api/tasks/{task_id}/", missing_ok=True)

    def changes(self, project_id: int, since: datetime | None) -> Changes:
        """All tasks whose server stamp is later than ``since``; without one, all that hold an answer."""
        if since is None:
            newest = self._newest(project_id)
            answered = self._pages(project_id, [_filter("total_annotations", "greater", "Number", 0)], full=True)
            return Changes(tasks=tuple(self._task(t) for page in answered for t in page.tasks), newest=newest)
        tasks: list[StudioTask] = []
        newest = None
        for number, page in enumerate(self._pages(project_id, [_after(since)], full=True)):
            tasks += [self._task(t) for t in page.tasks]
            if number == 0 and page.tasks:
                # One page was read at one moment; of several, all that was stamped before the first was read.
                single = page.total <= len(page.tasks)
                newest = max(t.updated_at for t in page.tasks) if single else self._newest(project_id)
        return Changes(tasks=tuple(tasks), newest=newest)

    def read_tasks(self, project_id: int, task_ids: Sequence[int]) -> list[StudioTask]:
        """These tasks; those that are gone are absent."""
        return [
            self._task(task)
            for part in _parts(task_ids, _PAGE)
            for page in self._pages(project_id, [_filter("id", "in_list", "Number", list(part))], full=True)
            for task in page.tasks
        ]

    def task_states(self, project_id: int) -> Iterator[TaskState]:
        """Every task of the project, by id."""
        for page in self._pages(project_id, [], full=False):
            yield from (task.state() for task in page.tasks)

    def counts(self, project_id: int) -> Counts:
        """Tasks and answers of the whole project."""
        fields = "id,created_at,task_number,total_annotations_number"
        row = self._one_project(project_id, fields, CountsPage)
        return Counts(tasks=row.task_number, answers=row.total_annotations_number, created_at=row.created_at)

    def _one_project(self, project_id: int, fields: str, kind: type[Page[Row]]) -> Row:
        """One row of the list of projects: with `fields` it costs a sixth of the project's own address at 100,000 tasks."""
        rows = self._get("api/projects/", kind, {"ids": str(project_id), "include": fields, "filter": "all"}).results
        for row in rows:
            if row.id == project_id:
                return row
        raise UsageError(f"Label Studio at {self._url} has no project {project_id}: was it deleted?")

    def _newest(self, project_id: int) -> datetime | None:
        query = {"project": project_id, "page": 1, "page_size": 1, "query": _query([], "-tasks:updated_at")}
        tasks = self._get("api/tasks/", TaskPage, query).tasks
        return tasks[0].updated_at if tasks else None

    def _pages(self, project_id: int, items: list[dict[str, Any]], *, full: bool) -> Iterator[TaskPage]:
        """Pages in the order of ids, each asked for by "id greater than the last one" instead of by page number."""
        last: int | None = None
        while True:
            after = [] if last is None else [_filter("id", "greater", "Number", last)]
            query = {"project": project_id, "page": 1, "page_size": _PAGE, "query": _query(items + after, "tasks:id")}
            page = self._get("api/tasks/", TaskPage, query | ({"fields": "all"} if full else {}))
            if not page.tasks and page.total:
                raise ServerError(f"Label Studio at {self._url} says {page.total} tasks and sends none: run this again")
            yield page
            if page.total <= len(page.tasks):
                return
            last = page.tasks[-1].id

    def _task(self, task: Task) -> StudioTask:
        annotations = tuple(
            StudioAnnotation(
                id=a.id,
                result=a.result,
                cancelled=a.was_cancelled,
                annotator=self._email(a.completed_by),
                created_at=a.created_at,
                updated_at=a.updated_at,
            )
            for a in task.annotations
        )
        return StudioTask(id=task.id, data=task.data, updated_at=task.updated_at, annotations=annotations)

    def _email(self, user: int | None) -> str:
        """The annotator's e-mail address, or the id when that user is gone."""
        if user is None:
            return "unknown"
        if user not in self._emails:
            self._emails |= {u.id: u.email for u in self._get("api/users/", list[User])}
        return self._emails.setdefault(user, f"user {user}")

    # requests

    def _get(self, path: str, kind: type[_T], query: Mapping[str, Any] | None = None) -> _T:
        return self._read(path, kind, self._request("GET", path, query=query))

    def _write(self, method: str, path: str, kind: type[_T], body: Any) -> _T:
        return self._read(path, kind, self._request(method, path, body=body))

    def _read(self, path: str, kind: type[_T], response: httpx.Response) -> _T:
        try:
            return TypeAdapter(kind).validate_json(response.content)
        except ValidationError as error:
            raise ServerError(
                f"Label Studio at {self._url} answers {path} with something else than expected "
                f"({error.errors()[0]['msg']}): is that address Label Studio, and version 1.23?"
            ) from error

    def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        missing_ok: bool = False,
    ) -> httpx.Response:
        options = {"max_retries": _READS if method == "GET" else 0}
        with self._own_errors(path):
            response: httpx.Response = self._send(
                path, method=method, params=dict(query or {}), json=body, request_options=options
            )
        if response.is_success or (missing_ok and response.status_code == httpx.codes.NOT_FOUND):
            return response
        raise self._refusal(path, response)

    @contextmanager
    def _own_errors(self, path: str) -> Iterator[None]:
        from label_studio_sdk.core.api_error import ApiError

        try:
            yield
        except ApiError as error:  # the SDK raises it when a personal access token cannot be exchanged
            raise _token_refused(self._url, error.body) from error
        except (httpx.HTTPError, json.JSONDecodeError) as error:
            raise ServerError(
                f"Label Studio at {self._url} does not answer {path.partition('?')[0]} ({type(error).__name__}: {error}): "
                "is it running, is label_studio_url right?"
            ) from error

    def _refusal(self, path: str, response: httpx.Response) -> Exception:
        status, said = response.status_code, response.text[:500]
        if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            return _token_refused(self._url, said)
        if status == httpx.codes.NOT_FOUND:
            return UsageError(f"Label Studio at {self._url} has no {path.partition('?')[0]}: was it deleted? ({said})")
        if status == httpx.codes.BAD_REQUEST:
            return LabelError(f"Label Studio at {self._url} refuses {path.partition('?')[0]}: {said}")
        return ServerError(f"Label Studio at {self._url} answers {path.partition('?')[0]} with status {status}: {said}")


def _token_refused(url: str, said: Any) -> UsageError:
    return UsageError(
        f"Label Studio at {url} does not accept the token: check label_studio_token (or, for a legacy token, that "
        f"Organization > Access token settings allow legacy tokens). It says: {said}"
    )


def _filter(column: str, operator: str, kind: str, value: Any) -> dict[str, Any]:
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


def _query(items: list[dict[str, Any]], order: str) -> str:
    filters = {"filters": {"conjunction": "and", "items": items}} if items else {}
    return json.dumps({**filters, "ordering": [order]})


def _after(when: datetime) -> dict[str, Any]:
    return _filter("updated_at", "greater", "Datetime", when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))


def _parts(items: Sequence[_T], size: int) -> Iterable[Sequence[_T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
