"""The whole embedded set, with the real MLflow, Prefect and Label Studio, under the supervisor."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from inspection.settings import Settings
from inspection.up import leftovers
from inspection.up.compose import find_label_studio, temporary_settings
from inspection.up.machine import Problem
from inspection.up.rules import Phase
from inspection.up.supervisor import Supervisor
from tests.up.conftest import until

pytestmark = [pytest.mark.service, pytest.mark.slow]


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    """A temporary state folder."""
    with temporary_settings() as settings:
        yield settings


@pytest.fixture(scope="module")
def up(settings: Settings) -> Iterator[Supervisor]:
    """The whole set, started once."""
    if isinstance(problem := find_label_studio(os.environ), Problem):
        pytest.skip(str(problem))
    with Supervisor(settings, environment=os.environ) as up:
        yield up
    assert leftovers.find(leftovers.state_mark(settings.state)) == []


def ours(settings: Settings) -> list[psutil.Process]:
    """Every process that carries the mark of the state folder."""
    return leftovers.find(leftovers.state_mark(settings.state))


def test_every_server_answers_at_the_address_shown(up: Supervisor) -> None:
    """Pages, not only health; the console of the hub with the log-in shown."""
    assert [service.name for service in up.services] == ["hub", "label-studio", "mlflow", "prefect", "flows"]
    for service in up.services:
        assert service.phase is Phase.HEALTHY
        if service.address:
            user, _, password = service.login.partition(" / ")
            login = httpx.BasicAuth(user, password) if service.name == "hub" else None
            answer = httpx.get(service.address, follow_redirects=True, timeout=30, auth=login)
            assert answer.status_code == 200, service.name


def test_everything_listens_on_loopback_only(up: Supervisor, settings: Settings) -> None:
    """All descendants included."""
    listening = {
        connection.laddr.ip
        for process in ours(settings)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN and connection.laddr
    }
    assert listening == {"127.0.0.1"}
    assert len(ours(settings)) >= len(up.services)


def test_no_secret_is_seen_in_ps_or_in_a_log(up: Supervisor, settings: Settings) -> None:
    """Neither on a command line nor in what the servers wrote when they started."""
    shown = [" ".join(process.cmdline()) for process in ours(settings)]
    shown += [service.log.read_text() for service in up.services]
    for name, value in settings.secrets:
        assert not [text for text in shown if value.get_secret_value() in text], name


def test_label_studio_knows_the_token_and_refuses_strangers(up: Supervisor, settings: Settings) -> None:
    """The secrets of the state folder are the ones in force, also when its database came prepared."""
    url = f"{settings.label_studio_url}/api/projects/"
    token = settings.secrets.label_studio_token.get_secret_value()
    assert httpx.get(url, headers={"Authorization": f"Token {token}"}, timeout=30).status_code == 200
    assert httpx.get(url, headers={"Authorization": f"Token {'0' * 40}"}, timeout=30).status_code == 401


def test_another_web_page_may_not_use_prefect(up: Supervisor, settings: Settings) -> None:
    """Its API has no log-in: only its own pages are let in by a browser."""
    headers = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"{settings.prefect_url}/api/flows/filter", headers=headers, timeout=30)
    assert "access-control-allow-origin" not in answer.headers
    headers["Origin"] = settings.prefect_url
    answer = httpx.options(f"{settings.prefect_url}/api/flows/filter", headers=headers, timeout=30)
    assert answer.headers["access-control-allow-origin"] == settings.prefect_url


@pytest.mark.browser
def test_prefects_pages_reach_its_api(up: Supervisor, settings: Settings) -> None:
    """They must ask the port it serves on, not the one Prefect usually has."""
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    chromium = shutil.which("chromium") or pytest.skip("no chromium program")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(f"{settings.prefect_url}/deployments")
        page.get_by_text("Deployments").first.wait_for(timeout=60_000)
        assert "Can't connect" not in page.content()
        browser.close()


@pytest.mark.fault
@pytest.mark.parametrize("name", ["hub", "label-studio", "mlflow", "prefect", "flows"])
def test_what_is_killed_comes_back_at_its_address(up: Supervisor, name: str) -> None:
    """A second process of the killed program, which may hold the port, does not stand in the way of the new one."""
    before = up.service(name)
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    until(lambda: up.service(name).starts == before.starts + 1 and up.service(name).phase is Phase.HEALTHY, 200)
    assert up.service(name).address == before.address
    until(lambda: all(service.phase is Phase.HEALTHY for service in up.services), 200)


def test_the_command_prints_addresses_and_leaves_nothing_when_stopped(tmp_path: Path) -> None:
    """Exit code 0, ports released, the temporary folder removed."""
    command = [sys.executable, "-m", "tests.up.up", "hub,flows,label-studio,prefect"]
    environment = {**os.environ, "COLUMNS": "160", "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as running:
        assert running.stdout is not None
        lines = []
        for line in running.stdout:
            lines.append(line)
            if line.startswith("State: "):
                break
        running.send_signal(signal.SIGINT)
        lines += running.stdout.readlines()
    text = "".join(lines)
    assert running.returncode == 0, text
    (address,) = set(re.findall(r"http://127\.0\.0\.1:\d+", text))
    with pytest.raises(httpx.ConnectError):
        httpx.get(address)
    assert list(tmp_path.glob("escapement-*")) == []
