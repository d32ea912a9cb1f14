"""The station's page in a real browser: verdicts come by themselves, an old one never stays, nothing from outside runs."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.inspecting import Active
from edge_agent.ledger import LedgerLine
from edge_agent.page import PageServer
from edge_agent.wiring import Page
from inspection.contracts import AgentState, Mode
from tests.edge_agent.helpers import picture
from tests.edge_agent.test_page import HOSTILE, Stage, until

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PIN = "2468"
WAIT_MS = 30_000
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed"),
]


class Shown(Stage):
    """A station with a page, whose loop goes round by itself."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, trigger="free")
        (folder / "pin").write_text(PIN)
        self.goes_round = True
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat)
        self.serve = lambda port: PageServer(Page(port=port, pin_file=str(folder / "pin")), self.board, self.facts)
        self.server = self.serve(0)

    def _beat(self) -> None:
        while not self._end.wait(0.2):
            if self.goes_round:
                self.board.alive()

    def __enter__(self) -> "Shown":
        self._thread.start()
        self.server.start()
        self.port = until(lambda: self.server.port)
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self.server.stop()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Shown]:
    with Shown(tmp_path) as shown:
        yield shown


@pytest.fixture
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield chromium
        chromium.close()


@contextlib.contextmanager
def looking(browser: Any, stage: Shown, path: str = "/", **how: Any) -> Iterator[Any]:
    """A page, on which nothing may go wrong nor come from elsewhere. (playwright may be missing, so it gives no types.)"""
    page = browser.new_page(viewport={"width": 800, "height": 480}, **how)
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda message: wrong.append(message.text) if "Security Policy" in message.text else None)
    page.goto(f"http://127.0.0.1:{stage.port}{path}")
    page.wait_for_selector("body:not(.covered)", timeout=WAIT_MS)
    yield page
    assert wrong == []
    assert all(url.startswith(f"http://127.0.0.1:{stage.port}/") for url in asked), asked
    page.close()


def says(page: Any, selector: str, text: str) -> None:
    """Wait until an element says this. (Playwright's `wait_for_function` may need `eval`, which the page forbids.)"""
    playwright.expect(page.locator(selector)).to_contain_text(text, timeout=WAIT_MS)


def keep(page: Any, name: str) -> None:
    folder = os.environ.get("ESCAPEMENT_SCREENSHOTS")
    if folder:
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_verdict_appears_by_itself_with_its_picture_and_map(browser: Any, stage: Shown, scheme: str) -> None:
    """No reload: the word, the part, the picture, the boxes and the map; a touch hides and shows them; all fits."""
    with looking(browser, stage, color_scheme=scheme) as page:
        says(page, "#word", "READY")
        stage.show(picture(1, size=(480, 640)), "A-1")
        says(page, "#word", "OK")
        says(page, "#part", "A-1")
        stage.show(picture(2, scratch=255), "A-2", lot="L7")
        says(page, "#word", "NG")
        says(page, "#why", "scratch, score 1.00")
        page.wait_for_selector("#boxes rect", state="attached", timeout=WAIT_MS)
        playwright.expect(page.locator("#photo")).to_have_attribute("width", "64", timeout=WAIT_MS)
        assert page.get_attribute("#heat", "href").endswith(".png")
        assert page.locator("#heat").is_visible()
        page.click("#view")
        assert not page.locator("#heat").is_visible()
        assert page.locator("#history li").count() == 2
        says(page, "#today", "50.0 %")
        keep(page, f"station-ng-{scheme}")
        fits = "document.documentElement.scrollHeight <= innerHeight && document.documentElement.scrollWidth <= innerWidth"
        assert page.evaluate(fits)


def test_the_last_reject_can_be_looked_at_while_parts_go_on(browser: Any, stage: Shown) -> None:
    """Its picture stays, with its name."""
    with looking(browser, stage) as page:
        stage.show(picture(2, scratch=255), "bad-1")
        says(page, "#word", "NG")
        page.click("#show-reject")
        for number in range(5):
            stage.show(picture(number), f"good-{number}")
        says(page, "#part", "good-4")
        says(page, "#caption", "bad-1: NG")
        page.click("#show-last")
        playwright.expect(page.locator("#caption")).to_have_text("", timeout=WAIT_MS)


def test_a_red_ledger_and_a_hold_cannot_be_overlooked(browser: Any, stage: Shown) -> None:
    """A banner, a red line, and in HOLD no verdict at all."""
    with looking(browser, stage) as page:
        stage.show(picture(1), "A-1")
        says(page, "#word", "OK")
        assert page.locator("#lines li.bad").count() == 0
        stage.line = LedgerLine(False, "ledger does not close: 1 missing")
        page.wait_for_selector("#banners .ledger", timeout=WAIT_MS)
        assert "1 missing" in page.inner_text("#lines li.bad")
        stage.active, stage.state = Active(None, Mode.JUDGE), AgentState.HOLD
        says(page, "#word", "HOLD")
        keep(page, "station-hold")


def test_what_comes_from_outside_is_text(browser: Any, stage: Shown) -> None:
    """Part, lot, reason, connection, trouble and the name of a known part: shown as they are, never run."""
    stage.connections = {HOSTILE: {"ok": False, "text": HOSTILE}}
    stage.problem = HOSTILE
    with looking(browser, stage) as page:
        stage.show(None, HOSTILE, lot="<img src=x onerror=alert(1)>", fault=HOSTILE)
        says(page, "#word", "ERROR")
        assert page.inner_text("#part") == HOSTILE
        assert page.inner_text("#why") == HOSTILE
        page.click("#lines")
        assert page.inner_text("#details").count(HOSTILE) >= 4
        assert page.locator("script").count() == 1
        assert page.locator("img").count() == 0
        keep(page, "station-hostile")


def test_an_ok_goes_when_the_loop_stops_or_the_agent_is_lost(browser: Any, stage: Shown) -> None:
    """STOPPED, then covered; when an agent is there again the page comes back by itself."""
    with looking(browser, stage) as page:
        stage.show(picture(1), "A-1")
        says(page, "#word", "OK")
        stage.goes_round = False
        says(page, "#word", "STOPPED")
        stage.goes_round = True
        says(page, "#word", "OK")
        stage.server.stop()
        page.wait_for_selector("#lost", state="visible", timeout=WAIT_MS)
        says(page, "#lost-word", "NO CONNECTION")
        keep(page, "station-lost")
        stage.server = stage.serve(stage.port)
        stage.server.start()
        page.wait_for_selector("#lost", state="hidden", timeout=WAIT_MS)
        says(page, "#word", "OK")


def test_a_state_that_grows_old_is_covered_too(browser: Any, stage: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent's page answers, but knows nothing new: the last OK must not stand."""
    with looking(browser, stage) as page:
        stage.show(picture(1), "A-1")
        says(page, "#word", "OK")
        monkeypatch.setattr("edge_agent.page.view.words.headline", lambda *_: 1 / 0)
        says(page, "#lost-word", "NO ANSWER")
        assert page.locator("#lost").is_visible()
        monkeypatch.undo()
        page.wait_for_selector("#lost", state="hidden", timeout=WAIT_MS)


def test_a_challenge_from_the_touch_screen(browser: Any, stage: Shown) -> None:
    """Plan, PIN on the screen's keys, part by part, and the result in large words."""
    with looking(browser, stage, "/challenge") as page:
        for _ in range(3):
            page.click("[data-kind=NG][data-by='-1']")
        page.click("[data-kind=OK][data-by='1']")
        page.locator("#parts input").first.fill(HOSTILE)
        assert page.is_checked("#confirm"), "a camera that runs by itself needs a tap per part"
        page.click("#start")
        enter(page, "1111")
        says(page, "#said", "wrong PIN")
        page.click("#start")
        enter(page, PIN)
        for number, scratch in enumerate((255, 0, 0)):
            says(page, "#step", f"Show part {number + 1} of 3")
            page.click("#there")
            until(lambda: stage.board.challenges.armed)
            stage.show(picture(number, scratch=scratch), f"known-{number}")
        says(page, "#conclusion", "LETS BAD PARTS THROUGH")
        says(page, "#summary", "Caught 1 of 2 known-bad parts. MISSED: part 2. Passed 1 of 1 known-good parts.")
        says(page, "#steps", HOSTILE)
        keep(page, "station-challenge")


def enter(page: Any, pin: str) -> None:
    """By the keys on the screen."""
    page.wait_for_selector("#keypad[open]", timeout=WAIT_MS)
    for digit in pin:
        page.locator("#keys button", has_text=digit).first.click()
    page.click("#give-pin")


def test_without_a_pin_there_is_nothing_to_press(browser: Any, stage: Shown) -> None:
    """No way to the challenge from the station, and no form on its page."""
    port = stage.port
    stage.server.stop()
    stage.server = PageServer(Page(port=port), stage.board, stage.facts)
    stage.server.start()
    until(lambda: stage.server.port)
    with looking(browser, stage) as page:
        says(page, "#word", "READY")
        assert not page.locator("#to-challenge").is_visible()
    with looking(browser, stage, "/challenge") as page:
        page.wait_for_selector("#read-only", state="visible", timeout=WAIT_MS)
        assert not page.locator("#plan").is_visible()
