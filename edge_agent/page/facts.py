"""What the page may ask the agent: a set of questions, handed in by whoever puts the agent together.

Invariants: asking changes nothing; each question may be asked from a thread beside the loop; the page knows the agent
through these alone, so a test can answer them by hand.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.inspecting import Active, Identity
from edge_agent.ledger import LedgerLine
from edge_agent.shelf import Installed
from inspection.contracts import AgentState, Ledger

Health = Mapping[str, object]
"""Of a camera or a connection: ``ok`` (True, False, or None: not known), and words in ``text``, ``last_fault`` or
``problem``."""


@dataclass(frozen=True)
class Facts:
    """The questions. ``hub_contact`` answers with `time.monotonic` of the last time the hub answered, or None; ``failures``
    with what background work says of itself; ``counters`` and ``ledger`` count over all restarts."""

    who: Identity
    state_folder: Path
    counters: Callable[[], Mapping[str, int]]
    ledger: Callable[[], Ledger]
    ledger_line: Callable[[], LedgerLine]
    camera: Callable[[], Health]
    active: Callable[[], Active]
    state: Callable[[], AgentState]
    installed: Callable[[], Installed]
    problem: Callable[[], str | None]
    pictures_waiting: Callable[[], int]
    free_disk_bytes: Callable[[], int]
    failures: Callable[[], Sequence[str]]
    connections: Callable[[], Mapping[str, Health]]
    hub_contact: Callable[[], float | None]
    hub: str
    hub_every_seconds: float
    trigger: str
    takt_seconds: float | None = None
