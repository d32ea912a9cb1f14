"""Keeps the journal within its bounds and some room on the disk, in small steps beside the loop.

Invariants: no step holds the journal longer than a few milliseconds; whatever is full, verdict rows outlive pictures: the
ballast goes first, then pictures; the ballast comes back when there is room again.
"""

from edge_agent.ballast import Ballast
from edge_agent.database import Database
from edge_agent.errors import DeviceError
from edge_agent.journal import Journal
from edge_agent.outbox import Outbox
from edge_agent.supervise import Worker

_EVERY_SECONDS = 5.0
_BREATH_SECONDS = 0.02
_CHECKPOINT_SECONDS = 1.0
_SHED_BYTES = 8 * 1024 * 1024


class Housekeeper:
    """Two threads: bounds and room; and the journal's write-ahead log."""

    def __init__(
        self, database: Database, journal: Journal, outbox: Outbox, ballast: Ballast, *, min_free_bytes: int
    ) -> None:
        self._database = database
        self._journal = journal
        self._outbox = outbox
        self._ballast = ballast
        self._min_free = min_free_bytes
        self.worker = Worker("housekeeper", self._step)
        self.checkpointer = Worker("checkpoint", self._checkpoint)
        database.relief = self.relieve

    def relieve(self) -> bool:
        """The disk is full and the journal must go on: give up the ballast, then pictures. False when nothing is left."""
        try:
            return self._ballast.release() or self._outbox.shed(_SHED_BYTES)
        except (DeviceError, OSError):  # so full, or read-only, that nothing can be deleted, or written down as gone
            return False

    def _step(self) -> float:
        if self._ballast.missing:
            self._outbox.make_disk_room(self._ballast.length)
        if self._ballast.restore(self._min_free):
            self.worker.note(None)
        else:
            self.worker.note("the disk is nearly full: the journal's ballast could not be put back; make room")
        return _BREATH_SECONDS if self._journal.trim() else _EVERY_SECONDS

    def _checkpoint(self) -> float:
        self._database.checkpoint()
        self.checkpointer.note(None)
        return _CHECKPOINT_SECONDS
