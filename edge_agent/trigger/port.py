"""The trigger port: one call, one request to inspect something."""

import time
from dataclasses import dataclass, field
from typing import Protocol

from edge_agent.camera import Frame


@dataclass(frozen=True)
class Request:
    """Something is to be inspected. ``at`` is `time.monotonic` of the trigger: the takt runs from here.

    ``part`` and ``lot`` when whoever triggered named them; ``frame`` when the delivery itself was the trigger.
    """

    at: float = field(default_factory=time.monotonic)
    part: str | None = None
    lot: str | None = None
    frame: Frame | None = None


class Trigger(Protocol):
    """Says when to inspect."""

    def next(self) -> Request | None:
        """The next request, or None after at most half a second without one."""

    def take_missed(self) -> int:
        """Triggers that came while nobody could serve them, since the last call."""

    def close(self) -> None:
        """Let go of connections; may be called twice."""
