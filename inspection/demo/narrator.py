"""What the retrain at work is doing, in its own words, for the person who waits."""

from collections.abc import Iterable
from typing import Protocol

from rich.console import Console
from rich.status import Status

from inspection.demo.flow_runs import FlowRun

_EPOCH = "epoch "
_IDLE = ("NotDue", "Skipped")  # runs that had nothing to do


class Saying(Protocol):
    """Who knows what a run logged: `FlowRuns`."""

    def said(self, run_id: str, after: int = 0) -> list[str]:
        """Its lines, oldest first, without the first ``after``."""


class Narrator:
    """Prints each new line that a working retrain logs; its epochs only pass by on a terminal's status line."""

    def __init__(self, flows: Saying, console: Console) -> None:
        self._flows, self._console = flows, console
        self._heard: dict[str, int] = {}

    def tell(self, runs: Iterable[FlowRun], status: Status) -> None:
        """What these runs said since the last call."""
        for run in runs:
            if run.state_name in _IDLE:
                continue
            words = self._flows.said(run.id, self._heard.get(run.id, 0))
            self._heard[run.id] = self._heard.get(run.id, 0) + len(words)
            for line in words:
                self._say(line, status)

    def _say(self, line: str, status: Status) -> None:
        if line.startswith(_EPOCH):
            status.update(line)
        else:
            self._console.print(f"    {line}", style="dim", highlight=False)
