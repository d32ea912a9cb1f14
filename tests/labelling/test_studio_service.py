"""The port's implementation on a real Label Studio: both token kinds, complete listings, errors in words."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from inspection.data.product import Product
from inspection.errors import LabelError, ServerError, UsageError
from inspection.labelling.interface import labelling_config
from inspection.labelling.port import KEY_FIELD, LabelStudio, NewTask
from inspection.labelling.project import ensure_project
from inspection.labelling.studio import SdkStudio, connect
from tests.labelling.conftest import make_product
from tests.labelling.helpers import answer, choice
from tests.labelling.live import RunningServer, answering
from tests.ports import free_port

pytestmark = pytest.mark.service


def new_tasks(count: int) -> list[NewTask]:
    """Tasks without pictures."""
    return [
        NewTask(data={"image": "http://127.0.0.1:9/x.png", "about": "", KEY_FIELD: f"label/{n:064x}"}) for n in range(count)
    ]


@pytest.mark.filterwarnings("ignore:The `parse_obj` method")  # the SDK's own, where it refreshes the token
def test_a_personal_access_token_works_as_a_legacy_one_does(label_studio_server: RunningServer) -> None:
    """Token kinds changed once and broke automation elsewhere."""
    made = httpx.post(
        f"{label_studio_server.url}/api/token/",
        headers={"Authorization": f"Token {label_studio_server.token}"},
        trust_env=False,
    )
    with connect(label_studio_server.url, made.json()["token"]) as studio:
        assert isinstance(studio, SdkStudio)
        assert studio.whoami() == label_studio_server.user
        project = ensure_project(studio, make_product("personal-token"))
        assert studio.counts(project).tasks == 0


def test_a_wrong_token_names_the_setting(label_studio_server: RunningServer) -> None:
    """A person must know what to change."""
    for wrong in ("f" * 40, "", "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDB9.YWJj"):
        with pytest.raises(UsageError, match="label_studio_token"):
            connect(label_studio_server.url, wrong)


def test_nobody_there_is_a_server_error() -> None:
    """The address is named, and the setting."""
    with pytest.raises(ServerError, match="label_studio_url"):
        connect(f"http://127.0.0.1:{free_port()}", "f" * 40)


def test_listings_are_complete_over_many_pages(
    real_studio: LabelStudio, product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every changed task comes exactly once although a page holds seven."""
    monkeypatch.setattr("inspection.labelling.studio._PAGE", 7)
    project = ensure_project(real_studio, make_product("pages"))
    before = datetime.now(UTC) - timedelta(seconds=1)
    ids = real_studio.create_tasks(project, new_tasks(30))
    changes = real_studio.changes(project, before)
    assert [t.id for t in changes.tasks] == ids
    assert changes.newest == max(t.updated_at for t in changes.tasks)
    assert [s.id for s in real_studio.task_states(project)] == ids
    assert real_studio.changes(project, changes.newest).tasks == ()
    found = real_studio.find_tasks(project, [f"label/{3:064x}", f"label/{99:064x}"])
    assert {key: [s.id for s in states] for key, states in found.items()} == {f"label/{3:064x}": [ids[3]]}
    real_studio.delete_project(project)


def test_answers_corrections_and_deletions_move_the_stamp(
    real_studio: LabelStudio, label_studio_server: RunningServer
) -> None:
    """The delta rests on this behaviour of the server: each of them makes its task appear as changed."""
    project = ensure_project(real_studio, make_product("stamps"))
    (task,) = real_studio.create_tasks(project, new_tasks(1))
    seen = real_studio.changes(project, None).newest
    annotation = answer(label_studio_server, task, [choice("dent")])
    steps: list[Callable[[], object]] = [
        lambda: None,
        lambda: answer(label_studio_server, task, [choice("good")], annotation=annotation),
        lambda: answer(label_studio_server, task, [choice("good")], annotation=annotation, was_cancelled=True),
        lambda: answer(label_studio_server, task, None, annotation=annotation),
    ]
    held = []
    for step in steps:
        step()
        changes = real_studio.changes(project, seen)
        held.append([(a.cancelled, a.annotator) for t in changes.tasks for a in t.annotations])
        assert changes.newest is not None
        seen = changes.newest
    who = label_studio_server.user
    assert held == [[(False, who)], [(False, who)], [(True, who)], []]
    assert real_studio.counts(project).answers == 0


def test_one_project_and_four_tabs_on_the_real_server(real_studio: LabelStudio) -> None:
    """Made once, updated when the product grows, refused when a hand took a class away."""
    product = make_product("tabs")
    project = ensure_project(real_studio, product)
    assert ensure_project(real_studio, product) == project
    assert [t.data["title"] for t in real_studio.tabs(project)] == ["To label", "Labelled", "Audit", "Skipped"]
    grown = make_product("tabs", "stain & <rust>")
    assert ensure_project(real_studio, grown) == project
    assert real_studio.project(project).config == labelling_config(grown)
    real_studio.change_project(project, label_config=labelling_config(product))
    with pytest.raises(LabelError, match="changed by hand"):
        ensure_project(real_studio, grown)


def test_an_unknown_project_is_told(real_studio: LabelStudio) -> None:
    """A project somebody deleted is not an empty one."""
    for ask in (real_studio.project, real_studio.counts):
        with pytest.raises(UsageError, match="no project 999999"):
            ask(999999)


@pytest.mark.parametrize(("body", "length"), [(b"<html>", 6), (b'{"id": 1, "em', 400), (b"{}", 2), (b"[" * 9999, 9999)])
def test_a_server_that_answers_nonsense_is_a_server_error(body: bytes, length: int) -> None:
    """Another program at the address, an answer cut off in the middle."""
    nonsense = (200, body, {"Content-Length": str(length)})
    with answering(lambda _: nonsense) as url, pytest.raises(ServerError):
        connect(url, "f" * 40)
