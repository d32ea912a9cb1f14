"""Files that a killed process had begun."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.files import clear_half_written, write_durably

_KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from edge_agent import files
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
files.write_durably(Path(sys.argv[1]), b"new")
"""


def test_what_a_killed_process_had_begun_is_cleared(tmp_path: Path) -> None:
    """Its own half file goes; the content before it, and everything else, stays."""
    kept = tmp_path / "installed.json"
    write_durably(kept, b"old")
    for _ in range(2):
        subprocess.run([sys.executable, "-c", _KILLED_WHILE_WRITING, kept], check=False)
    assert len(list(tmp_path.iterdir())) == 3
    (tmp_path / ".ballast.tmp").touch()
    assert clear_half_written(tmp_path) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"installed.json", ".ballast.tmp"}
    assert kept.read_bytes() == b"old"


@pytest.mark.parametrize("process", [os.getpid(), 1], ids=["this user's", "another's"])
def test_what_somebody_is_writing_stays(tmp_path: Path, process: int) -> None:
    """`edge-agent settings` may write at the moment an agent starts, as this user or another."""
    writing = tmp_path / f".agent.json.{process}.tmp"
    writing.touch()
    assert clear_half_written(tmp_path) == 0
    assert writing.exists()
