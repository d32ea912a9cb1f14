"""Real, tiny programs to supervise."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from inspection.settings import Settings, load_settings
from inspection.up.machine import free_ports
from inspection.up.rules import Limits
from inspection.up.service import Event, HttpHealth, Service
from inspection.up.supervisor import Supervisor

PROGRAM = Path(__file__).with_name("program.py")
QUICK = Limits(
    stable_seconds=30,
    hang_seconds=0.6,
    backoff_first_seconds=0.05,
    backoff_max_seconds=0.2,
    give_up_deaths=3,
    give_up_first_deaths=2,
    stop_seconds=1.0,
    health_seconds=0.1,
    health_first_seconds=0.05,
    health_timeout_seconds=0.3,
    tick_seconds=0.02,
)


def service(name: str, port: int, folder: Path, *wishes: str, depends_on: tuple[str, ...] = ()) -> Service:
    """A service that runs ``program.py``."""
    return Service(
        name=name,
        title=name.capitalize(),
        command=(sys.executable, "-S", str(PROGRAM), str(port), str(folder), *wishes),
        env={"PATH": os.environ["PATH"]},
        cwd=folder,
        health=HttpHealth(f"http://127.0.0.1:{port}/"),
        depends_on=depends_on,
        ready_seconds=20,
        port=port,
    )


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a condition; fail the test when it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


@pytest.fixture
def port() -> int:
    """A free port."""
    return free_ports("127.0.0.1", 1)[0]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of an empty state folder."""
    return load_settings(tmp_path / "state", {})


class Ups:
    """Makes supervisors and keeps what they said."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.events: list[Event] = []

    @contextmanager
    def __call__(self, *services: Service) -> Iterator[Supervisor]:
        with Supervisor(self.settings, environment={}, services=services, limits=QUICK, on_event=self.events.append) as up:
            yield up

    def said(self, kind: str) -> list[str]:
        """The services that had an event of this kind, in order."""
        return [event.service for event in self.events if event.kind == kind]


@pytest.fixture
def ups(settings: Settings) -> Ups:
    """Supervisors with short limits on one state folder."""
    return Ups(settings)
