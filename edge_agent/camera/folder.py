"""A directory as a camera: each picture file is delivered once, in name order; new files are waited for.

Invariants: names that start with "." and folders are never looked at, so a writer that writes ``.name`` and renames is
never seen half-way; what was delivered is remembered by name, across restarts, by whoever journals `Frame.source`; a
file that cannot be read becomes a frame with a fault, never a skipped part; where somebody triggers, a picture that lay
there before is of another part, and never answers.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Collection
from pathlib import Path

from edge_agent.camera.guard import StreamGuard, look
from edge_agent.camera.port import Frame, Health
from edge_agent.errors import DeviceError, PictureError, UsageError
from edge_agent.pictures import Image, decode

log = logging.getLogger(__name__)

_SCAN_SECONDS = 0.05
_FORGET_SECONDS = 600.0
_NOT_PICTURES = frozenset({".csv", ".json", ".txt", ".md"})


def printable(name: str) -> str:
    """A file name as text that can be stored and sent: bytes that are no UTF-8 are shown as ``\\xff``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def read_picture(path: Path, *, max_bytes: int, max_pixels: int) -> tuple[Image | None, str | None]:
    """A picture file as (frame, why it cannot be judged): exactly one of the two is None unless it is black."""
    try:
        with path.open("rb") as file:  # one byte more than allowed: `decode` refuses it without all of it in memory
            data = file.read(min(os.fstat(file.fileno()).st_size, max_bytes) + 1)
        image = decode(data, max_bytes=max_bytes, max_pixels=max_pixels)
        return image, look(image)
    except (PictureError, OSError) as error:
        return None, f"{printable(path.name)}: {error}"
    except MemoryError:
        return None, f"{printable(path.name)}: this computer has too little memory for this picture; make it smaller"


def read_picture_timed(path: Path, *, max_bytes: int, max_pixels: int) -> tuple[Image | None, str | None, float]:
    """`read_picture`, and how many milliseconds it took."""
    started = time.perf_counter()
    image, fault = read_picture(path, max_bytes=max_bytes, max_pixels=max_pixels)
    return image, fault, (time.perf_counter() - started) * 1e3


class FolderCamera:
    """Delivers the pictures of one directory. ``loop`` starts over at the end (benches) and remembers nothing."""

    patient = True
    ended = False

    def __init__(
        self,
        folder: Path,
        *,
        delivered: Collection[str] = (),
        loop: bool = False,
        max_bytes: int,
        max_pixels: int,
        guard: StreamGuard | None = None,
        forget_seconds: float = _FORGET_SECONDS,
    ) -> None:
        """``guard``: for pictures of one camera; without one only black is a fault, since a folder may hold anything.
        ``forget_seconds``: a file that was missing for so long at two looks is no longer known by its name."""
        if not folder.is_dir():
            raise UsageError(f"camera folder {folder} does not exist; create it or correct --camera folder:DIR")
        self._folder = folder.absolute()
        self._delivered = set(delivered)
        self._loop = loop
        self._limits = {"max_bytes": max_bytes, "max_pixels": max_pixels}
        self._guard = guard
        self._queue: deque[str] = deque()
        self._forget_seconds = forget_seconds
        self._here: set[str] = set(delivered)
        self._look_at = time.monotonic() + forget_seconds
        self._count = self._passed_over = 0
        self._last_error: str | None = None

    def next(self, timeout_seconds: float, *, since: float | None = None) -> Frame | None:
        """The next file in name order; with ``since``, the next that appears from now on. None when none appeared in time.
        DeviceError when the folder is gone."""
        until = time.monotonic() + timeout_seconds
        if since is not None:
            self._pass_over()
        while not self._queue:
            self._scan()
            left = until - time.monotonic()
            if not self._queue and left <= 0:
                return None
            if not self._queue:
                time.sleep(min(_SCAN_SECONDS, left))
        return self._read(self._queue.popleft())

    def _scan(self) -> None:
        try:
            with os.scandir(self._folder) as entries:
                names = [e.name for e in entries if not e.name.startswith(".") and e.is_file()]
        except OSError as error:
            raise DeviceError(f"camera folder {self._folder} cannot be read: {error}; is it mounted?") from error
        new = (n for n in names if self._loop or printable(n) not in self._delivered)  # few: a folder keeps what was judged
        self._queue.extend(sorted(n for n in new if Path(n).suffix.lower() not in _NOT_PICTURES))
        if time.monotonic() >= self._look_at:
            self._forget({printable(n) for n in names})

    def _pass_over(self) -> None:
        """Somebody triggers: what lies here was taken before, of another part. By looking, not by time stamps: those are
        of whatever computer serves the folder."""
        self._scan()
        if self._queue:
            self._passed_over += len(self._queue)
            self._delivered.update(map(printable, self._queue))
            log.warning("pictures passed over", extra={"number": len(self._queue), "reason": "older than the trigger"})
            self._queue.clear()

    def _forget(self, here: set[str]) -> None:
        """Names that are gone now and were gone at the last look: else whoever takes judged files away makes this grow.

        Twice, since a share that is away for a moment may look like an empty folder.
        """
        self._delivered &= here | self._here
        self._here, self._look_at = here, time.monotonic() + self._forget_seconds

    def _read(self, name: str) -> Frame:
        image, fault, decode_ms = read_picture_timed(self._folder / name, **self._limits)
        if self._guard is not None and image is not None and fault is None:
            fault = self._guard.check(image)
        self._count += 1
        self._last_error = fault
        if not self._loop:
            self._delivered.add(printable(name))
        lot, _, part = printable(Path(name).stem).rpartition("@")
        return Frame(
            image=image,
            part=part,
            lot=lot or None,
            decode_ms=decode_ms,
            fault=fault,
            source=None if self._loop else (printable(str(self._folder)), printable(name)),
        )

    def health(self) -> Health:
        """Kind, state, files delivered by this process, those older than their trigger, and the last file's fault."""
        return {
            "kind": "folder",
            "ok": self._folder.is_dir(),
            "delivered": self._count,
            "waiting": len(self._queue),
            "passed_over": self._passed_over,
            "last_fault": self._last_error,
        }

    def close(self) -> None:
        """Nothing is held open."""
