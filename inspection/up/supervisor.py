"""The supervisor: one thread that starts, watches, restarts and in the end stops a list of services.

Invariants: all programs are started by, and belong to, that one thread; when it ends, however it ends, nothing it
started is alive; when the whole process is killed, the watchdog (``leftovers.py``) sees to the same. One supervisor per
state folder. What the thread could not cope with is kept and raised to whoever waits or stops.
"""

import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from inspection.errors import EnvironmentTroubleError, EscapementError
from inspection.settings import Settings, save_settings
from inspection.up import leftovers, logs, machine
from inspection.up.child import Child, monotonic
from inspection.up.compose import compose
from inspection.up.rules import Action, Limits, Phase, step
from inspection.up.service import Event, Running, Service

TAIL_LINES = 15
LOG_LOOK_SECONDS = 60.0


def _silent(event: Event) -> None:
    del event


class Supervisor:
    """``with Supervisor(settings, environment=os.environ) as up:`` has all services healthy inside the block.

    ``without`` leaves programs of the embedded set out (they run elsewhere), ``services`` replaces the set;
    ``on_event`` is called in the supervisor's thread and must return quickly.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        environment: Mapping[str, str],
        services: Sequence[Service] | None = None,
        without: Collection[str] = (),
        limits: Limits | None = None,
        on_event: Callable[[Event], None] = _silent,
    ) -> None:
        self._settings = settings
        self._services = (
            compose(settings, environment=environment, without=without) if services is None else tuple(services)
        )
        self._limits = limits or Limits()
        self._tell = on_event
        self._mark = (leftovers.state_mark(settings.state), secrets.token_hex(8))
        self._held = ExitStack()
        self._children: dict[str, Child] = {}
        self._changed = threading.Condition()
        self._ending = threading.Event()  # set by the supervisor's thread only
        self._stop_asked = False  # plain values: a signal handler must not take the lock inside an Event
        self._impatient = False
        self._thread: threading.Thread | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._crash: BaseException | None = None
        self._next_log_look = 0.0

    @property
    def marks(self) -> dict[str, str]:
        """Variables for the environment of any further program that must not outlive this supervisor."""
        return {leftovers.MARK: ":".join(self._mark)}

    @property
    def stop_asked(self) -> bool:
        """Whether somebody has asked to stop."""
        return self._stop_asked

    @property
    def services(self) -> tuple[Running, ...]:
        """How each service stands now, in starting order."""
        return tuple(self._running(child) for child in self._children.values())

    def service(self, name: str) -> Running:
        """How one service stands now (KeyError when it is none of ours)."""
        return self._running(self._children[name])

    def start(self) -> None:
        """Take the state folder, stop what a killed `up` left on it, check the machine, begin to supervise.

        EnvironmentTroubleError when something stands in the way; then nothing has been started.
        """
        state = self._settings.state
        with ExitStack() as undo:
            undo.enter_context(machine.state_lock(state))
            for words in leftovers.sweep(self._mark[0]):
                self._tell(Event("up", "trouble", f"stopped {words}, left by an earlier `inspection up`"))
            problems = [machine.disk_problem(state)]
            problems += [machine.port_problem(s, state) for s in self._services if s.port]
            machine.refuse([problem for problem in problems if problem])
            save_settings(self._settings)
            pool = undo.enter_context(ThreadPoolExecutor(len(self._services) + 1, "up-health"))
            self._children = {s.name: self._child(s, state, pool) for s in self._services}
            self._guard()
            self._thread = threading.Thread(target=self._supervise, name="up", daemon=True)
            self._thread.start()
            self._held = undo.pop_all()

    def wait_healthy(self) -> tuple[Running, ...]:
        """Return when every service is healthy. EnvironmentTroubleError with the last log lines when one gave up."""
        with self._changed:
            self._changed.wait_for(self._decided)
        if self._crash is not None:
            raise EscapementError(f"the supervisor itself failed: {self._crash!r}") from self._crash
        for child in self._children.values():
            if child.watch.phase is Phase.GIVEN_UP:
                raise EnvironmentTroubleError(self._why(child))
        if self._ending.is_set():
            raise EnvironmentTroubleError("stopped before every server was up")
        return self.services

    def _decided(self) -> bool:
        phases = {child.watch.phase for child in self._children.values()}
        return self._ending.is_set() or Phase.GIVEN_UP in phases or phases <= {Phase.HEALTHY}

    def wait_stopped(self, timeout_seconds: float | None = None) -> bool:
        """Wait until somebody asks to stop or the supervisor fails; False when the time is over."""
        return self._ending.wait(timeout_seconds)

    def ask_to_stop(self, *, at_once: bool = False) -> None:
        """Begin to stop and return; safe in a signal handler. ``at_once`` kills what does not end at once."""
        self._impatient = self._impatient or at_once
        self._stop_asked = True

    def stop(self) -> None:
        """Stop everything in reversed order, wait for it, release the state folder. May be called twice."""
        self.ask_to_stop()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._watchdog is not None:
            watchdog, self._watchdog = self._watchdog, None
            watchdog.communicate()  # closes its pipe: it looks once more for anything left, and ends
        self._held.close()
        if self._crash is not None:
            crash, self._crash = self._crash, None
            raise EscapementError(f"the supervisor itself failed: {crash!r}") from crash

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_healthy()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    # What follows runs in the supervisor's thread.

    def _supervise(self) -> None:
        try:
            while not self._stop_asked:
                for child in self._children.values():
                    self._tick(child)
                self._guard()
                self._bound_logs()
                time.sleep(self._limits.tick_seconds)
        except BaseException as error:  # noqa: BLE001 - kept, and raised to whoever waits or stops
            self._crash = error
        finally:
            self._ending.set()
            try:
                self._stop_all()
            finally:
                with self._changed:
                    self._changed.notify_all()

    def _tick(self, child: Child) -> None:
        now = monotonic()
        seen = child.look(now, lambda: self._dependencies_healthy(child.service))
        after, action = step(child.watch, seen, now, child.service.ready_seconds, self._limits)
        if after.phase is child.watch.phase and action is Action.NOTHING:
            child.watch = after
            return
        if action is Action.END:
            child.end(self._limits.stop_seconds)
        elif action is Action.START:
            child.start()
        with self._changed:
            child.watch = after
            self._changed.notify_all()
        self._report(child)

    def _dependencies_healthy(self, service: Service) -> bool:
        needed = (self._children.get(name) for name in service.depends_on)
        return all(child.watch.phase is Phase.HEALTHY for child in needed if child)

    def _report(self, child: Child) -> None:
        title, watch = child.service.title, child.watch
        match watch.phase:
            case Phase.STARTING:
                event = ("started", f"{title} starts (log: {child.log})")
            case Phase.HEALTHY:
                event = ("healthy", f"{title} is up after {watch.last_good - watch.started:.1f} s")
            case Phase.BACK_OFF:
                wait = watch.retry_at - monotonic()
                event = ("trouble", f"{title} {watch.reason}; starting it again in {max(0.0, wait):.0f} s")
            case _:
                event = ("given up", self._why(child))
        self._tell(Event(child.service.name, *event))

    def _why(self, child: Child) -> str:
        watch, title = child.watch, child.service.title
        times = f" {watch.deaths} times in a row" if watch.deaths > 1 else ""
        hidden = [value.get_secret_value() for _, value in self._settings.secrets]
        tail = logs.tail(child.log, TAIL_LINES, hidden) or "(nothing)"
        return (
            f"{title} failed{times}, last: it {watch.reason}. It will not be started again. Look at the end of its log, "
            f"mend the cause and run `inspection up` again. {child.log} ends with:\n{tail}"
        )

    def _stop_all(self) -> None:
        # What leans on others goes first, so that it can still tell them; the rest may take its time together.
        children = list(reversed(self._children.values()))
        self._stop_together([child for child in children if child.service.depends_on])
        self._stop_together([child for child in children if not child.service.depends_on])
        self._tell(Event("up", "stopped", "everything is stopped"))

    def _stop_together(self, children: Sequence[Child]) -> None:
        deadline = monotonic() + self._limits.stop_seconds
        for child in children:
            child.ask_to_end()
        for child in children:
            while child.pid and monotonic() < deadline and not self._impatient:
                time.sleep(0.05)
                child.reap()
            child.end(0.0)

    def _guard(self) -> None:
        """See that the watchdog lives."""
        if self._watchdog is None or self._watchdog.poll() is not None:
            if self._watchdog is not None and self._watchdog.stdin is not None:
                self._watchdog.stdin.close()
            arguments = [*self._mark, str(os.getpid())]
            self._watchdog = subprocess.Popen(
                [sys.executable, "-I", leftovers.__file__, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def _bound_logs(self) -> None:
        now = monotonic()
        if now >= self._next_log_look:
            self._next_log_look = now + LOG_LOOK_SECONDS
            for child in self._children.values():
                child.bound_log()

    def _child(self, service: Service, state: Path, pool: ThreadPoolExecutor) -> Child:
        return Child(service, state / "logs" / f"{service.name}.log", self._mark, self._limits, pool)

    def _running(self, child: Child) -> Running:
        service, watch = child.service, child.watch
        return Running(
            name=service.name,
            title=service.title,
            pid=child.pid,
            phase=watch.phase,
            starts=watch.starts,
            address=service.address,
            login=service.login,
            log=child.log,
            reason=watch.reason,
        )
