"""The camera port.

Promises of every backend: `next` never blocks longer than it was told; a frame is delivered at most once; a frame that
must not be judged says why in `fault`; a live frame older than the camera's bound is never delivered; a failed open
leaves nothing open; `close` may be called twice.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from edge_agent.pictures import Image

Health = dict[str, str | float | int | bool | None]


@dataclass(frozen=True)
class Frame:
    """One delivery. ``image`` is uint8 ``[H, W, 3]`` BGR, or None when there is none; then ``fault`` says why.

    ``source`` names what was consumed (directory and file name) for sources that deliver each thing once; it is
    journalled with the verdict in one transaction. ``decode_ms`` is the time from raw delivery to pixels. ``stamp`` is
    `time.monotonic` when a live camera handed the frame over, ``number`` the camera's own count (a gap: nobody asked).
    """

    image: Image | None
    part: str
    captured_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    decode_ms: float = 0.0
    fault: str | None = None
    source: tuple[str, str] | None = None
    lot: str | None = None
    stamp: float | None = None
    number: int = 0


class Camera(Protocol):
    """A source of frames."""

    @property
    def patient(self) -> bool:
        """True when the source waits for us (files): a pause of the agent loses nothing."""

    @property
    def ended(self) -> bool:
        """True when nothing will ever come again (end of a video file)."""

    def next(self, timeout_seconds: float, *, since: float | None = None) -> Frame | None:
        """The next frame (newest, for a live camera), or None when none came in time.

        ``since``: `time.monotonic` of a trigger; only what was taken after it will do, of files what appears from now on.
        """

    def health(self) -> Health:
        """What to report: at least ``kind`` and ``ok``."""

    def close(self) -> None:
        """Release the device."""
