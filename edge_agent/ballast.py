"""A file that holds room on the disk for the worst moment: given up when the disk is full, so the journal can go on.

Invariant: it takes real blocks, or it does not exist.
"""

import logging
import os
import shutil
from pathlib import Path

log = logging.getLogger(__name__)

BALLAST_NAME = "ballast"


class Ballast:
    """One file of ``length`` bytes; 0 means none."""

    def __init__(self, path: Path, length: int) -> None:
        self._path = path
        self.length = length

    @property
    def missing(self) -> bool:
        """True when it was given up and not yet put back."""
        return self.length > 0 and not self._path.exists()

    def release(self) -> bool:
        """Give the room up. False when there is none to give."""
        try:
            self._path.unlink()
        except OSError:  # given up before, or a disk that takes no change at all
            return False
        log.error("disk is full: the ballast was given up", extra={"freed_bytes": self.length})
        return True

    def restore(self, leave_free_bytes: int) -> bool:
        """Take the room again where ``leave_free_bytes`` stay free besides. False when it is missing still."""
        if not self.missing:
            return True
        if shutil.disk_usage(self._path.parent).free < self.length + leave_free_bytes:
            return False
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        try:
            with temporary.open("wb") as out:
                os.posix_fallocate(out.fileno(), 0, self.length)
            temporary.replace(self._path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            log.warning("ballast could not be put back", extra={"reason": error.strerror})
            return False
        return True
