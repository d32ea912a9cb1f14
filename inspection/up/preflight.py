"""What `inspection doctor` asks of this package: everything that would keep `inspection up` from starting, in words.

Invariant: looks only; starts nothing and changes nothing but the state folder's existence.
"""

import os
from collections.abc import Mapping

import psutil

from inspection.errors import EscapementError
from inspection.settings import SECRETS_FILE, Settings
from inspection.up import machine
from inspection.up.compose import compose, find_label_studio, missing_modules
from inspection.up.machine import Problem

NEEDED_MEMORY_BYTES = 3 * 1024**3  # the servers take about 1.4 GB, a small training the rest


def preflight(settings: Settings, *, environment: Mapping[str, str]) -> list[Problem]:
    """Every problem found, none when `inspection up` can start. Ports are not looked at while an `up` runs here."""
    problems = [*missing_modules(), *_folder_problems(settings), *_memory_problems()]
    without = set()
    label_studio = find_label_studio(environment)
    if isinstance(label_studio, Problem):
        problems.append(label_studio)
        without.add("label-studio")
    if not machine.is_running(settings.state):
        problems += _port_problems(settings, environment, without)
    return problems


def _port_problems(settings: Settings, environment: Mapping[str, str], without: set[str]) -> list[Problem]:
    try:
        services = compose(settings, environment=environment, without=without)
    except EscapementError as error:
        return [Problem("the addresses in the settings cannot be used", str(error), "Mend settings.json or the variables")]
    found = (machine.port_problem(service, settings.state) for service in services if service.port)
    return [problem for problem in found if problem]


def _folder_problems(settings: Settings) -> list[Problem]:
    state = settings.state
    problems = []
    if state.exists() and not os.access(state, os.W_OK | os.X_OK):
        owner = f"pid {os.getpid()} runs as user {os.getuid()}"
        problems.append(
            Problem(f"state folder {state} cannot be written", owner, "Change its owner, or name another with --state")
        )
    secrets = state / SECRETS_FILE
    if secrets.exists() and secrets.stat().st_mode & 0o077:
        problems.append(Problem(f"{secrets} can be read by others", "its mode is not 0600", f"chmod 600 {secrets}"))
    disk = machine.disk_problem(state)
    return [*problems, disk] if disk else problems


def _memory_problems() -> list[Problem]:
    available = psutil.virtual_memory().available
    if available >= NEEDED_MEMORY_BYTES:
        return []
    return [
        Problem(
            "little memory is free",
            f"{available / 2**30:.1f} GiB available, {NEEDED_MEMORY_BYTES / 2**30:.0f} GiB needed",
            "Close other programs before training on this machine",
        )
    ]
