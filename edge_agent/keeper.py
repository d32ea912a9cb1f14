"""Keeps chosen pictures, off the verdict path: encode, digest, store, then seal the verdict.

Invariants: every verdict handed over is sealed, with its picture or, when that could not be kept, without it; a live
camera is never held up (a full queue drops the picture, counted), a patient one waits (nothing is lost). A row that stays
open although nobody holds it (an error after `record`) is sealed after a minute or two, without waiting for a restart.
"""

import logging
import queue
import sqlite3
import threading
import time

from edge_agent.database import Database, count
from edge_agent.errors import DeviceError
from edge_agent.journal import Journal
from edge_agent.outbox import Outbox
from edge_agent.pictures import Image, encode_png
from edge_agent.supervise import Worker
from inspection.contracts import Verdict

log = logging.getLogger(__name__)

_STRAY_SECONDS = 60.0


class Keeper:
    """One thread that turns (verdict, frame, why) into a stored picture and a sealed row."""

    def __init__(
        self,
        database: Database,
        journal: Journal,
        outbox: Outbox,
        *,
        queue_frames: int,
        stray_seconds: float = _STRAY_SECONDS,
    ) -> None:
        self._database = database
        self._journal = journal
        self._outbox = outbox
        self._queue: queue.Queue[tuple[Verdict, Image, str]] = queue.Queue(queue_frames)
        self._stray_seconds = stray_seconds
        self._looked_at = time.monotonic()
        self._seen_open: set[str] = set()
        self._held: set[str] = set()
        self._holding = threading.Lock()
        self.worker = Worker("keeper", self._step)

    def offer(self, verdict: Verdict, image: Image, why: str, *, wait: bool) -> None:
        """Hand over a picture. With ``wait`` a full queue holds the caller up, else the picture is dropped."""
        with self._holding:
            self._held.add(verdict.id)
        try:
            self._queue.put((verdict, image, why), block=wait)
        except queue.Full:
            self._let_go(verdict)
            self._give_up(verdict, "more pictures are chosen than this device can encode")

    def stop(self) -> None:
        """Finish what is queued, then end the thread."""
        self._queue.join()
        self.worker.stop()

    def seal_strays(self) -> int:
        """Seal rows that were open at the last call too, and that nobody holds. Returns how many."""
        with self._holding:
            strays = self._journal.open_ids() - self._held
        sealed = self._journal.seal_open(strays & self._seen_open)
        self._seen_open = strays
        if sealed:
            log.warning("rows were left open", extra={"sealed": sealed})
        return sealed

    def _step(self) -> float:
        if time.monotonic() - self._looked_at > self._stray_seconds:
            self._looked_at = time.monotonic()
            self.seal_strays()
        try:
            verdict, image, why = self._queue.get(timeout=0.1)
        except queue.Empty:
            return 0.0
        try:
            self._keep(verdict, image, why)
        finally:
            self._let_go(verdict)
            self._queue.task_done()
        return 0.0

    def _let_go(self, verdict: Verdict) -> None:
        with self._holding:
            self._held.discard(verdict.id)

    def _keep(self, verdict: Verdict, image: Image, why: str) -> None:
        try:
            digest = self._outbox.put(verdict.id, encode_png(image), why)
        except (DeviceError, OSError) as error:
            self._give_up(verdict, str(error))
            return
        self._journal.seal(verdict.model_copy(update={"frame_sha256": digest}))
        self.worker.note(None)

    def _give_up(self, verdict: Verdict, reason: str) -> None:
        """The verdict goes on without its picture; if even sealing fails, it is a stray."""
        log.warning("picture not kept", extra={"part": verdict.part, "reason": reason})
        self.worker.note(f"picture of {verdict.part} was not kept: {reason}")
        self._database.commit(_count_dropped)
        self._journal.seal(verdict)


def _count_dropped(db: sqlite3.Connection) -> None:
    count(db, "pictures_dropped")
