"""The scripted operator: plausible answers, reproducible, and through a real Label Studio only."""

from datetime import UTC, datetime

import numpy as np
import pytest

from inspection.contracts import Box, Limits
from inspection.data.product import Product
from inspection.demo.operator import Habits, answer_open_tasks, plan_answers
from inspection.demo.renderer import GOOD, KINDS, PartSpec, Truth, render_with_truth
from inspection.errors import LabelError, UsageError
from inspection.labelling.answers import read_boxes, read_label
from inspection.labelling.interface import CANNOT_TELL
from inspection.labelling.port import NewTask, StudioAnnotation, StudioTask
from inspection.labelling.project import ensure_project
from inspection.labelling.studio import connect
from tests.labelling.conftest import RunningServer

CLASSES = [GOOD, *KINDS]
CHOICES = [*CLASSES, CANNOT_TELL]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LID = Product(name="demo-lid", good_class=GOOD, classes=CLASSES, limits=Limits(escape_rate=0.05, overkill_rate=0.1))


def truths(count: int) -> dict[str, Truth]:
    """Parts of all classes in turn."""
    specs = [PartSpec(f"S1-{i:06d}", 4, i, CLASSES[i % len(CLASSES)]) for i in range(count)]
    return {spec.part: render_with_truth(spec).truth for spec in specs}


def task(number: int, part: str) -> StudioTask:
    """An open task about a part."""
    return StudioTask(id=number, data={"part": part}, updated_at=NOW, annotations=())


def answered(result: list[dict[str, object]]) -> StudioAnnotation:
    """An annotation with this result."""
    return StudioAnnotation(id=1, result=result, cancelled=False, annotator="o", created_at=NOW, updated_at=NOW)


def test_a_careful_operator_answers_the_truth() -> None:
    """Without human habits every label and box comes back exactly as it was rendered."""
    truth = truths(30)
    tasks = [task(i, part) for i, part in enumerate(truth)]
    plans = plan_answers(tasks, truth, CHOICES, Habits(0, 0, 0, 0), np.random.default_rng(1))
    assert len(plans) == 30
    for one, plan in zip(tasks, plans, strict=True):
        known, given = truth[one.data["part"]], answered(plan.result)
        assert read_label(LID, one, given) == known.label
        boxes = read_boxes(LID, one, given, known.width, known.height)
        assert [box.label for box in boxes] == [box.label for box in known.boxes]
        for box, right in zip(boxes, known.boxes, strict=True):
            assert (box.x, box.y, box.width, box.height) == pytest.approx((right.x, right.y, right.width, right.height))


def test_a_hand_drawn_box_stays_in_the_picture_and_on_the_defect() -> None:
    """Jitter moves the edges a little, never outside."""
    truth = {"p": Truth("dent", (Box(x=0, y=100, width=60, height=60, label="dent"),), "dent", 160, 160)}
    for seed in range(50):
        (plan,) = plan_answers([task(1, "p")], truth, CHOICES, Habits(0, 0, 0, 0.1), np.random.default_rng(seed))
        (box,) = read_boxes(LID, task(1, "p"), answered(plan.result), 160, 160)
        assert box.x >= 0
        assert box.y + box.height <= 160 + 1e-9
        assert abs(box.width - 60) < 40


def test_the_same_seed_gives_the_same_answers() -> None:
    """Whatever order the tasks are listed in."""
    truth = truths(60)
    tasks = [task(i, part) for i, part in enumerate(truth)]
    habits = Habits(0.2, 0.2, 0.3, 0.05)
    first = plan_answers(tasks, truth, CHOICES, habits, np.random.default_rng(9))
    assert first == plan_answers(tasks[::-1], truth, CHOICES, habits, np.random.default_rng(9))
    assert first != plan_answers(tasks, truth, CHOICES, habits, np.random.default_rng(10))
    assert {plan.skip for plan in first} == {plan.unsure for plan in first} == {True, False}
    assert all(plan.slip is None or plan.slip != plan.result[:1] for plan in first)


def test_a_class_the_interface_lacks_is_said_before_anything_is_answered() -> None:
    """The person is told which class is missing where."""
    with pytest.raises(LabelError, match="'crack', which the labelling interface does not offer"):
        plan_answers([task(7, "p")], {"p": Truth("crack")}, [GOOD, CANNOT_TELL], Habits(), np.random.default_rng(0))


@pytest.mark.service
@pytest.mark.slow
def test_open_tasks_are_answered_on_a_real_server(label_studio_server: RunningServer) -> None:
    """Answers, corrections, skips and "cannot tell" arrive as a person's would; nothing is answered twice."""
    truth, server = truths(40), label_studio_server
    link = {"image": "http://127.0.0.1:9/x.png", "about": ""}
    with connect(server.url, server.token) as studio:
        project = ensure_project(studio, LID)
        ids = studio.create_tasks(project, [NewTask(data=link | {"part": part}) for part in [*truth, "stranger"]])
        rng, habits = np.random.default_rng(2), Habits(cannot_tell=0.1, skip=0.1, slip=0.3)
        first = answer_open_tasks(server.url, server.token, project, truth, limit=25, rng=rng, habits=habits)
        rest = answer_open_tasks(server.url, server.token, project, truth, limit=500, rng=rng, habits=habits)
        assert first.answered + first.skipped == 25
        assert rest.answered + rest.skipped == 15
        assert (first.unknown, rest.unknown) == (0, 1)
        assert first.corrected + rest.corrected > 0
        tasks = {one.id: one for one in studio.read_tasks(project, ids)}
        counted = [a for one in tasks.values() for a in one.annotations if not a.cancelled]
        skipped = first.skipped + rest.skipped
        unsure = sum(read_label(LID, one, a) is None for one in tasks.values() for a in one.annotations if not a.cancelled)
        cancelled = sum(a.cancelled for one in tasks.values() for a in one.annotations)
        assert len(counted) == first.answered + rest.answered + unsure
        assert skipped == unsure + cancelled
        for one in tasks.values():
            for a in one.annotations:
                if not a.cancelled and (label := read_label(LID, one, a)) is not None:
                    assert label == truth[one.data["part"]].label
        idle = answer_open_tasks(server.url, server.token, project, truth, limit=500, rng=rng)
        assert (idle.answered, idle.skipped, idle.unknown) == (0, 0, 1)
        studio.delete_project(project)


@pytest.mark.service
def test_a_wrong_token_is_the_users_to_mend(label_studio_server: RunningServer) -> None:
    """Not a stack trace of somebody's HTTP library."""
    with pytest.raises(UsageError, match="token"):
        answer_open_tasks(label_studio_server.url, "f" * 40, 1, {}, limit=1, rng=np.random.default_rng(0))
