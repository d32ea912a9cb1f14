"""Who waits for a retrain hears what it does, each line once, without the noise."""

import io
from datetime import UTC, datetime

from rich.console import Console

from inspection.demo.flow_runs import FlowRun
from inspection.demo.narrator import Narrator


class Logs:
    """What runs have logged so far."""

    def __init__(self, **said: list[str]) -> None:
        self.lines = said

    def said(self, run_id: str, after: int = 0) -> list[str]:
        """As `FlowRuns.said`."""
        return self.lines[run_id][after:]


def run(name: str, state: str) -> FlowRun:
    return FlowRun(name, name, state.upper(), state, "", datetime(2026, 1, 1, tzinfo=UTC))


def test_each_line_is_told_once_and_epochs_only_pass_by() -> None:
    """A second look tells what is new; runs that had nothing to do are not worth a line."""
    out = io.StringIO()
    console, logs = Console(file=out, width=80), Logs(a=["training resnet18", "epoch 1: loss 0.5"], b=["nothing to do"])
    narrator = Narrator(logs, console)
    with console.status("") as status:
        narrator.tell([run("a", "Running"), run("b", "NotDue")], status)
        logs.lines["a"] += ["epoch 2: loss 0.4", "PASS"]
        narrator.tell([run("a", "Running"), run("b", "NotDue")], status)
        assert status.status == "epoch 2: loss 0.4"
    told = [line.strip() for line in out.getvalue().splitlines() if line.strip()]
    assert told == ["training resnet18", "PASS"]
