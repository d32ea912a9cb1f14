"""Where the demo's time and memory go: named stages, and the peak of what all its programs hold together."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from rich.console import Console

from inspection.demo.report import Stage

SAMPLE_SECONDS = 15.0


class Timeline:
    """Announces stages on the console and remembers how long each took."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total = console, total
        self._started = time.monotonic()
        self.stages: list[Stage] = []

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._started

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce ``name``; its time counts even when it fails."""
        self._console.print(f"[bold]==> [{len(self.stages) + 1}/{self._total}] {name}[/bold]", highlight=False)
        begun = time.monotonic()
        try:
            yield
        finally:
            took = time.monotonic() - begun
            self.stages.append(Stage(name=name, seconds=round(took, 1)))
            self._console.print(f"    {took:.0f} s ({self.seconds:.0f} s so far)", style="dim", highlight=False)


class MemoryWatch:
    """Samples the memory of this process and everything below it; pages shared between programs count once (PSS)."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._halt.set()
        self._thread.join()

    def _run(self) -> None:
        me = psutil.Process()
        while not self._halt.wait(SAMPLE_SECONDS):
            held = sum(_held(process) for process in [me, *me.children(recursive=True)])
            self.peak_bytes = max(self.peak_bytes, held)


def _held(process: psutil.Process) -> int:
    try:
        full = process.memory_full_info()
        return int(getattr(full, "pss", full.rss))
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return 0  # it ended while we looked
