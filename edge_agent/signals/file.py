"""A file as signal: JSON lines another program follows. Each line is there, whole, before the next part is looked at."""

import errno
import json
import os
from io import FileIO
from pathlib import Path

from edge_agent.errors import DeviceError
from edge_agent.signals.port import clean_ok
from edge_agent.trigger import Request
from inspection.contracts import Verdict


class FileSignal:
    """Appends ``{"output": "OK" | "NG", ...}`` per verdict."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, request: Request) -> None:
        """Nothing: a line in the file is about one part, no output stands between two."""

    def tell(self, verdict: Verdict) -> None:
        """Append the output for one part."""
        output = "OK" if clean_ok(verdict) else "NG"
        self._append({"output": output, "part": verdict.part, "id": verdict.id, "decision": verdict.decision.value})

    def safe(self, reason: str) -> None:
        """Append NG with its reason."""
        self._append({"output": "NG", "reason": reason})

    def close(self) -> None:
        """Nothing is held open."""

    def _append(self, line: dict[str, str]) -> None:
        try:
            with self._path.open("ab", buffering=0) as out:
                _write_whole(out, (json.dumps(line) + "\n").encode())
        except OSError as error:
            raise DeviceError(f"signal file {self._path} cannot be written: {error}; the line was not told") from error


def _write_whole(out: FileIO, line: bytes) -> None:
    """All of it or nothing: on a disk that is full half-way the next line must not follow on half a line."""
    before = os.fstat(out.fileno()).st_size
    if out.write(line) < len(line):
        os.ftruncate(out.fileno(), before)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
