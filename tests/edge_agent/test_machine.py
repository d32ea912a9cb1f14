"""What a process does about its own memory."""

import platform
import subprocess
import sys

import pytest

_PROGRAM = """
from edge_agent.machine import give_back_large_blocks
from pathlib import Path
import sys
if "give" in sys.argv:
    assert give_back_large_blocks()
bytearray(30_000_000)  # freed at once: from here on glibc would serve so large a block from the heap, and keep it
held, small = [], []
for _ in range(40):
    held.append(bytearray(1_000_000))
    small.append(bytearray(5_000))
held.clear()
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")).split()[1])
"""


def resident_kib(*words: str) -> int:
    """After forty frames came and went, and something small stayed behind each."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM, *words], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not platform.libc_ver()[0].startswith("glibc"), reason="this C library has no such setting")
def test_what_frames_took_goes_back_to_the_system() -> None:
    """Else 40 MB stay for good, because of what lies between."""
    assert resident_kib("give") < resident_kib() - 30_000
