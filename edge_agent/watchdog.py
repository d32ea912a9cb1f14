"""Tells systemd that the loop goes round (`sd_notify(3)`): a loop that hangs is killed and started again.

Invariant: only the loop itself says that it is alive, never a thread beside it.
"""

import logging
import os
import socket
import time
from collections.abc import Mapping

from edge_agent.camera import Frame
from edge_agent.inspecting import Inspected
from inspection.contracts import Purpose

log = logging.getLogger(__name__)


class Watchdog:
    """A watcher that pats systemd's watchdog. Does nothing where systemd did not start this process."""

    purpose = Purpose.PRODUCTION

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET")
        limit_us = int(environment.get("WATCHDOG_USEC", "0"))
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._every_seconds = limit_us / 1e6 / 3 if mine and limit_us else None
        self._next = 0.0
        self._ready = False

    def seen(self, frame: Frame, inspected: Inspected) -> None:
        """Nothing: `alive` comes after every part too."""

    def alive(self) -> None:
        """The first time READY, then the watchdog's pat, three times as often as systemd asks."""
        if self._address is None:
            return
        if not self._ready:
            self._ready = True
            self._say("READY=1")
        now = time.monotonic()
        if self._every_seconds is not None and now >= self._next:
            self._next = now + self._every_seconds
            self._say("WATCHDOG=1")

    def _say(self, words: str) -> None:
        address = str(self._address)
        name = "\0" + address[1:] if address.startswith("@") else address  # an abstract socket
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
            try:
                line.sendto(words.encode(), name)
            except OSError as error:  # nobody listens: if that lasts, systemd starts this process again, and is right
                log.warning("systemd was not told", extra={"reason": str(error)})
