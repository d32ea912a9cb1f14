"""What a process holds, from ``/proc``."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Size:
    """What a process holds: resident MiB, threads, descriptors, child processes."""

    rss_mib: float
    threads: int
    descriptors: int
    children: int


def size_of(pid: int) -> Size:
    """Now, from ``/proc``."""
    proc = Path(f"/proc/{pid}")
    facts = memory_of(pid)
    tasks = list((proc / "task").iterdir())
    children = sum(len((task / "children").read_text().split()) for task in tasks)
    return Size(facts["VmRSS"] / 1024, len(tasks), len(list((proc / "fd").iterdir())), children)


def memory_of(pid: int) -> Mapping[str, int]:
    """The lines of ``/proc/PID/status`` that are in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    pairs = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(value) for name, value, _ in pairs}
