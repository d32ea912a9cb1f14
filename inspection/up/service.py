"""The record of one supervised program: how it is started, how one sees that it is healthy, what it leans on.

Invariants: a record is complete (the environment is the whole environment, not an addition) and starting it twice does
the same. Secrets are in ``env`` and ``login`` only, which ``repr`` leaves out.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from inspection.up.rules import Phase


@dataclass(frozen=True)
class HttpHealth:
    """Healthy when GET ``url`` answers 200 (no redirects, no proxies)."""

    url: str

    def check(self, timeout_seconds: float) -> bool:
        """One look; an unreachable or slow server is not healthy."""
        try:
            answer = httpx.get(self.url, timeout=timeout_seconds, trust_env=False)
        except httpx.HTTPError:
            return False
        return answer.status_code == httpx.codes.OK


@dataclass(frozen=True)
class FileHealth:
    """Healthy while ``path`` exists and was touched less than ``max_age_seconds`` ago. Removed before each start."""

    path: Path
    max_age_seconds: float

    def check(self, timeout_seconds: float) -> bool:  # noqa: ARG002 - the same call for both kinds of health
        """One look."""
        try:
            return time.time() - self.path.stat().st_mtime < self.max_age_seconds
        except FileNotFoundError:
            return False

    def forget(self) -> None:
        """Remove what an earlier life left."""
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Service:
    """One program. ``port`` 0 means that it listens nowhere; ``address`` is what a person opens."""

    name: str
    title: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    cwd: Path
    health: HttpHealth | FileHealth
    depends_on: tuple[str, ...] = ()
    ready_seconds: float = 120.0
    host: str = "127.0.0.1"
    port: int = 0
    address: str = ""
    login: str = field(default="", repr=False)


@dataclass(frozen=True)
class Running:
    """How a supervised program stands right now. ``pid`` is None while it is not running."""

    name: str
    title: str
    pid: int | None
    phase: Phase
    starts: int
    address: str
    login: str = field(repr=False)
    log: Path = Path(os.devnull)
    reason: str = ""


@dataclass(frozen=True)
class Event:
    """Something a person at the terminal wants to read. ``kind``: started, healthy, trouble, given up, stopped."""

    service: str
    kind: str
    message: str
