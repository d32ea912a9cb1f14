"""One life after another of one supervised program: starting it, looking at it, ending it and all it started.

Invariants: at most one life at a time; a look never waits for a slow health check (one check at most is under way, in a
thread of the pool); an answer that belongs to an earlier life is not counted; after ``end`` nothing that carries the
program's mark is alive.
"""

import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path

import psutil

from inspection.up import leftovers, logs
from inspection.up.rules import Answer, Limits, Phase, Seen, Watch
from inspection.up.service import FileHealth, Service

_LEFTOVER_SECONDS = 2.0
_FULL_BYTES = 16 * 1024 * 1024


class Child:
    """The supervisor's hold on one program. Used by one thread, but for the reading of ``watch`` and ``pid``."""

    def __init__(self, service: Service, log: Path, mark: tuple[str, str], limits: Limits, pool: Executor) -> None:
        self.service = service
        self.log = log
        self.watch = Watch()
        self._mark = mark
        self._limits = limits
        self._pool = pool
        self._process: subprocess.Popen[bytes] | None = None
        self._trouble: str | None = None
        self._check: Future[Answer | bool] | None = None
        self._checked_at = 0.0
        self._answer: Answer | None = None

    @property
    def pid(self) -> int | None:
        """The program's pid while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def start(self) -> None:
        """Begin a life. A program that cannot be started counts as one that died at once."""
        self._check, self._answer, self._trouble, self._checked_at = None, None, None, 0.0
        state, instance = self._mark
        env = {**self.service.env, leftovers.MARK: f"{state}:{instance}", leftovers.SERVICE: self.service.name}
        try:
            if isinstance(self.service.health, FileHealth):
                self.service.health.forget()
            self.service.cwd.mkdir(parents=True, exist_ok=True)
            if self.service.seed is not None:
                _plant(*self.service.seed)
            with logs.open_log(self.log, self._limits.log_bytes) as log:
                self._process = subprocess.Popen(
                    self.service.command,
                    env=env,
                    cwd=self.service.cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # a Ctrl-C at the terminal reaches the supervisor only
                )
        except OSError as error:
            self._process, self._trouble = None, f"could not be started: {error}"

    def look(self, now: float, dependencies_healthy: Callable[[], bool]) -> Seen:
        """What is to be seen now; begins a health check when it is time for one."""
        ended = self._ended() if self.watch.phase in {Phase.STARTING, Phase.HEALTHY} else None
        if ended is None and self._process is not None:
            self._look_at_health(now)
        return Seen(ended, self._answer, dependencies_healthy())

    def _ended(self) -> str | None:
        if self._process is None:
            return self._trouble or "was not started"
        code = self._process.poll()
        if code is None:
            return None
        return how_it_ended(code, psutil.disk_usage(str(self.service.cwd)).free)

    def _look_at_health(self, now: float) -> None:
        if self._check is not None and self._check.done():
            self._answer, self._check = _answer_of(self._check.result()), None
        steady = self.watch.phase is Phase.HEALTHY
        every = self._limits.health_seconds if steady else self._limits.health_first_seconds
        if self._check is None and now - self._checked_at >= every:
            self._checked_at = now
            self._check = self._pool.submit(self.service.health.check, self._limits.health_timeout_seconds)

    def ask_to_end(self) -> None:
        """TERM to the program itself; does not wait."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def reap(self) -> None:
        """Notice that the program has ended, without waiting."""
        if self._process is not None:
            self._process.poll()

    def end(self, grace_seconds: float) -> None:
        """TERM, KILL after ``grace_seconds``, wait; then the same for whatever the program left behind."""
        self.ask_to_end()
        if self._process is not None:
            try:
                self._process.wait(grace_seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        state, instance = self._mark
        leftovers.sweep(state, instance=instance, service=self.service.name, grace_seconds=_LEFTOVER_SECONDS)
        self._process = None

    def bound_log(self) -> None:
        """Keep the log of a long life within bounds."""
        logs.bound(self.log, self._limits.log_bytes)


def how_it_ended(code: int, free_bytes: int) -> str:
    """An exit code (negative: a signal) in words, with the likely cause when the disk has no room left."""
    words = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    if free_bytes < _FULL_BYTES:
        words += f"; the disk is full ({free_bytes // 2**20} MiB free), which is the likely cause: free some space"
    return words


def _answer_of(result: Answer | bool) -> Answer:
    if isinstance(result, Answer):
        return result
    return Answer.WELL if result else Answer.SILENT


def _plant(prepared: Path, place: Path) -> None:
    """Copy, in one step that is seen whole or not at all, unless something is there already or nothing is prepared."""
    if place.exists() or not prepared.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(place.name + ".part")
    shutil.copyfile(prepared, partial)
    partial.replace(place)


def monotonic() -> float:
    """The clock of supervision, in seconds; it stands still while the machine sleeps."""
    return time.monotonic()
