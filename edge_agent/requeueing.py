"""Taking up again what was set aside, by hand: after the hub was mended, or its limits were raised."""

from pathlib import Path

from edge_agent.agent import only_one
from edge_agent.config import AgentConfig
from edge_agent.database import DATABASE_NAME, Database
from edge_agent.errors import UsageError
from edge_agent.journal import Journal


def requeue(state: Path, config: AgentConfig) -> int:
    """Everything set aside waits again; returns how much. UsageError while an agent runs, or when none ever ran."""
    path, limits = state / DATABASE_NAME, config.limits
    if not path.exists():
        raise UsageError(f"{path} does not exist: no agent has judged anything there yet, so nothing was set aside")
    with only_one(state):
        database = Database(path)
        try:
            journal = Journal(database, max_pending=limits.outbox_max_verdicts, keep_rows=limits.journal_keep_rows)
            return journal.requeue()
        finally:
            database.close()
