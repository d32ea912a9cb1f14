"""Challenges that ended, on the disk: one JSON line each, only ever added to.

Invariants: a record is on the disk when `append` returns; a line that a power cut left half-written is skipped by readers,
and the next record begins on a line of its own.
"""

import logging
import os
from pathlib import Path

from pydantic import ValidationError

from edge_agent.errors import DeviceError
from edge_agent.files import sync
from edge_agent.page.trial import Outcome, Trial

RECORDS_NAME = "challenges.jsonl"
_TAIL_BYTES = 1024 * 1024

log = logging.getLogger(__name__)


class Records:
    """The file of past challenges."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, trial: Trial) -> None:
        """Add one, durably. DeviceError when the disk refuses."""
        line = trial.model_dump_json(by_alias=True).encode() + b"\n"
        try:
            new = not self._path.exists()
            with self._path.open("a+b") as out:
                out.write(b"" if _ends_whole(out.fileno()) else b"\n")
                out.write(line)
                out.flush()
                os.fsync(out.fileno())
            if new:
                sync(self._path.parent)
        except OSError as error:
            raise DeviceError(
                f"the challenge cannot be written to {self._path}: {error.strerror}; is the disk full or read-only?"
            ) from error

    def last(self) -> Trial | None:
        """The newest one that was not ended early, or None. DeviceError when the file cannot be read."""
        for line in reversed(self._tail()):
            trial = _read(line)
            if trial is not None and trial.outcome not in (Outcome.ENDED_EARLY, Outcome.RUNNING):
                return trial
        return None

    def _tail(self) -> list[bytes]:
        try:
            with self._path.open("rb") as found:
                length = found.seek(0, os.SEEK_END)
                found.seek(max(0, length - _TAIL_BYTES))
                return [line for line in found.read().split(b"\n") if line]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DeviceError(f"{self._path} cannot be read: {error.strerror}; check the disk") from error


def _ends_whole(descriptor: int) -> bool:
    length = os.fstat(descriptor).st_size
    return length == 0 or os.pread(descriptor, 1, length - 1) == b"\n"


def _read(line: bytes) -> Trial | None:
    try:
        return Trial.model_validate_json(line)
    except ValidationError:
        log.warning("a damaged line in the record of challenges was skipped", extra={"length": len(line)})
        return None
