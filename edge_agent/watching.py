"""Who looks on: the station's page, the watchdog. Invariant: a watcher decides nothing and holds nobody up."""

from collections.abc import Sequence
from typing import Protocol

from edge_agent.camera import Frame
from edge_agent.inspecting import Inspected
from inspection.contracts import Purpose


class Watcher(Protocol):
    """Looks on after every trigger."""

    @property
    def purpose(self) -> Purpose:
        """Why parts are shown now: a challenge makes every part a known one."""

    def seen(self, frame: Frame, inspected: Inspected) -> None:
        """One part, after the line was told."""

    def alive(self) -> None:
        """The loop went round, with or without a part."""


class Watchers:
    """Several watchers, or none."""

    def __init__(self, watchers: Sequence[Watcher] = ()) -> None:
        self._watchers = tuple(watchers)

    @property
    def purpose(self) -> Purpose:
        """A challenge as soon as one of them says so."""
        challenge = any(watcher.purpose is Purpose.CHALLENGE for watcher in self._watchers)
        return Purpose.CHALLENGE if challenge else Purpose.PRODUCTION

    def seen(self, frame: Frame, inspected: Inspected) -> None:
        """Show it to each."""
        for watcher in self._watchers:
            watcher.seen(frame, inspected)

    def alive(self) -> None:
        """Tell each."""
        for watcher in self._watchers:
            watcher.alive()
