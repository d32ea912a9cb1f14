"""Promises of the pull, against a fake server and a real store."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from inspection.contracts import Box
from inspection.data.labels import current_labels
from inspection.data.product import Product
from inspection.errors import IntegrityError, LabelError, ServerError
from inspection.labelling.port import Counts, NewTask, task_key
from inspection.labelling.project import ensure_project
from inspection.labelling.pull import PullReport, pull_labels
from inspection.store.session import Store
from inspection.store.tables import LabelRow, TaskRow, WatermarkRow
from tests.labelling.fake import FakeStudio
from tests.labelling.helpers import add_pictures, box, choice


@dataclass
class Line:
    """One product with pictures and tasks on both sides."""

    store: Store
    studio: FakeStudio
    product: Product
    project: int = 0
    pictures: list[str] = field(default_factory=list)
    tasks: list[int] = field(default_factory=list)

    def add(self, count: int) -> None:
        """More pictures, each with a confirmed task."""
        added = add_pictures(self.store, self.product, count, start=len(self.pictures))
        data = [NewTask(data={"escapement_key": task_key("label", sha)}) for sha in added]
        ids = self.studio.create_tasks(self.project, data)
        with self.store.begin() as session:
            for sha, task in zip(added, ids, strict=True):
                row = TaskRow(
                    product=self.product.name,
                    picture=sha,
                    purpose="label",
                    why="audit",
                    project_id=self.project,
                    label_studio_id=task,
                )
                session.add(row)
        self.pictures += added
        self.tasks += ids

    def pull(self, **options: Any) -> PullReport:
        return pull_labels(self.store, self.studio, self.product, self.project, **options)

    def labels(self) -> dict[int, str | None]:
        """Place of a picture -> its label now."""
        with self.store.begin() as session:
            return {self.pictures.index(p): c.label for p, c in current_labels(session, self.product).items()}

    def rows(self) -> list[str]:
        """Kinds of all label rows."""
        with self.store.begin() as session:
            return list(session.scalars(select(LabelRow.kind).order_by(LabelRow.id)))

    def answered(self) -> list[bool]:
        """Of each task row."""
        with self.store.begin() as session:
            return [at is not None for at in session.scalars(select(TaskRow.answered_at).order_by(TaskRow.id))]

    def watermark(self) -> str | None:
        with self.store.begin() as session:
            row = session.get(WatermarkRow, f"label_studio/{self.product.name}")
            return row.value if row else None


@pytest.fixture
def line(store: Store, fake_studio: FakeStudio, product: Product) -> Line:
    """Four pictures with four tasks."""
    made = Line(store, fake_studio, product)
    made.project = ensure_project(fake_studio, product)
    made.add(4)
    return made


def test_answers_become_labels_once(line: Line) -> None:
    """Repeats read the overlap again and record nothing."""
    line.studio.annotate(line.tasks[0], [choice("dent")])
    line.studio.annotate(line.tasks[1], [choice("cannot_tell")])
    first = line.pull()
    assert (first.merged.answered, first.checked, first.reconciled) == (2, True, False)
    assert line.labels() == {0: "dent", 1: None}
    assert line.answered() == [True, True, False, False]
    again = line.pull()
    assert (again.merged.answered, again.merged.unchanged) == (0, 2)
    assert line.rows() == ["answer", "answer"]


def test_only_what_changed_is_read(line: Line) -> None:
    """Outside the overlap nothing is read again."""
    for task in line.tasks[:2]:
        line.studio.annotate(task, [choice("dent")])
        line.pull()
        line.studio.tick(1000)
    line.studio.annotate(line.tasks[2], [choice("good")])
    assert line.pull().read == 2  # the new one, and the one at the watermark
    assert line.pull(overlap_seconds=0).read == 0


def test_what_was_committed_late_is_not_lost(line: Line) -> None:
    """A stamp a little older than the watermark lies in the overlap."""
    line.studio.annotate(line.tasks[0], [choice("dent")])
    line.studio.tick(100)
    line.studio.annotate(line.tasks[1], [choice("good")])
    project, late = line.studio.tasks[line.tasks[0]]
    line.studio.tasks[line.tasks[0]] = (project, late.model_copy(update={"annotations": ()}))
    line.pull()
    line.studio.tasks[line.tasks[0]] = (project, late)
    assert line.pull().reconciled is False
    assert line.labels() == {0: "dent", 1: "good"}


def test_a_correction_is_a_new_answer(line: Line) -> None:
    """History is kept, the latest counts."""
    annotation = line.studio.annotate(line.tasks[0], [choice("dent")])
    line.pull()
    line.studio.change_annotation(line.tasks[0], annotation, result=[choice("scratch")])
    assert line.pull().merged.corrected == 1
    assert line.labels() == {0: "scratch"}
    assert line.rows() == ["answer", "answer"]


def test_boxes_arrive_in_pixels(line: Line) -> None:
    """Percent of the picture as the store knows it: 200 x 100."""
    line.studio.annotate(line.tasks[0], [choice("dent"), box("dent", 10, 20, 30, 40)])
    line.pull()
    with line.store.begin() as session:
        label = current_labels(session, line.product)[line.pictures[0]]
    assert label.boxes == [Box(x=20, y=20, width=60, height=40, label="dent")]


@pytest.mark.parametrize("how", ["cancelled", "deleted", "deleted silently", "task deleted"])
def test_an_answer_taken_back_is_retracted(line: Line, how: str) -> None:
    """Cancelled, deleted, even where the server's stamp does not move: the counts tell."""
    line.studio.annotate(line.tasks[1], [choice("good")])
    task, annotation = line.tasks[0], line.studio.annotate(line.tasks[0], [choice("dent")])
    line.studio.tick(1000)
    line.studio.annotate(line.tasks[2], [choice("good")])
    line.pull()
    if how == "cancelled":
        line.studio.change_annotation(task, annotation, cancelled=True)
    elif how == "task deleted":
        line.studio.delete_task(task)
    else:
        line.studio.delete_annotation(task, annotation, silently=how == "deleted silently")
    report = line.pull()
    assert line.labels() == {1: "good", 2: "good"}
    assert line.answered() == [False, True, True, False]
    assert line.rows() == ["answer", "answer", "answer", "retraction"]
    assert report.reconciled == (how in {"deleted silently", "task deleted"})
    assert line.pull().merged.retracted == 0


def test_skipped_tasks_are_counted_not_labelled(line: Line) -> None:
    """A cancelled annotation is no answer."""
    line.pull()
    line.studio.annotate(line.tasks[0], [choice("dent")], cancelled=True)
    report = line.pull()
    assert (report.merged.skipped, report.merged.answered, line.labels()) == (1, 0, {})


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ([choice("bump")], "'bump'"),
        ([choice("good"), box("bump", 1, 1, 5, 5)], "'bump'"),
        ([], "no answers"),
        ([choice("good") | {"value": {"choices": ["good", "dent"]}}], "2 answers"),
        ([choice("good"), box("dent", 1, 1, 5, 5) | {"value": {"rectanglelabels": ["dent"]}}], "nobody can read"),
    ],
)
def test_an_answer_nobody_can_use_stops_the_pull_and_nothing_is_written(
    line: Line, result: list[dict[str, Any]], told: str
) -> None:
    """Task and class are named; good answers of the same pull wait with it."""
    line.studio.annotate(line.tasks[0], [choice("good")])
    line.pull()
    before = line.watermark()
    line.studio.annotate(line.tasks[1], [choice("dent")])
    annotation = line.studio.annotate(line.tasks[2], result)
    with pytest.raises(LabelError, match=f"task {line.tasks[2]}, annotation {annotation}") as caught:
        line.pull()
    assert told in str(caught.value)
    assert (line.watermark(), line.labels()) == (before, {0: "good"})
    line.studio.change_annotation(line.tasks[2], annotation, result=[choice("good")])
    line.pull()
    assert line.labels() == {0: "good", 1: "dent", 2: "good"}


@pytest.mark.parametrize("method", ["changes", "counts"])
def test_a_dead_server_leaves_everything_where_it_was(line: Line, method: str) -> None:
    """The next pull carries on."""
    line.studio.annotate(line.tasks[0], [choice("good")])
    line.pull()
    before = line.watermark()
    line.studio.annotate(line.tasks[1], [choice("dent")])
    line.studio.fail_on = method
    with pytest.raises(ServerError):
        line.pull()
    assert (line.watermark(), line.labels()) == (before, {0: "good"})
    assert line.pull().merged.answered == 1


def test_answers_to_tasks_of_others_are_counted_and_left_alone(line: Line) -> None:
    """Somebody imported tasks by hand: the count still adds up, and comparing everything is needed once only."""
    (theirs,) = line.studio.create_tasks(line.project, [NewTask(data={"image": "x"})])
    line.studio.annotate(theirs, [choice("bump")])
    line.studio.annotate(line.tasks[0], [choice("good")])
    report = line.pull()
    assert (report.foreign_answers, report.reconciled, line.labels()) == (1, True, {0: "good"})
    assert line.pull().reconciled is False


def test_a_lost_server_does_not_retract_everything(line: Line) -> None:
    """Most answers gone at once is no operator's wish, unless somebody says so."""
    line.add(30)
    for task in line.tasks:
        line.studio.annotate(task, [choice("good")])
    line.pull()
    for task in line.tasks:
        line.studio.delete_task(task)
    with pytest.raises(IntegrityError, match="lost 34 of the 34"):
        line.pull()
    assert len(line.labels()) == 34
    assert line.pull(allow_mass_retraction=True).tasks_gone == 34
    assert line.labels() == {}


def test_a_new_database_with_the_same_ids_does_not_touch_old_labels(line: Line) -> None:
    """Ids count from 1 again; the project's moment of creation tells the two apart."""
    annotation = line.studio.annotate(line.tasks[0], [choice("dent")])
    line.pull()
    fresh = FakeStudio(datetime(2027, 1, 1, tzinfo=UTC))
    line.studio = fresh
    assert ensure_project(fresh, line.product) == line.project
    (task,) = fresh.create_tasks(line.project, [NewTask(data={"escapement_key": task_key("label", line.pictures[3])})])
    while fresh.annotate(task, [choice("good")]) < annotation:
        fresh.delete_annotation(task, fresh.tasks[task][1].annotations[0].id)
    line.pull()
    assert line.labels() == {0: "dent", 3: "good"}


def test_a_watermark_never_goes_back(line: Line) -> None:
    """A server put back to an older state does not make us forget how far we were."""
    line.studio.annotate(line.tasks[0], [choice("dent")])
    line.studio.tick(50)
    line.studio.annotate(line.tasks[1], [choice("dent")])
    line.pull()
    before = line.watermark()
    project, task = line.studio.tasks[line.tasks[1]]
    line.studio.tasks[task.id] = (project, task.model_copy(update={"updated_at": task.updated_at - timedelta(seconds=9)}))
    line.pull()
    assert line.watermark() == before


class Crowded(FakeStudio):
    """A server on which somebody is busy whenever we count."""

    line: Line
    turns = 0
    pulls = False

    def counts(self, project_id: int) -> Counts:
        if self.turns:
            self.turns -= 1
            self.annotate(self.line.tasks[self.turns], [choice("good")])
            if self.pulls:
                pull_labels(self.line.store, self.line.studio, self.line.product, project_id)
        return super().counts(project_id)


@pytest.mark.parametrize(
    ("turns", "pulls", "checked"), [(1, False, True), (1, True, True), (3, True, True), (9, False, False)]
)
def test_answers_and_pulls_at_the_same_moment_do_not_confuse_the_count(
    line: Line, turns: int, pulls: bool, checked: bool
) -> None:
    """Listing again helps against a few; against a stream of answers the report says that nothing was checked."""
    line.add(10)
    busy = Crowded()
    busy.__dict__.update(line.studio.__dict__)
    line.studio, busy.line, busy.turns, busy.pulls = busy, line, turns, pulls
    report = line.pull()
    assert report.checked == checked
    busy.turns = 0
    assert line.pull().checked
    assert len(line.labels()) == busy.counts(line.project).answers
