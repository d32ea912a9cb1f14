"""What about this machine can stand in the way, and the words for it: ports, free disk, a state folder in use.

Invariant: a state folder has at most one `up` at a time (a file lock that the kernel drops when its holder dies).
"""

import errno
import fcntl
import os
import random
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from inspection.errors import EnvironmentTroubleError
from inspection.up.leftovers import MARK, state_mark
from inspection.up.service import Service

LOCK_FILE = Path("run") / "up.lock"
NEEDED_FREE_BYTES = 1024**3
FIRST_PORT, LAST_PORT = 20_000, 32_000  # below the range from which the kernel takes ports of outgoing connections


@dataclass(frozen=True)
class Problem:
    """Something that stands in the way: what, why, and what to do next."""

    what: str
    why: str
    next_step: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}. {self.next_step}"


@contextmanager
def state_lock(state: Path) -> Iterator[None]:
    """Hold the state folder. EnvironmentTroubleError when another `up` holds it, with its pid."""
    path = state / LOCK_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        if not _try_lock(file.fileno()):
            raise EnvironmentTroubleError(str(in_use(state)))
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_running(state: Path) -> bool:
    """Whether some `up` holds the state folder right now."""
    try:
        with (state / LOCK_FILE).open("r") as file:
            return not _try_lock(file.fileno())
    except FileNotFoundError:
        return False


def in_use(state: Path) -> Problem:
    """The words for a state folder that another `up` holds."""
    pid = (state / LOCK_FILE).read_text().strip() or "unknown"
    return Problem(
        f"state folder {state} is in use",
        f"another `inspection up` (pid {pid}) runs on it",
        f"Stop that one (Ctrl-C there, or `kill {pid}`), or name another folder with --state",
    )


def port_problem(service: Service, state: Path) -> Problem | None:
    """None when the service could bind its port now; else who has it, as far as the system tells."""
    why = _bind_trouble(service.host, service.port)
    if why is None:
        return None
    if why != errno.EADDRINUSE:
        return Problem(
            f"{service.title} cannot listen on {service.host} port {service.port}",
            os.strerror(why),
            "Name an address of this machine and a port above 1023",
        )
    return Problem(
        f"port {service.port}, which {service.title} needs, is taken",
        _holder(service.port, state),
        f"Stop that program, or give {service.title} another port: ESCAPEMENT_{service.name.upper().replace('-', '_')}_URL"
        f"=http://{service.host}:<port>",
    )


def _bind_trouble(host: str, port: int) -> int | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except socket.gaierror:
            return errno.EADDRNOTAVAIL
        except OSError as error:
            return error.errno
    return None


def _holder(port: int, state: Path) -> str:
    try:
        taken = [c for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    except psutil.AccessDenied:
        taken = []
    pid = next((c.pid for c in taken if c.pid and c.laddr and c.laddr.port == port), None)
    if pid is None:
        return "by a program of another user, which the system does not name"
    try:
        process = psutil.Process(pid)
        words = f"by {process.name()} (pid {pid}: {' '.join(process.cmdline())[:120]})"
        mark = process.environ().get(MARK, "")
    except psutil.Error:
        return f"by pid {pid}"
    if not mark:
        return words
    same = mark.partition(":")[0] == state_mark(state)
    return f"{words}, started by an `inspection up` on {'this' if same else 'another'} state folder"


def disk_problem(folder: Path, needed: int = NEEDED_FREE_BYTES) -> Problem | None:
    """None when at least ``needed`` bytes are free where ``folder`` lies (or would lie)."""
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free >= needed:
        return None
    return Problem(
        f"the disk that holds {folder} is {'full' if free < 2**20 else 'almost full'}",
        f"{free / 2**20:.0f} MiB free, {needed / 2**20:.0f} MiB needed",
        "Free some space, or name a state folder on another disk with --state",
    )


def free_ports(host: str, count: int) -> list[int]:
    """Different ports that nothing listens on now, outside the range of outgoing connections."""
    chosen: list[int] = []
    for port in random.sample(range(FIRST_PORT, LAST_PORT), LAST_PORT - FIRST_PORT):
        if len(chosen) == count:
            break
        if _bind_trouble(host, port) is None:
            chosen.append(port)
    if len(chosen) < count:
        raise EnvironmentTroubleError(
            f"fewer than {count} free ports between {FIRST_PORT} and {LAST_PORT} on {host}: stop some programs"
        )
    return chosen


def refuse(problems: Sequence[Problem]) -> None:
    """EnvironmentTroubleError with all of them, one per line; nothing when there are none."""
    if problems:
        raise EnvironmentTroubleError("\n".join(str(problem) for problem in problems))
