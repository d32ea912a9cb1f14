"""systemd hears from the loop itself, or not at all."""

import socket
from pathlib import Path

from edge_agent.watchdog import Watchdog


def heard(line: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(line.recv(100).decode())
        except BlockingIOError:
            return found


def test_systemd_hears_ready_once_and_then_that_the_loop_lives(tmp_path: Path) -> None:
    """The first round says READY; pats come at a third of the limit, not at every round."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(tmp_path / "notify"))
        line.setblocking(False)
        watchdog = Watchdog({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"})
        for _ in range(5):
            watchdog.alive()
        assert heard(line) == ["READY=1", "WATCHDOG=1"]


def test_without_a_limit_or_for_another_process_nothing_is_patted(tmp_path: Path) -> None:
    """A unit without WatchdogSec, and a child that inherited the environment."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(tmp_path / "notify"))
        line.setblocking(False)
        for more in ({}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}):
            Watchdog({"NOTIFY_SOCKET": str(tmp_path / "notify"), **more}).alive()
        assert heard(line) == ["READY=1", "READY=1"]
    Watchdog({}).alive()
