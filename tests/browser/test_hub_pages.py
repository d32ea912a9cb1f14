"""The hub's pages in a real browser: they draw, they load nothing from elsewhere, nothing a device wrote runs."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from inspection.hub.pages import passport_href
from inspection.settings import Settings, load_settings
from inspection.store.session import Store
from tests.hub.conftest import serving
from tests.hub.helpers import PASSWORD_USER, seed_product
from tests.hub.seed import HOSTILE, hostile_part, seed_line

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed"),
]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(tmp_path / "state", {})


@pytest.fixture
def address(settings: Settings) -> Iterator[str]:
    with Store.open(settings.database_url, settings.blob_url) as store:
        with store.begin() as session:
            seed_product(session)
        seed_line(store)
        hostile_part(store)
        with serving(settings, store) as url:
            yield url


@pytest.fixture
def browser() -> Iterator[object]:
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield chromium
        chromium.close()


def _open(browser: object, settings: Settings, *, scheme: str = "light", width: int = 1280) -> object:
    password = settings.secrets.console_password.get_secret_value()
    return browser.new_page(  # type: ignore[attr-defined]  # playwright may be missing, so its types are not imported
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        http_credentials={"username": PASSWORD_USER, "password": password},
    )


def _keep(page: object, name: str) -> None:
    folder = os.environ.get("ESCAPEMENT_SCREENSHOTS")
    if folder:
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)  # type: ignore[attr-defined]  # ditto


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 420)])
def test_pages_draw_and_load_only_from_the_hub(
    browser: object, address: str, settings: Settings, scheme: str, width: int
) -> None:
    """Console and passport, light, dark and narrow: no error, no foreign request, the picture is drawn."""
    page = _open(browser, settings, scheme=scheme, width=width)
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address + "/")
    page.wait_for_load_state("networkidle")
    assert "Escape and overkill in the field" in page.inner_text("main")
    _keep(page, f"console-{scheme}-{width}")
    page.locator(".rejects a[href^='/parts/1-']").first.click()
    page.wait_for_load_state("networkidle")
    box = page.locator("svg.picture rect").first.bounding_box()
    assert box is not None
    assert box["width"] > 40, "the defect's box is drawn over the picture"
    _keep(page, f"passport-{scheme}-{width}")
    assert all(url.startswith(address) for url in asked), asked
    assert any("/p/" in url for url in asked)
    assert complaints == []


def test_markup_from_a_device_never_runs(browser: object, address: str, settings: Settings) -> None:
    """No dialog opens, no script element exists, the text is there as it was sent."""
    page = _open(browser, settings)
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    for path in ("/", passport_href(HOSTILE)):
        page.goto(address + path)
        page.wait_for_load_state("networkidle")
        assert HOSTILE in page.inner_text("main")
        assert page.locator("script").count() == 0
    assert dialogs == []
    _keep(page, "passport-hostile")
