"""The trigger port: one call, one thing to inspect."""

from typing import Protocol

from edge_agent.camera import Frame


class Trigger(Protocol):
    """Says when to inspect, and hands over the frame."""

    def next(self) -> Frame | None:
        """The frame of the next trigger (perhaps only a fault), or None after at most half a second without one."""

    def take_missed(self) -> int:
        """Triggers that came while nobody could serve them, since the last call."""
