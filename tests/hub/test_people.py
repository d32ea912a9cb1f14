"""The pages: behind a password, complete, and harmless whatever a device wrote."""

from html.parser import HTMLParser

import httpx
import pytest

from inspection.data.intake import accept_verdicts
from inspection.hub.pages import ago, count, passport_href, percent, size
from inspection.settings import Settings
from inspection.store.session import Store
from inspection.store.tables import BundleRow, utc_now
from tests.hub.helpers import PASSWORD_USER, png, verdict
from tests.hub.seed import HOSTILE, NEW, RECIPE, hostile_part, seed_line


class Page(HTMLParser):
    """The text of a page, its elements, and every address it names."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.elements, self.addresses, self.handlers = "", [], [], []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "action")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("path", ["/", "/parts/P1", "/parts?part=P1"])
def test_pages_ask_for_the_password(anyone: httpx.Client, path: str) -> None:
    """A browser is asked to log in."""
    answer = anyone.get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic")


def test_guessing_the_password_is_slowed_down(anyone: httpx.Client, settings: Settings) -> None:
    """Five wrong tries, then even the right password must wait."""
    wrong = [("engineer", "x"), ("x", settings.secrets.console_password.get_secret_value()), *[("a", "b")] * 4]
    assert [anyone.get("/", auth=pair).status_code for pair in wrong] == [401] * 5 + [429]
    right = (PASSWORD_USER, settings.secrets.console_password.get_secret_value())
    assert anyone.get("/", auth=right).status_code == 429


def test_an_empty_hub_says_what_to_do_next(engineer: httpx.Client) -> None:
    """No station has a device yet: the page is whole and says so."""
    text = Page(engineer.get("/").text).text
    for said in ("press-1", "none enrolled", "No rollout yet", "No label yet", "Nothing was refused"):
        assert said in text


def test_the_console_shows_the_line(engineer: httpx.Client, store: Store) -> None:
    """Stations, ledger, escape with its interval, rollout, gates, promotions, quarantine: on one page."""
    seed_line(store, judged=60, audited=12, escaped=1)
    answer = engineer.get("/")
    text = " ".join(Page(answer.text).text.split())
    for said in (
        "does not close",
        "cam-2 is in HOLD and passes no part: camera gave no frame for 2 s",
        "silent, last seen 7 min ago",
        "Of 12 audited passed parts 1 was defective",
        NEW[:12],
        "press-1: 90 of 20 verdicts",
        "19 more defective parts are needed",
        "flow retrain",
        "not a picture4",
        "label studio answers",
    ):
        assert said in text, said


def test_no_page_loads_anything_from_elsewhere(engineer: httpx.Client, store: Store, settings: Settings) -> None:
    """A factory network has no internet; the policy forbids scripts besides."""
    seed_line(store, judged=30, audited=2, escaped=0)
    answer = engineer.get("/")
    page = Page(answer.text)
    own = (settings.label_studio_url, settings.mlflow_url, settings.prefect_url)
    assert "script" not in page.elements
    assert all(address.startswith(("/", *own)) for address in page.addresses), page.addresses
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert engineer.get("/static/hub.css").headers["content-type"].startswith("text/css")


def test_a_passport_shows_every_link_of_the_chain(engineer: httpx.Client, store: Store) -> None:
    """Picture, box, scores, thresholds, bundle, run, snapshot, promise, label, timings."""
    seed_line(store, judged=60, audited=2, escaped=0)
    part = next(p for p in _parts(engineer) if p.startswith("/parts/1-"))
    page = Page(engineer.get(part).text)
    assert {"image", "rect", "svg"} <= set(page.elements)
    text = " ".join(page.text.split())
    chain = (
        "mobilenetv4_conv_small",
        "4f6b0f2c9a3e4d0f8f5a1b2c3d4e5f60",
        "any defect",
        "at most 2.0% of defective parts score below 0.400 and pass",
        "infer 2.3 ms",
        "L2231",
        "operator@",
    )
    for said in chain:
        assert said in text, said
    picture = next(address for address in page.addresses if address.startswith("/p/"))
    assert engineer.get(picture).headers["content-type"] == "image/png"


def test_known_parts_are_shown_as_such_and_not_counted(engineer: httpx.Client, store: Store) -> None:
    """A challenge has its passport and its place among the last parts; the station's counts are without it."""
    with store.begin() as session:
        accept_verdicts(session, [verdict(1), verdict(2, purpose="challenge"), verdict(3, purpose="challenge")])
    console = " ".join(Page(engineer.get("/").text).text.split())
    assert " 0 1 0 0 " in console
    assert "P00003 NG challenge P00002 NG challenge P00001 NG" in console
    said = {part: " ".join(Page(engineer.get(f"/parts/{part}").text).text.split()) for part in ("P00001", "P00002")}
    assert "NG challenge scratch" in said["P00002"]
    assert "challenge" not in said["P00001"]


def test_a_passport_says_why_an_unfamiliar_part_was_not_passed(engineer: httpx.Client, store: Store) -> None:
    """The words, the novelty and the limit; nothing of it where the model says none."""
    seed_line(store, judged=60, audited=2, escaped=0)
    words = "unlike anything the model has learnt: novelty 0.94, limit 0.83"
    strange = {"decision": "INCONCLUSIVE", "defect_class": None, "reason": words, "novelty": 0.94, "recipe_digest": RECIPE}
    with store.begin() as session:
        row = session.get_one(BundleRow, RECIPE)
        row.body = row.body | {"unfamiliar": 0.83}
        accept_verdicts(session, [verdict(90_001, **strange), verdict(90_002)])
    said = {part: " ".join(Page(engineer.get(f"/parts/{part}").text).text.split()) for part in ("P90001", "P90002")}
    assert words in said["P90001"]
    assert "Novelty 0.940: how far the picture lies from good ones; unfamiliar from 0.830." in said["P90001"]
    assert "ovelty" not in said["P90002"]


def _parts(engineer: httpx.Client) -> list[str]:
    return [address for address in Page(engineer.get("/").text).addresses if address.startswith("/parts/")]


def test_markup_from_a_device_is_text(engineer: httpx.Client, store: Store) -> None:
    """Part ids and class names may hold anything: pages show it and run nothing."""
    hostile_part(store)
    for path in ("/", passport_href(HOSTILE)):
        answer = engineer.get(path)
        assert answer.status_code == 200
        page = Page(answer.text)
        assert HOSTILE in page.text
        assert page.handlers == []
        assert "script" not in page.elements
        assert "img" not in page.elements
    assert "<svg/onload=alert(1)>" in page.text
    assert "</p><script>alert(2)</script>" in page.text


@pytest.mark.parametrize("part", ["..", ".", "../../secrets.json", "a b/c", "100%", "ä?#", "%2e%2e"])
def test_a_part_may_be_named_like_a_path(engineer: httpx.Client, part: str) -> None:
    """A part id is looked up as it is, and never as a file."""
    answer = engineer.get(passport_href(part))
    assert answer.status_code == 404
    assert f"Part {part}" in Page(answer.text).text
    assert "No verdict about this part" in answer.text


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2f__main__.py", "/static/"])
def test_static_files_end_at_their_folder(anyone: httpx.Client, path: str) -> None:
    """The style sheet is served, the program is not."""
    request = anyone.build_request("GET", path)
    request.url = request.url.copy_with(raw_path=path.encode())
    assert anyone.send(request).status_code == 404


def test_numbers_read_well() -> None:
    """What the templates use to write numbers for people."""
    assert (percent(0.0123), percent(0.5), percent(1.0)) == ("1.23 %", "50.0 %", "100.0 %")
    assert count(1234567) == "1\u202f234\u202f567"
    assert (size(512), size(2048), size(len(png()) * 0 + 3 * 2**30)) == ("512 B", "2.0 KiB", "3.0 GiB")
    assert (ago(None), ago(utc_now())) == ("never", "just now")
