"""Push, answer, correct, take back, pull: on a real Label Studio and a real store."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from inspection.contracts import Box, Decision
from inspection.data.labels import current_labels
from inspection.data.product import Product
from inspection.data.products import save_product
from inspection.errors import LabelError, ServerError
from inspection.labelling.port import LabelStudio
from inspection.labelling.project import ensure_project
from inspection.labelling.pull import pull_labels
from inspection.labelling.push import push_tasks
from inspection.labelling.studio import connect
from inspection.store.session import Store
from inspection.store.tables import TaskRow
from tests.labelling.conftest import make_product
from tests.labelling.helpers import add_pictures, add_verdict, answer, box, choice
from tests.labelling.live import RunningServer, cutting_proxy
from tests.labelling.test_push import Chosen

pytestmark = [pytest.mark.service, pytest.mark.slow]


@contextmanager
def opened(folder: Path, product: Product) -> Iterator[Store]:
    """A store that knows the product."""
    with Store.open(f"sqlite:///{folder / 'a.db'}", f"file://{folder / 'blobs'}") as store:
        with store.begin() as session:
            save_product(session, product)
        yield store


def labels(store: Store, product: Product, pictures: list[str]) -> dict[int, str | None]:
    """Place of a picture -> its label now."""
    with store.begin() as session:
        return {pictures.index(p): c.label for p, c in current_labels(session, product).items()}


def tasks_of(store: Store, pictures: list[str]) -> list[int]:
    """Label Studio ids, in the order of the pictures."""
    with store.begin() as session:
        rows = {row.picture: row.label_studio_id for row in session.scalars(select(TaskRow))}
    return [rows[p] or 0 for p in pictures]


def filled_in(server: RunningServer, task: int) -> list[dict[str, Any]]:
    """What an operator finds filled in, without the ids Label Studio adds."""
    answered = httpx.get(
        f"{server.url}/api/tasks/{task}/",
        headers={"Authorization": f"Token {server.token}"},
        timeout=30,
        trust_env=False,
    )
    (prediction,) = answered.raise_for_status().json()["predictions"]
    return [{k: v for k, v in item.items() if k != "id"} for item in prediction["result"]]


def test_the_whole_way_and_back(tmp_path: Path, real_studio: LabelStudio, label_studio_server: RunningServer) -> None:
    """What operators do in Label Studio is what the labels say after the next pull."""
    server, product = label_studio_server, make_product("whole-way")
    with opened(tmp_path, product) as store:
        pictures = add_pictures(store, product, 6)
        project = ensure_project(real_studio, product)
        chosen = [Chosen(p) for p in pictures]

        def push() -> int:
            return push_tasks(store, real_studio, product, project, chosen, "http://127.0.0.1:9/p/{}".format).created

        assert (push(), push(), real_studio.counts(project).tasks) == (6, 0, 6)
        tasks = tasks_of(store, pictures)
        made = [answer(server, task, [choice("good")]) for task in tasks[:4]]
        answer(server, tasks[4], [choice("dent"), box("dent", 10, 20, 30, 40)])
        answer(server, tasks[5], [choice("cannot_tell")])
        report = pull_labels(store, real_studio, product, project)
        assert (report.merged.answered, report.checked) == (6, True)
        assert labels(store, product, pictures) == {0: "good", 1: "good", 2: "good", 3: "good", 4: "dent", 5: None}
        with store.begin() as session:
            label = current_labels(session, product)[pictures[4]]
        assert label.boxes == [Box(x=20, y=20, width=60, height=40, label="dent")]
        assert label.said == [f"{server.user}: dent"]

        answer(server, tasks[0], [choice("scratch")], annotation=made[0])
        answer(server, tasks[1], [choice("good")], annotation=made[1], was_cancelled=True)
        answer(server, tasks[2], None, annotation=made[2])
        real_studio.delete_task(tasks[3])
        report = pull_labels(store, real_studio, product, project)
        assert (report.merged.corrected, report.merged.retracted, report.tasks_gone) == (1, 2, 1)
        assert labels(store, product, pictures) == {0: "scratch", 4: "dent", 5: None}
        assert pull_labels(store, real_studio, product, project).reconciled is False
        assert push() == 0


def test_open_tasks_follow_the_hub_on_the_real_server(
    tmp_path: Path, real_studio: LabelStudio, label_studio_server: RunningServer
) -> None:
    """The hub came back on another port: links change, what is filled in for the operator and answers given stay."""
    server, product = label_studio_server, make_product("moved")
    with opened(tmp_path, product) as store:
        pictures = add_pictures(store, product, 3)
        add_verdict(store, product, Decision.NG, "dent", {"good": 0.1, "dent": 0.8, "scratch": 0.1})
        project = ensure_project(real_studio, product)
        chosen = [Chosen(pictures[0], verdict="v1"), *map(Chosen, pictures[1:])]
        push_tasks(store, real_studio, product, project, chosen, "http://127.0.0.1:8470/p/{}".format)
        tasks = tasks_of(store, pictures)
        answer(server, tasks[2], [choice("good")])  # not pulled yet: for us it is still open
        moved = "http://127.0.0.1:9999/p/{}".format
        assert push_tasks(store, real_studio, product, project, chosen, moved).relinked == 3
        shown = {task.id: task for task in real_studio.read_tasks(project, tasks)}
        assert [shown[i].data["image"] for i in tasks] == [moved(p) for p in pictures]
        assert [shown[i].data["part"] for i in tasks] == ["P0", "P1", "P2"]
        assert [len(shown[i].annotations) for i in tasks] == [0, 0, 1]
        assert filled_in(server, tasks[0]) == [choice("dent")]
        assert push_tasks(store, real_studio, product, project, chosen, moved).relinked == 0
        assert pull_labels(store, real_studio, product, project).merged.answered == 1
        assert labels(store, product, pictures) == {2: "good"}
        real_studio.delete_task(tasks[0])
        real_studio.change_data(tasks[0], {"image": "gone"})


def test_boxes_a_device_drew_come_back_as_they_were_when_an_operator_keeps_them(
    tmp_path: Path, real_studio: LabelStudio, label_studio_server: RunningServer
) -> None:
    """A verdict's regions, in pixels, are drawn for the operator; kept as they are they are the label's boxes."""
    server, product = label_studio_server, make_product("kept-boxes")
    regions = [
        Box(x=121.5, y=59.25, width=10, height=11.4, label="dent", score=0.9),
        Box(x=3, y=80, width=20, height=20, label="dent", score=0.7),
    ]
    with opened(tmp_path, product) as store:
        pictures = add_pictures(store, product, 1)
        add_verdict(store, product, Decision.NG, "dent", {"good": 0.1, "dent": 0.8, "scratch": 0.1}, *regions)
        project = ensure_project(real_studio, product)
        chosen = [Chosen(pictures[0], verdict="v1")]
        push_tasks(store, real_studio, product, project, chosen, "http://127.0.0.1:9/p/{}".format)
        (task,) = tasks_of(store, pictures)
        answer(server, task, filled_in(server, task))
        pull_labels(store, real_studio, product, project)
        with store.begin() as session:
            kept = current_labels(session, product)[pictures[0]].boxes
    assert [box.label for box in kept] == ["dent", "dent"]
    for got, drawn in zip(kept, regions, strict=True):
        sides = [(b.x, b.y, b.width, b.height) for b in (got, drawn)]
        assert sides[0] == pytest.approx(sides[1])


def test_a_class_nobody_knows_stops_the_pull(
    tmp_path: Path, real_studio: LabelStudio, label_studio_server: RunningServer
) -> None:
    """A class was added by hand and answered with: told, and nothing taken over."""
    product = make_product("strange")
    with opened(tmp_path, product) as store:
        pictures = add_pictures(store, product, 2)
        project = ensure_project(real_studio, product)
        push_tasks(store, real_studio, product, project, [Chosen(p) for p in pictures], "http://127.0.0.1:9/{}".format)
        config = real_studio.project(project).config.replace(
            '<Choice value="dent"', '<Choice value="bump" /><Choice value="dent"'
        )
        real_studio.change_project(project, label_config=config)
        with pytest.raises(LabelError, match="'bump' is no class"):
            ensure_project(real_studio, product)
        good, strange = tasks_of(store, pictures)
        answer(label_studio_server, good, [choice("good")])
        answer(label_studio_server, strange, [choice("bump")])
        with pytest.raises(LabelError, match=f"task {strange}.*'bump'"):
            pull_labels(store, real_studio, product, project)
        assert labels(store, product, pictures) == {}
        grown = make_product("strange", "bump")
        with store.begin() as session:
            save_product(session, grown)
        pull_labels(store, real_studio, grown, project)
        assert labels(store, grown, pictures) == {0: "good", 1: "bump"}


def test_an_answer_cut_off_in_a_page_leaves_the_watermark(
    tmp_path: Path, label_studio_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of three pages ends in the middle: nothing was written, the next pull reads everything."""
    product = make_product("cut-off")
    monkeypatch.setattr("inspection.labelling.studio._PAGE", 2)
    server = label_studio_server
    with (
        opened(tmp_path, product) as store,
        connect(server.url, server.token) as studio,
        cutting_proxy(server.url, whole_pages=1) as cut_url,
        connect(cut_url, server.token) as cut,
    ):
        pictures = add_pictures(store, product, 5)
        project = ensure_project(studio, product)
        push_tasks(store, studio, product, project, [Chosen(p) for p in pictures], "http://127.0.0.1:9/{}".format)
        for task in tasks_of(store, pictures):
            answer(server, task, [choice("good")])
        with pytest.raises(ServerError, match="does not answer"):
            pull_labels(store, cut, product, project)
        assert labels(store, product, pictures) == {}
        assert pull_labels(store, studio, product, project).merged.answered == 5
