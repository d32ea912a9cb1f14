"""A real Label Studio, started and stopped."""

import http.server
import itertools
import os
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from inspection.labelling.server import label_studio_command, label_studio_environment
from tests.ports import free_port

REPOSITORY = Path(__file__).parents[2]
START_SECONDS = 240.0


@dataclass(frozen=True)
class RunningServer:
    """Where the real server is, and how to log in."""

    url: str
    user: str
    password: str
    token: str


def find_label_studio() -> str | None:
    """The program: $ESCAPEMENT_LABEL_STUDIO, the checkout's own environment, or on PATH."""
    own = REPOSITORY / ".venv-label-studio" / "bin" / "label-studio"
    named = os.environ.get("ESCAPEMENT_LABEL_STUDIO")
    return shutil.which(named or (own if own.exists() else "label-studio"))


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


@contextmanager
def running_label_studio(program: str, folder: Path) -> Iterator[RunningServer]:
    """Label Studio on a free loopback port, its database in ``folder``; stopped afterwards."""
    port = free_port()
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


Answer = tuple[int, bytes, dict[str, str]]
"""Status, body, headers."""


@contextmanager
def answering(answer: Callable[[http.server.BaseHTTPRequestHandler], Answer]) -> Iterator[str]:
    """A server on a free loopback port that answers every GET as ``answer`` says, without log lines; its address.

    Its Content-Length is the body's, unless the headers say another.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, headers = answer(self)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def cutting_proxy(target: str, whole_pages: int) -> Iterator[str]:
    """A proxy before Label Studio that breaks off in the middle of every page of tasks after the first ones."""
    pages = itertools.count(1)

    def forward(request: http.server.BaseHTTPRequestHandler) -> Answer:
        headers = {"Authorization": request.headers["Authorization"]}
        answer = httpx.get(target + request.path, headers=headers, timeout=60, trust_env=False)
        cut = "fields=all" in request.path and next(pages) > whole_pages
        body = answer.content[: len(answer.content) // 2] if cut else answer.content
        said = {"Content-Type": "application/json", "Content-Length": str(len(answer.content))}
        return answer.status_code, body, said

    with answering(forward) as url:
        yield url
