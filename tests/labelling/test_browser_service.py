"""What an operator sees and presses, in a real browser on a real Label Studio."""

import http.server
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from inspection.contracts import Box, Decision
from inspection.data.labels import current_labels
from inspection.data.products import save_product
from inspection.labelling.port import LabelStudio
from inspection.labelling.project import ensure_project
from inspection.labelling.pull import pull_labels
from inspection.labelling.push import push_tasks
from inspection.store.session import Store
from tests.labelling.conftest import make_product
from tests.labelling.helpers import add_pictures, add_verdict
from tests.labelling.live import Answer, RunningServer, answering
from tests.labelling.test_push import Chosen

pytestmark = [pytest.mark.service, pytest.mark.browser, pytest.mark.slow]


@contextmanager
def picture_server(fetched: list[str]) -> Iterator[str]:
    """Serves one grey picture of 200 x 100 pixels at every address, as the hub does: for pages of other origins too."""
    body = cv2.imencode(".png", np.full((100, 200, 3), 150, np.uint8))[1].tobytes()

    def serve(request: http.server.BaseHTTPRequestHandler) -> Answer:
        fetched.append(request.path)
        return 200, body, {"Content-Type": "image/png", "Access-Control-Allow-Origin": "*"}

    with answering(serve) as url:
        yield url


def log_in(page: Any, server: RunningServer) -> None:
    """As the operator."""
    page.set_default_timeout(60_000)
    page.goto(f"{server.url}/user/login/")
    page.fill("input[name=email]", server.user)
    page.fill("input[name=password]", server.password)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda address: "login" not in address)


def test_one_key_and_submit_answer_a_task_that_shows_picture_class_and_box(
    tmp_path: Path, real_studio: LabelStudio, label_studio_server: RunningServer
) -> None:
    """The model said dent and drew a box; the operator presses 2 (scratch) and submits; nothing outside is contacted."""
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    chromium = shutil.which("chromium") or pytest.skip("no chromium program")
    server, product, fetched = label_studio_server, make_product("browser"), list[str]()
    asked: list[str] = []
    with (
        Store.open(f"sqlite:///{tmp_path / 'a.db'}", f"file://{tmp_path / 'blobs'}") as store,
        picture_server(fetched) as url,
    ):
        with store.begin() as session:
            save_product(session, product)
        (picture,) = add_pictures(store, product, 1)
        drawn = Box(x=20, y=10, width=100, height=50, label="dent")
        add_verdict(store, product, Decision.NG, "dent", {"good": 0.2, "dent": 0.7, "scratch": 0.1}, drawn)
        project = ensure_project(real_studio, product)
        push_tasks(store, real_studio, product, project, [Chosen(picture, verdict="v1")], (url + "/p/{}").format)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.on("request", lambda request: asked.append(request.url))
            log_in(page, server)
            page.goto(f"{server.url}/projects/{project}/data?labeling=1")
            page.get_by_text("Part P0 | station line-1").wait_for(timeout=90_000)
            page.locator("canvas").first.wait_for()
            assert page.get_by_role("radio", checked=True).count() == 1
            page.keyboard.press("2")
            with page.expect_response(lambda r: "/annotations" in r.url and r.request.method == "POST") as answered:
                page.get_by_test_id("bottombar-submit-button").click()
            assert answered.value.ok
            browser.close()
        assert any(picture in path for path in fetched)
        assert [a for a in asked if "//127.0.0.1" not in a and not a.startswith(("data:", "blob:"))] == []
        assert pull_labels(store, real_studio, product, project).merged.answered == 1
        with store.begin() as session:
            label = current_labels(session, product)[picture]
        assert (label.label, label.boxes) == ("scratch", [drawn])
