"""Promises about questions that nobody will answer, against a fake server and a real store."""

import pytest

from inspection.data.selection import open_tasks
from inspection.errors import ServerError
from inspection.labelling.closing import close_dead_ends
from inspection.labelling.project import ensure_project
from tests.labelling.helpers import choice
from tests.labelling.test_push import Chosen, Desk, desk

__all__ = ["desk"]


def waiting(desk: Desk) -> int:
    """Questions that count as open."""
    with desk.store.begin(read_only=True) as session:
        return open_tasks(session, desk.product)


def test_skipped_and_deleted_questions_are_closed(desk: Desk) -> None:
    """An answered one, one skipped and answered, and one untouched are not; nothing is asked again."""
    desk.push()
    answered, skipped, both, deleted, _ = [task for task in desk.ids() if task is not None]
    desk.studio.annotate(answered, [choice("dent")])
    desk.studio.annotate(skipped, [], cancelled=True)
    desk.studio.annotate(both, [], cancelled=True)
    desk.studio.annotate(both, [choice("good")])
    desk.studio.delete_task(deleted)
    assert waiting(desk) == 5
    assert close_dead_ends(desk.store, desk.studio, desk.product, desk.project) == 2
    assert waiting(desk) == 3
    assert close_dead_ends(desk.store, desk.studio, desk.product, desk.project) == 0
    assert desk.push(*(Chosen(picture) for picture in desk.pictures)).created == 0


def test_a_replaced_project_closes_nothing(desk: Desk) -> None:
    """Its tasks are not deleted questions: the next push asks them again."""
    desk.push()
    desk.studio.delete_project(desk.project)
    project = ensure_project(desk.studio, desk.product)
    assert close_dead_ends(desk.store, desk.studio, desk.product, project) == 0
    assert waiting(desk) == 5


def test_a_failing_server_closes_nothing(desk: Desk) -> None:
    """An empty answer would look like deleted tasks; a failure is not an empty answer."""
    desk.push()
    desk.studio.fail_on = "find_tasks"
    with pytest.raises(ServerError):
        close_dead_ends(desk.store, desk.studio, desk.product, desk.project)
    assert waiting(desk) == 5
