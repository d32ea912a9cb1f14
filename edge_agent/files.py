"""Writing files so that a power cut leaves the old content or the new, never half of either; and whose files they are."""

import contextlib
import os
import pwd
import re
from pathlib import Path

_HALF_WRITTEN = re.compile(r"\..+\.(\d{1,9})\.tmp")


def sync(path: Path) -> None:
    """Make what a file holds durable, whoever wrote it; of a folder the renames inside it."""
    descriptor = os.open(path, os.O_RDONLY)
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
    sync(path.parent)


def clear_half_written(folder: Path) -> int:
    """Delete what `write_durably` had begun in ``folder`` when its process was killed. Returns how many files."""
    half = [p for p in folder.glob(".*.tmp") if (m := _HALF_WRITTEN.fullmatch(p.name)) and not _runs(int(m[1]))]
    for path in half:
        path.unlink(missing_ok=True)
    return len(half)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def user_name(uid: int) -> str:
    """A user as `sudo -u` takes it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # of another computer, or of a container
        return f"#{uid}"


def give_back(folder: Path) -> str:
    """The command that makes everything in a folder this process' user's."""
    return f"sudo chown -R {user_name(os.geteuid())} {folder}"
