"""How one sees that a program is well, and how its end is told."""

import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from inspection.up.child import how_it_ended
from inspection.up.rules import Answer
from inspection.up.service import FileHealth, HttpHealth


class Handler(BaseHTTPRequestHandler):
    """The path is the status it answers."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(int(self.path.strip("/")))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    """A server's address."""
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "answer"), [(200, Answer.WELL), (503, Answer.UNWELL), (302, Answer.UNWELL)])
def test_only_200_is_well_and_any_answer_is_a_sign_of_life(url: str, status: int, answer: Answer) -> None:
    """A redirect to a log-in page is not health."""
    assert HttpHealth(f"{url}/{status}").check(5) is answer


def test_a_port_where_nobody_listens_is_silent(port: int) -> None:
    """Refused is an answer of the kernel, not of the program."""
    assert HttpHealth(f"http://127.0.0.1:{port}/").check(5) is Answer.SILENT


def test_a_heartbeat_file_is_well_while_it_is_fresh(tmp_path: Path) -> None:
    """Missing and stale are silent; what an earlier life left does not count."""
    health = FileHealth(tmp_path / "ready", max_age_seconds=30)
    assert health.check(1) is Answer.SILENT
    health.path.touch()
    assert health.check(1) is Answer.WELL
    old = time.time() - 31
    os.utime(health.path, (old, old))
    assert health.check(1) is Answer.SILENT
    health.forget()
    assert not health.path.exists()


def test_a_death_on_a_full_disk_says_so() -> None:
    """The exit code alone would send the person to the wrong place."""
    assert how_it_ended(-9, 2**40) == "was ended by signal 9"
    assert how_it_ended(1, 3 * 2**20) == (
        "ended with exit code 1; the disk is full (3 MiB free), which is the likely cause: free some space"
    )
