"""Operators' answers become labels: only what changed since the watermark, checked by counting.

Invariants: a pull is one unit of work: labels, task states and watermark move together or not at all; the watermark is
the server's own stamp, and what lies up to ``overlap_seconds`` before it is read again (labels are idempotent, a late
commit is not lost); after every pull our answers are counted against the server's. No transaction is open while the
server is asked.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from inspection.data.product import Product
from inspection.errors import IntegrityError, ServerError
from inspection.labelling.answers import namespace
from inspection.labelling.merge import Merged, live_count, merge_tasks, retract_tasks
from inspection.labelling.port import Counts, LabelStudio, StudioTask
from inspection.labelling.reconcile import Difference, find_differences
from inspection.store.session import Store, exclusive
from inspection.store.tables import WatermarkRow

_ROUNDS = 5
_PATIENCE = 2


@dataclass(frozen=True)
class PullReport:
    """What a pull did. ``read`` counts tasks, ``skipped`` cancelled annotations among them, ``tasks_gone`` answered tasks
    that were deleted, ``foreign_answers`` answers to tasks somebody else made (not taken). ``checked``: the counts agreed;
    False only when operators kept answering while we counted."""

    read: int
    merged: Merged
    tasks_gone: int
    foreign_answers: int
    reconciled: bool
    checked: bool
    watermark: str | None


class _CountsDifferError(Exception):
    """Our answers are not as many as the server's. Rolls the unit of work back; never leaves this module."""


class _OvertakenError(Exception):
    """Another pull moved the watermark since we read it. Never leaves this module."""


@dataclass(frozen=True)
class _Reading:
    """What the server said: tasks changed since ``since``, then the counts."""

    since: str | None  # the watermark this started from
    tasks: tuple[StudioTask, ...]
    newest: datetime | None
    counts: Counts


@dataclass(frozen=True)
class _Pull:
    store: Store
    studio: LabelStudio
    product: Product
    project_id: int
    overlap: timedelta
    allow_mass_retraction: bool

    @property
    def name(self) -> str:
        return f"label_studio/{self.product.name}"

    def read(self) -> _Reading:
        with self.store.begin(read_only=True) as session:
            since = _value(session, self.name)
        start = datetime.fromisoformat(since) - self.overlap if since else None
        changes = self.studio.changes(self.project_id, start)
        return _Reading(since, changes.tasks, changes.newest, self.studio.counts(self.project_id))

    def write(self, reading: _Reading, difference: Difference | None, *, moving: bool = False) -> PullReport:
        """Merge what was read, compare the counts, move the watermark: all, or by an exception nothing."""
        space = namespace(reading.counts.created_at)
        with self.store.begin() as session:
            exclusive(session, self.name)
            if _value(session, self.name) != reading.since:
                raise _OvertakenError
            gone = retract_tasks(session, self.product, space, difference.gone) if difference else 0
            late = difference.tasks if difference else ()
            seen = {task.id: task for task in (*reading.tasks, *late)}  # what was read last counts
            merged = merge_tasks(session, self.product, space, list(seen.values()))
            foreign = difference.foreign if difference else int(_value(session, self.name + "/foreign") or 0)
            agree = live_count(session, self.product, space) + foreign == reading.counts.answers
            if not agree and not moving:
                raise _CountsDifferError
            _save(session, self.name + "/foreign", str(foreign))
            watermark = _later(reading.since, reading.newest)
            _save(session, self.name, watermark)
        return PullReport(len(seen), merged, gone, foreign, difference is not None, agree, watermark)

    def reconcile(self) -> PullReport:
        """Compare every task, then merge; raises IntegrityError when the counts differ although the server stood still."""
        before = self.studio.counts(self.project_id)
        difference = find_differences(
            self.store, self.studio, self.product, self.project_id, allow_mass_retraction=self.allow_mass_retraction
        )
        reading = self.read()
        try:
            return self.write(reading, difference, moving=reading.counts != before)
        except _CountsDifferError as error:
            raise IntegrityError(
                f"the answers of {self.product.name} do not add up: Label Studio's project {self.project_id} says "
                f"{reading.counts.answers}, of which {difference.foreign} belong to tasks made by others, and every task "
                "was compared. Nothing was taken over; look at the project's tasks, and report this"
            ) from error


def pull_labels(
    store: Store,
    studio: LabelStudio,
    product: Product,
    project_id: int,
    *,
    overlap_seconds: float = 120.0,
    allow_mass_retraction: bool = False,
) -> PullReport:
    """Take over what operators answered, corrected, cancelled or deleted since the last pull.

    Raises LabelError on an answer with a class nobody knows, ServerError when Label Studio fails, IntegrityError when
    the counts do not add up, or when most answers are gone at once (``allow_mass_retraction`` lets that happen). After
    an error nothing was written and the watermark is where it was.
    """
    pull = _Pull(store, studio, product, project_id, timedelta(seconds=overlap_seconds), allow_mass_retraction)
    differed = 0
    for _ in range(_ROUNDS):
        try:
            # Once more before comparing everything: an operator may have answered between listing and counting.
            return pull.write(pull.read(), None) if differed < _PATIENCE else pull.reconcile()
        except _CountsDifferError:
            differed += 1
        except _OvertakenError:
            continue
    raise ServerError(f"other pulls of {product.name} keep overtaking this one: run one at a time")


def _value(session: Session, name: str) -> str | None:
    row = session.get(WatermarkRow, name)
    return row.value if row else None


def _save(session: Session, name: str, value: str | None) -> None:
    if value is not None and _value(session, name) != value:
        session.merge(WatermarkRow(name=name, value=value))


def _later(since: str | None, newest: datetime | None) -> str | None:
    """The later of two stamps, as text with microseconds."""
    if newest is None or (since is not None and datetime.fromisoformat(since) >= newest):
        return since
    return newest.isoformat(timespec="microseconds")
