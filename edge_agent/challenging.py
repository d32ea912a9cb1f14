"""The challenger: a bundle that judges the same frames without answering anybody, inside the takt budget.

Invariants: the line was told before a challenger sees the frame; a row that waits for it is open, and is sealed with or
without its view; it never queues: a frame that would not be done inside the takt, or comes while the last one is still
looked at, is skipped and counted; a picture is handed on before anything is counted. Where both would tell the line
different things the picture is kept as `disagree`, unless it is kept for more than being near a threshold.
"""

import logging
import queue
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.database import Database, count
from edge_agent.errors import DeviceError, MisfitError, ModelError, ShortageError
from edge_agent.inspecting import Loaded, infer_and_judge
from edge_agent.journal import Journal
from edge_agent.keeper import Keeper
from edge_agent.pictures import Image
from edge_agent.supervise import Worker
from inspection.contracts import ChallengerView, Decision, Purpose, Verdict

log = logging.getLogger(__name__)

_SMOOTHING = 0.2  # weight of the newest inference in the estimate of the next
_FORGETTING = 0.99  # per frame skipped as too slow: what was slow once is tried again some day

_LESS_THAN_DISAGREE = (None, "near_threshold")  # an audit stays one: its pictures are a random sample


@dataclass(frozen=True)
class _Job:
    verdict: Verdict
    image: Image
    why: str | None
    loaded: Loaded
    wait: bool


class Challenging:
    """One thread that asks the challenger about a frame that has been answered."""

    def __init__(
        self,
        database: Database,
        journal: Journal,
        keeper: Keeper,
        *,
        takt_seconds: float | None,
        note_view: Callable[[str], None],
    ) -> None:
        """``note_view`` is told the challenger's digest after each view."""
        self._database = database
        self._journal = journal
        self._keeper = keeper
        self._takt = takt_seconds
        self._note_view = note_view
        self._queue: queue.Queue[_Job] = queue.Queue(1)
        self._expected: tuple[str, float] = ("", 0.0)  # of the challenger with this digest, seconds
        self._skipped = 0  # written by the loop alone
        self._counted = 0  # how many of them are in the journal
        self.worker = Worker("challenger", self._step)

    def choose(self, verdict: Verdict, challenger: Loaded | None, spent_seconds: float) -> Loaded | None:
        """The challenger that shall look at this frame, or None. Without a takt only the queue decides.

        A verdict that no bundle made (collect mode) is nothing to compare with, nor is one on a known part: it would be
        asked about as a part of the line, and counted as one.
        """
        if verdict.purpose is Purpose.CHALLENGE:
            return None
        if challenger is None or verdict.bundle_digest is None or verdict.decision is Decision.ERROR:
            return None
        digest, expected = challenger.digest, self._expected_of(challenger.digest)
        late = self._takt is not None and spent_seconds + expected > self._takt
        if late:
            self._expected = (digest, expected * _FORGETTING)
        if late or self._queue.unfinished_tasks:
            self._skipped += 1
            return None
        return challenger

    def _expected_of(self, digest: str) -> float:
        """Seconds its next look is expected to take; 0 for one that has not looked yet."""
        known, seconds = self._expected
        return seconds if known == digest else 0.0

    def offer(self, verdict: Verdict, image: Image, why: str | None, loaded: Loaded, *, wait: bool) -> None:
        """Hand over a frame that `choose` chose for. Its row must be open. ``wait``: as in `Keeper.offer`."""
        self._queue.put(_Job(verdict, image, why, loaded, wait))

    def stop(self) -> None:
        """Finish what was handed over, then end the thread."""
        self._queue.join()
        self.worker.stop()
        try:
            self._count_skipped()
        except DeviceError as error:
            log.warning("skipped frames were not counted", extra={"reason": str(error)})

    def _step(self) -> float:
        try:
            job = self._queue.get(timeout=0.1)
        except queue.Empty:
            return 0.0
        try:
            self._look(job)
            self._count_skipped()
        finally:
            self._queue.task_done()
        return 0.0

    def _look(self, job: _Job) -> None:
        try:
            judgement, stages = infer_and_judge(job.image, job.loaded)
        except (ModelError, MisfitError, ShortageError) as error:
            log.warning("challenger failed", extra={"bundle": job.loaded.digest, "reason": str(error)})
            self.worker.note(f"challenger {job.loaded.digest[:12]} failed: {error}")
            self._hand_on(job.verdict, job, job.why, "challenger_failed")
            return
        self.worker.note(None)
        before = self._expected_of(job.loaded.digest)
        self._expected = (job.loaded.digest, before + _SMOOTHING * (stages["infer"] / 1e3 - before))
        view = ChallengerView(
            bundle_digest=job.loaded.digest,
            decision=judgement.outcome.decision,
            defect_class=judgement.outcome.defect_class,
            scores=judgement.scores,
            infer_ms=round(stages["infer"], 3),
        )
        agrees = (view.decision is Decision.OK) is (job.verdict.decision is Decision.OK)
        why = job.why if agrees or job.why not in _LESS_THAN_DISAGREE else "disagree"
        verdict = job.verdict.model_copy(update={"challenger": view})
        self._hand_on(verdict, job, why, "challenger_agreed" if agrees else "challenger_disagreed")
        self._note_view(job.loaded.digest)

    def _hand_on(self, verdict: Verdict, job: _Job, why: str | None, counter: str) -> None:
        if why is None:
            self._journal.seal(verdict)
        else:
            self._keeper.offer(verdict, job.image, why, wait=job.wait)
        self._database.commit(lambda db: count(db, counter))

    def _count_skipped(self) -> None:
        skipped = self._skipped - self._counted
        if skipped:
            self._database.commit(lambda db: count(db, "challenger_skipped", skipped))
            self._counted += skipped
