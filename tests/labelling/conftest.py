"""A real Label Studio for the service tests (one per session), and what the unit tests start from."""

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from inspection.contracts import Limits
from inspection.data.product import Product
from inspection.labelling.port import LabelStudio
from inspection.labelling.server import label_studio_command, label_studio_environment
from inspection.labelling.studio import connect
from tests.labelling.fake import FakeStudio

REPOSITORY = Path(__file__).parents[2]
START_SECONDS = 240.0


@dataclass(frozen=True)
class RunningServer:
    """Where the real server is, and how to log in."""

    url: str
    user: str
    password: str
    token: str


def _executable() -> str:
    own = REPOSITORY / ".venv-label-studio" / "bin" / "label-studio"
    named = os.environ.get("ESCAPEMENT_LABEL_STUDIO")
    found = named or (str(own) if own.exists() else shutil.which("label-studio"))
    if not found or not shutil.which(found):
        pytest.skip("no label-studio program: make its environment, or set ESCAPEMENT_LABEL_STUDIO")
    return found


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, f"Label Studio ended: {log.read_text()[-2000:]}"
        try:
            if httpx.get(f"{url}/health", timeout=5, trust_env=False).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    raise AssertionError(f"Label Studio was not healthy in {START_SECONDS} s: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def label_studio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Label Studio on a free loopback port with a fresh database; stopped afterwards."""
    program, folder, port = _executable(), tmp_path_factory.mktemp("label-studio"), free_port()
    server = RunningServer(
        f"http://127.0.0.1:{port}", "operator@escapement.example", secrets.token_urlsafe(12), secrets.token_hex(20)
    )
    env = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    env |= label_studio_environment(folder / "data", server.user, server.password, server.token)
    log = folder / "log.txt"
    with log.open("wb") as out:
        process = subprocess.Popen(
            label_studio_command(program, port), env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
        try:
            _wait_until_healthy(process, server.url, log)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def real_studio(label_studio_server: RunningServer) -> Iterator[LabelStudio]:
    """A connection to the real server by its legacy token."""
    with connect(label_studio_server.url, label_studio_server.token) as studio:
        yield studio


@pytest.fixture
def fake_studio() -> FakeStudio:
    """An empty Label Studio in memory."""
    return FakeStudio()


def make_product(name: str = "valve", *more: str) -> Product:
    """A product with one good and two defect classes, and ``more``."""
    return Product(
        name=name,
        good_class="good",
        classes=["good", "scratch", "dent", *more],
        limits=Limits(escape_rate=0.01, overkill_rate=0.05),
    )


@pytest.fixture
def product() -> Product:
    """The product of most tests."""
    return make_product()
