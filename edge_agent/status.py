"""What the state folder says of an agent: for `status`, and for people who must know without stopping it."""

from pathlib import Path

from edge_agent.config import AgentConfig
from edge_agent.database import DATABASE_NAME, looking_into
from edge_agent.journal import Journal
from edge_agent.outbox import Outbox
from edge_agent.shelf import Shelf


def status(state: Path, config: AgentConfig) -> dict[str, object]:
    """Assignment, bundle, ledger, what waits. Reads only; the agent may be running. UsageError before its first start."""
    limits = config.limits
    with looking_into(state / DATABASE_NAME) as database:
        installed = Shelf(state).installed()
        journal = Journal(database, max_pending=limits.outbox_max_verdicts, keep_rows=limits.journal_keep_rows)
        outbox = Outbox(database, state / "outbox", max_bytes=limits.outbox_max_bytes, min_free_bytes=0)
        ledger = journal.ledger()
        return {
            "device": config.enrolment.device,
            "station": config.enrolment.station,
            "serial": installed.seen_serial,
            "bundle": installed.current.bundle if installed.current else None,
            "recipe": installed.current.recipe if installed.current else None,
            "challenger": installed.current.challenger if installed.current else None,
            "probation": installed.probation,
            "refused": installed.refused,
            "ledger": ledger.model_dump(),
            "ledger_closes": ledger.closes,
            "verdicts_by_digest": journal.verdicts_by_digest(),
            "pictures_waiting": outbox.depth(),
            "free_disk_bytes": outbox.free_disk_bytes(),
            "counters": journal.counters(),
        }
