"""Promises of the push, against a fake server and a real store."""

import threading
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import select

from edge_agent.judge import Judgement, judge
from edge_agent.runtime import Inference
from inspection.contracts import Band, Box, Decision, Part, Recipe, Region, Tiling, tiles_of
from inspection.data.product import Product
from inspection.errors import MissingPictureError, ServerError
from inspection.labelling.answers import read_boxes
from inspection.labelling.port import NewTask
from inspection.labelling.project import ensure_project
from inspection.labelling.push import PushReport, push_tasks
from inspection.labelling.relink import mark_of
from inspection.store.session import Store
from inspection.store.tables import TaskRow, VerdictRow
from tests.labelling.fake import FakeStudio
from tests.labelling.helpers import add_pictures, add_verdict, choice


@dataclass(frozen=True)
class Chosen:
    """What selection hands over."""

    picture: str
    why: str = "uncertain"
    verdict: str | None = None


@dataclass
class Desk:
    """A store, a server, a product, pictures to ask about."""

    store: Store
    studio: FakeStudio
    product: Product
    project: int
    pictures: list[str]
    link: str = "http://hub/p/{}-mac"

    def push(self, *chosen: Chosen, studio: FakeStudio | None = None) -> PushReport:
        wanted = chosen or tuple(Chosen(p) for p in self.pictures)
        return push_tasks(self.store, studio or self.studio, self.product, self.project, wanted, self.link.format)

    def links(self) -> list[str]:
        """Where the server's tasks fetch their pictures from, in the order the tasks were made."""
        return [str(self.studio.tasks[i][1].data["image"]) for i in sorted(self.studio.tasks)]

    def ids(self) -> list[int | None]:
        """Label Studio ids of the task rows."""
        with self.store.begin() as session:
            return list(session.scalars(select(TaskRow.label_studio_id).order_by(TaskRow.id)))

    def shown(self) -> list[str]:
        """Keys of the server's tasks."""
        return sorted(str(t.key) for _, t in self.studio.tasks.values())


@pytest.fixture
def desk(store: Store, fake_studio: FakeStudio, product: Product) -> Desk:
    """Five pictures, no task yet."""
    pictures = add_pictures(store, product, 5)
    return Desk(store, fake_studio, product, ensure_project(fake_studio, product), pictures)


def judged_on_a_device(product: Product, maps: NDArray[np.float32], *, ng: float = 0.5, **geometry: Part) -> Judgement:
    """What the agent makes of a dent in the last tile of a picture of 200 x 100 pixels."""
    band = Band(inconclusive=0.5, ng=ng)
    recipe = Recipe(
        product=product.name, version=1, good_class="good", thresholds={"*": band}, limits=product.limits
    ).model_copy(update=geometry)
    scores = np.array([[0.9, 0.0, 0.1]] * (len(maps) - 1) + [[0.2, 0.0, 0.8]], np.float32)
    return judge(Inference(scores, maps), tiles_of(100, 200, recipe), product.classes, recipe)


def test_one_picture_is_one_task_however_often(desk: Desk) -> None:
    """The second run finds nothing to do."""
    assert desk.push() == PushReport(created=5, adopted=0, already=0, doubles_removed=0)
    assert desk.push() == PushReport(created=0, adopted=0, already=5, doubles_removed=0)
    assert desk.shown() == sorted(f"label/{p}" for p in desk.pictures)
    assert sorted(i for i in desk.ids() if i) == sorted(desk.studio.tasks)


def test_one_picture_is_one_task_from_two_threads(desk: Desk) -> None:
    """Two flows at the same moment."""
    reports: list[PushReport] = []
    threads = [threading.Thread(target=lambda: reports.append(desk.push())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(r.created for r in reports) == [0, 5]
    assert desk.shown() == sorted(f"label/{p}" for p in desk.pictures)


@pytest.mark.parametrize("late", [False, True])
def test_a_run_that_dies_is_finished_by_the_next(desk: Desk, late: bool) -> None:
    """Before the tasks were made, or after, before we wrote down their ids."""
    desk.studio.fail_on, desk.studio.late = "create_tasks", late
    with pytest.raises(ServerError):
        desk.push()
    assert desk.ids() == [None] * 5
    report = desk.push(Chosen(desk.pictures[0]))
    assert (report.created, report.adopted) == ((0, 5) if late else (5, 0))
    assert desk.shown() == sorted(f"label/{p}" for p in desk.pictures)
    assert None not in desk.ids()


def test_doubles_left_by_a_lost_answer_are_removed(desk: Desk) -> None:
    """The oldest stays, or the one that was answered already."""
    desk.studio.fail_on, desk.studio.late = "create_tasks", True
    with pytest.raises(ServerError):
        desk.push()
    first = sorted(desk.studio.tasks)
    data = {i: desk.studio.tasks[i][1].data for i in first}
    doubles = desk.studio.create_tasks(desk.project, [NewTask(data=data[i]) for i in first[:2]])
    desk.studio.annotate(doubles[0], [choice("good")])
    report = desk.push()
    assert (report.adopted, report.doubles_removed) == (5, 2)
    assert sorted(desk.studio.tasks) == sorted([doubles[0], *first[1:]])


def test_a_replaced_project_is_asked_again_but_for_what_was_answered(desk: Desk) -> None:
    """The old project is gone with its open tasks; ids count from 1 again."""
    desk.push()
    with desk.store.begin() as session:
        session.scalars(select(TaskRow).order_by(TaskRow.id)).all()[0].answered_at = datetime.now(UTC)
    fresh = FakeStudio(datetime(2027, 1, 1, tzinfo=UTC))
    desk.project = ensure_project(fresh, desk.product)
    assert desk.push(Chosen(desk.pictures[4]), studio=fresh).created == 4
    assert {i for i in desk.ids() if i} == set(fresh.tasks)


def test_open_tasks_follow_the_hub_to_another_address(desk: Desk) -> None:
    """An answered or closed question is left as it was; the second run finds nothing to do, and asks nothing."""
    desk.push()
    with desk.store.begin() as session:
        rows = session.scalars(select(TaskRow).order_by(TaskRow.id)).all()
        rows[0].answered_at = rows[1].closed_at = datetime.now(UTC)
    before = {i: task.data for i, (_, task) in desk.studio.tasks.items()}
    desk.link = "http://hub:8080/p/{}-mac"
    assert desk.push() == PushReport(created=0, adopted=0, already=5, doubles_removed=0, relinked=3)
    old, new = ([link.format(p) for p in desk.pictures] for link in ("http://hub/p/{}-mac", desk.link))
    assert desk.links() == [*old[:2], *new[2:]]
    others = [{k: v for k, v in task.data.items() if k != "image"} for _, task in desk.studio.tasks.values()]
    assert others == [{k: v for k, v in data.items() if k != "image"} for data in before.values()]
    desk.studio.calls.clear()
    assert desk.push().relinked == 0
    assert not {"read_tasks", "change_data"} & set(desk.studio.calls)


@pytest.mark.parametrize("late", [False, True])
def test_links_a_dead_run_left_behind_are_mended_by_the_next(desk: Desk, late: bool) -> None:
    """The address counts as known only when every open task has it; what was mended already is not sent again."""
    desk.push()
    desk.link = "https://hub.example/p/{}-mac"
    desk.studio.fail_on, desk.studio.late = "change_data", late
    with pytest.raises(ServerError):
        desk.push()
    assert desk.push().relinked == (4 if late else 5)
    assert desk.links() == [desk.link.format(p) for p in desk.pictures]


def test_tasks_of_a_dead_run_are_adopted_with_the_link_of_today(desk: Desk) -> None:
    """Made at the old address, confirmed after the move."""
    desk.studio.fail_on, desk.studio.late = "create_tasks", True
    with pytest.raises(ServerError):
        desk.push()
    desk.link = "http://hub:8080/p/{}-mac"
    report = desk.push()
    assert (report.adopted, report.relinked) == (5, 5)
    assert desk.links() == [desk.link.format(p) for p in desk.pictures]


def test_an_address_of_any_length_is_remembered() -> None:
    """The mark fits its column, and two long addresses that begin alike are two."""
    host = "h" * 200
    marks = [mark_of(f"http://{host}{end}/p/{{}}".format) for end in ("a", "b")]
    assert marks[0] != marks[1]
    assert all(len(mark) <= 100 for mark in marks)


def test_an_unknown_picture_stops_everything_before_it_starts(desk: Desk) -> None:
    """Nothing is reserved, nothing created."""
    with pytest.raises(MissingPictureError):
        desk.push(Chosen(desk.pictures[0]), Chosen("f" * 64))
    assert (desk.ids(), desk.studio.tasks) == ([], {})


def test_an_operator_finds_the_model_s_class_and_boxes_filled_in(desk: Desk) -> None:
    """Boxes in percent of 200 x 100 pixels, cut at the edge; boxes of unknown classes are left out."""
    boxes = (
        Box(x=20, y=10, width=40, height=20, label="dent"),
        Box(x=150, y=50, width=100, height=100, label="scratch"),
        Box(x=1, y=1, width=5, height=5, label="anomaly"),
        Box(x=300, y=1, width=5, height=5, label="dent"),
    )
    add_verdict(desk.store, desk.product, Decision.NG, "dent", {"good": 0.1, "dent": 0.8, "scratch": 0.1}, *boxes)
    desk.push(Chosen(desk.pictures[0], "disagree", "v1"))
    (task_id,) = desk.studio.tasks
    data, prediction = desk.studio.tasks[task_id][1].data, desk.studio.predictions[task_id]
    assert prediction is not None
    assert (prediction["model_version"], prediction["score"]) == ("abababababab", 0.8)
    answer, *drawn = prediction["result"]
    assert answer == choice("dent")
    assert [[d["value"][k] for k in ("x", "y", "width", "height", "rectanglelabels")] for d in drawn] == [
        [10, 10, 20, 20, ["dent"]],
        [75, 50, 25, 50, ["scratch"]],
    ]
    assert data["image"] == f"http://hub/p/{desk.pictures[0]}-mac"
    assert data["about"] == (
        "Part P0 | station line-1 | asked: disagree | model: NG, dent 0.80 | captured 2026-02-03 04:05:06 UTC"
    )


@pytest.mark.parametrize(
    ("defect", "scores", "novelty", "reason", "said"),
    [
        ("unusual", {"good": 0.1, "unusual": 0.9}, None, None, "INCONCLUSIVE, unusual 0.90"),
        (
            None,
            {"good": 0.9, "dent": 0.1},
            0.94,
            "unlike anything: novelty 0.94",
            "INCONCLUSIVE, unlike anything: novelty 0.94",
        ),
        (None, {}, None, "station is in collect mode", "INCONCLUSIVE"),
    ],
)
def test_what_no_class_explains_is_told_in_words_and_filled_in_as_nothing(
    desk: Desk, defect: str | None, scores: dict[str, float], novelty: float | None, reason: str | None, said: str
) -> None:
    """A cold start's doubt, and a guard's: the operator reads why, and answers without a first answer."""
    add_verdict(desk.store, desk.product, Decision.INCONCLUSIVE, defect, scores)
    with desk.store.begin() as session:
        row = session.get_one(VerdictRow, "v1")
        row.body = row.body | {"novelty": novelty, "reason": reason}
    desk.push(Chosen(desk.pictures[0], "novel", "v1"))
    (task_id,) = desk.studio.tasks
    data = desk.studio.tasks[task_id][1].data
    assert f"| asked: novel | model: {said} |" in data["about"]
    assert desk.studio.predictions[task_id] is None


def test_a_passed_part_is_filled_in_as_good_and_a_failed_capture_not_at_all(desk: Desk) -> None:
    """OK names the good class; ERROR names nothing."""
    add_verdict(desk.store, desk.product, Decision.OK, None, {"good": 0.9, "dent": 0.1, "scratch": 0.0})
    desk.push(Chosen(desk.pictures[0], "audit", "v1"), Chosen(desk.pictures[1], "import"))
    with_verdict, without = (desk.studio.predictions[i] for i in sorted(desk.studio.tasks))
    assert with_verdict is not None
    assert with_verdict["result"] == [choice("good")]
    assert without is None


@pytest.mark.parametrize(("decision", "ng"), [(Decision.NG, 0.5), (Decision.INCONCLUSIVE, 0.95)])
def test_what_a_device_marked_is_found_at_the_same_pixels(desk: Desk, decision: Decision, ng: float) -> None:
    """From the map of a tile in a region of interest to percent of the whole picture, and from there to an answer."""
    maps = np.zeros((2, 6, 6), np.float32)
    maps[1, 4, 2] = 0.9  # cells of 10 x 10 pixels; the second tile begins at (100, 20)
    region, tiling = Region(x=40, y=20, width=120, height=60), Tiling(columns=2)
    judged = judged_on_a_device(desk.product, maps, ng=ng, region=region, tiling=tiling)
    (marked,) = judged.regions
    assert judged.outcome.decision is decision
    assert marked.x <= 125 <= marked.x + marked.width
    assert marked.y <= 65 <= marked.y + marked.height
    add_verdict(desk.store, desk.product, decision, "dent", judged.scores, marked)
    desk.push(Chosen(desk.pictures[0], "disagree", "v1"))
    ((task_id, prediction),) = desk.studio.predictions.items()
    assert prediction is not None
    desk.studio.annotate(task_id, prediction["result"])
    task = desk.studio.tasks[task_id][1]
    (kept,) = read_boxes(desk.product, task, task.annotations[0], 200, 100)
    assert kept.label == "dent"
    for side in ("x", "y", "width", "height"):
        assert getattr(kept, side) == pytest.approx(getattr(marked, side))


def test_where_a_map_shows_nothing_no_box_is_drawn(desk: Desk) -> None:
    """The class is filled in all the same."""
    judged = judged_on_a_device(desk.product, np.full((1, 6, 6), 0.05, np.float32))
    add_verdict(desk.store, desk.product, Decision.NG, "dent", judged.scores, *judged.regions)
    desk.push(Chosen(desk.pictures[0], "disagree", "v1"))
    (prediction,) = desk.studio.predictions.values()
    assert prediction is not None
    assert prediction["result"] == [choice("dent")]
