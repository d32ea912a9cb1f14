"""Every program that `up` starts, and all their descendants, carry a mark in their environment; here they are found by it.

Process groups miss what starts a session of its own, and parenthood is lost when a parent dies: the environment is
inherited by all. Run as a script (``python leftovers.py STATE INSTANCE``, standard input a pipe from the supervisor)
this file is the watchdog: when the supervisor is gone, however it went, it stops everything that carries the mark.
Invariants: a process is recognised by pid and start time; the calling process and its ancestors are never touched.
This file imports no other module of the project, so that the watchdog stays small.
"""

import hashlib
import os
import select
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil

MARK = "ESCAPEMENT_UP_MARK"
SERVICE = "ESCAPEMENT_UP_SERVICE"
WATCH_SECONDS = 1.0
ROUNDS = 5


def state_mark(state: Path) -> str:
    """What all programs of one state folder share."""
    return hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:16]


def find(state: str, *, instance: str | None = None, service: str | None = None) -> list[psutil.Process]:
    """Live processes of this user that carry the mark of a state, or of one instance or service of it."""
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        if process.pid in spared:
            continue
        try:
            env = process.environ()
        except (psutil.Error, OSError):
            continue  # gone, a zombie, or of another user: not ours
        if _carries(env, state, instance, service):
            found.append(process)
    return found


def _carries(env: dict[str, str], state: str, instance: str | None, service: str | None) -> bool:
    marked, _, of_instance = env.get(MARK, "").partition(":")
    return (
        marked == state
        and (instance is None or of_instance == instance)
        and (service is None or env.get(SERVICE) == service)
    )


def end(processes: Iterable[psutil.Process], grace_seconds: float) -> None:
    """TERM all, wait at most ``grace_seconds``, KILL the rest and wait for them."""
    remaining = list(processes)
    for process in remaining:
        _signal(process, kill=False)
    _, stubborn = psutil.wait_procs(remaining, timeout=grace_seconds)
    for process in stubborn:
        _signal(process, kill=True)
    psutil.wait_procs(stubborn, timeout=5)


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        if kill:
            process.kill()
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        return  # that is what we want


def sweep(state: str, *, instance: str | None = None, service: str | None = None, grace_seconds: float = 5.0) -> list[str]:
    """Stop all that carry the mark, also what they start meanwhile. Returns one line per process found first."""
    words: list[str] = []
    for _ in range(ROUNDS):
        found = find(state, instance=instance, service=service)
        if not found:
            break
        words = words or [_words(process) for process in found]
        end(found, grace_seconds)
    return words


def _words(process: psutil.Process) -> str:
    try:
        return f"pid {process.pid} {process.name()}"
    except psutil.Error:
        return f"pid {process.pid}"


def watch(state: str, instance: str, supervisor: int) -> None:
    """Return when the supervisor is gone: its end of the pipe is closed, or we have another parent."""
    while os.getppid() == supervisor:
        readable, _, _ = select.select([sys.stdin], [], [], WATCH_SECONDS)
        if readable and not os.read(sys.stdin.fileno(), 1):
            break
    sweep(state, instance=instance)


if __name__ == "__main__":
    # A parent already gone leaves another parent id than the one handed over: then the sweep begins at once.
    watch(sys.argv[1], sys.argv[2], int(sys.argv[3]))
