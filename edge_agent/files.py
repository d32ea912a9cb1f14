"""Writing files so that a power cut leaves the old content or the new, never half of either."""

import contextlib
import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace ``path`` by ``data``: written beside it, synced, renamed, folder synced. On an error nothing is left over."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # a disk that takes no change at all: what it said first is what is raised
            temporary.unlink(missing_ok=True)  # on a full disk half a file must not take the room the next one needs
        raise
    sync_folder(path.parent)
