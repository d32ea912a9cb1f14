"""The record of one supervised program: how it is started, how one sees that it is healthy, what it leans on.

Invariants: a record is complete (the environment is the whole environment, not an addition) and starting it twice does
the same. Secrets are in ``env`` and ``login`` only, which ``repr`` leaves out.
"""

import functools
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import httpx

from inspection.up.rules import Answer, Phase


class Health(Protocol):
    """How one sees that a program is well."""

    def check(self, timeout_seconds: float) -> Answer | bool:
        """One look; must return within about the time given. True is well, False is silent."""
        ...


@functools.cache
def _authorities() -> ssl.SSLContext:
    """Read once: reading them at every look took an eighth of a core."""
    return httpx.create_ssl_context(trust_env=False)


@dataclass(frozen=True)
class HttpHealth:
    """Well when GET ``url`` answers 200, unwell when it answers anything else (no redirects, no proxies)."""

    url: str

    def check(self, timeout_seconds: float) -> Answer:
        """One look; an unreachable or slow server is silent."""
        try:
            answer = httpx.get(self.url, timeout=timeout_seconds, trust_env=False, verify=_authorities())
        except httpx.HTTPError:
            return Answer.SILENT
        return Answer.WELL if answer.status_code == httpx.codes.OK else Answer.UNWELL


@dataclass(frozen=True)
class FileHealth:
    """Well while ``path`` exists and was touched less than ``max_age_seconds`` ago, else silent; removed before a start."""

    path: Path
    max_age_seconds: float

    def check(self, timeout_seconds: float) -> Answer:  # noqa: ARG002 - the same call for both kinds of health
        """One look."""
        try:
            fresh = time.time() - self.path.stat().st_mtime < self.max_age_seconds
        except FileNotFoundError:
            fresh = False
        return Answer.WELL if fresh else Answer.SILENT

    def forget(self) -> None:
        """Remove what an earlier life left."""
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Service:
    """One program. ``port`` 0 means that it listens nowhere; ``address`` is what a person opens.

    ``seed`` is (prepared file, place in the state folder): copied before a start when there is none at its place yet.
    """

    name: str
    title: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    cwd: Path
    health: Health
    depends_on: tuple[str, ...] = ()
    ready_seconds: float = 120.0
    host: str = "127.0.0.1"
    port: int = 0
    address: str = ""
    login: str = field(default="", repr=False)
    seed: tuple[Path, Path] | None = None


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
