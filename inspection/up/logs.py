"""The log files of supervised programs: ``logs/<name>.log``, bounded, with the one before kept as ``<name>.log.1``.

Invariant: files are opened for appending, so that cutting one to nothing while its program writes is safe.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import IO

TAIL_BYTES = 16 * 1024
HIDDEN = "********"


def open_log(path: Path, max_bytes: int) -> IO[bytes]:
    """Open for appending after bounding."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bound(path, max_bytes)
    return path.open("ab")


def bound(path: Path, max_bytes: int) -> bool:
    """When the file is longer than ``max_bytes``: copy it to ``.1`` and cut it to nothing. True when it did."""
    try:
        if path.stat().st_size <= max_bytes:
            return False
    except FileNotFoundError:
        return False
    shutil.copyfile(path, path.with_name(path.name + ".1"))
    with path.open("r+b") as file:
        file.truncate(0)
    return True


def tail(path: Path, lines: int, secrets: Iterable[str] = ()) -> str:
    """The last lines, with the given secrets blotted out; empty when there is no log."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return "\n".join(text.rstrip().splitlines()[-lines:])
