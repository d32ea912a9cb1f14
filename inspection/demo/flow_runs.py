"""Starting and following flow runs through Prefect's HTTP API, as a script of the user's would (no Prefect import)."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import httpx
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from inspection.errors import ServerError

_INFO = 20  # Python's logging level
_PREFECTS_OWN = ("Finished in state", "Created ", "Beginning ")
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass(frozen=True)
class FlowRun:
    """One run of a flow: id, readable name, state's type (COMPLETED, ...), name (Shipped, ...) and message, start."""

    id: str
    name: str
    state_type: str
    state_name: str
    message: str
    started_at: datetime

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """From Prefect's answer."""
        state = body.get("state") or {}
        return cls(
            str(body["id"]),
            str(body["name"]),
            str(state.get("type", "")),
            str(state.get("name", "")),
            str(state.get("message") or ""),
            datetime.fromisoformat(str(body.get("start_time") or body["created"])),
        )

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.state_type in FINAL


class FlowRuns:
    """A small client of the part of Prefect's API that the demo needs."""

    def __init__(self, prefect_url: str) -> None:
        self._http = httpx.Client(base_url=f"{prefect_url}/api", timeout=30.0, trust_env=False)

    @retry(retry=retry_if_exception_type(ServerError), stop=stop_after_delay(120), wait=wait_fixed(1), reraise=True)
    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        try:
            answer = self._http.request(method, path, json=body)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise ServerError(f"Prefect at {self._http.base_url} did not answer {method} {path}: {error}") from error
        return answer.json()

    def deployment(self, name: str) -> str:
        """The id of a deployment (``retrain/lid``), waited for up to two minutes: the flows' process registers it."""
        return str(self._ask("GET", f"/deployments/name/{name}")["id"])

    def start(self, deployment: str, **parameters: Any) -> FlowRun:
        """Start a run by hand."""
        path = f"/deployments/{self.deployment(deployment)}/create_flow_run"
        body = {"parameters": parameters, "state": {"type": "SCHEDULED", "message": "started by hand"}}
        return FlowRun.of(self._ask("POST", path, body))

    def look(self, run_id: str) -> FlowRun:
        """How a run stands."""
        return FlowRun.of(self._ask("GET", f"/flow_runs/{run_id}"))

    def wait(self, run_id: str, timeout_seconds: float) -> FlowRun:
        """Until the run has ended. ServerError when it has not after ``timeout_seconds``."""
        deadline = time.monotonic() + timeout_seconds
        while not (run := self.look(run_id)).ended:
            if time.monotonic() > deadline:
                raise ServerError(f"flow run {run.name!r} is still {run.state_name} after {timeout_seconds:.0f} s")
            time.sleep(1.0)
        return run

    def recent(self, deployment: str, limit: int = 20) -> list[FlowRun]:
        """The newest runs of a deployment that have started, newest first."""
        body = {
            "deployments": {"id": {"any_": [self.deployment(deployment)]}},
            "flow_runs": {"state": {"type": {"not_any_": ["SCHEDULED", "PENDING"]}}},
            "sort": "START_TIME_DESC",
            "limit": limit,
        }
        return [FlowRun.of(row) for row in self._ask("POST", "/flow_runs/filter", body)]

    def said(self, run_id: str, after: int = 0, limit: int = 200) -> list[str]:
        """What the tasks of a run logged by themselves, oldest first, without the first ``after`` lines."""
        body = {
            "logs": {"flow_run_id": {"any_": [run_id]}, "level": {"ge_": _INFO}, "task_run_id": {"is_null_": False}},
            "sort": "TIMESTAMP_ASC",
            "limit": limit,
        }
        lines = [str(row["message"]) for row in self._ask("POST", "/logs/filter", body)]
        return [line for line in lines if not line.startswith(_PREFECTS_OWN)][after:]

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
