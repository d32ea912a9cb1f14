"""Supervises one misbehaving program in a process of its own, so that a test can kill the supervisor.

``supervise.py STATE PORT`` prints "ready <pid of the program>" once it is healthy, and then sleeps.
"""

import os
import sys
import time
from pathlib import Path

from inspection.settings import load_settings
from inspection.up.supervisor import Supervisor
from tests.up.conftest import service


def main() -> None:
    """Start, say so, sleep."""
    state, port = Path(sys.argv[1]), int(sys.argv[2])
    one = service("one", port, state, "offspring", "ignore-term")
    up = Supervisor(load_settings(state, {}), environment=os.environ, services=[one])
    up.start()
    sys.stdout.write(f"ready {up.wait_healthy()[0].pid}\n")
    sys.stdout.flush()
    time.sleep(600)


if __name__ == "__main__":
    main()
