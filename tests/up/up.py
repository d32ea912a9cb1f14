"""Runs ``run_up`` on a temporary folder in a process of its own: ``up.py WITHOUT,WITHOUT...``."""

import os
import sys

from inspection.up.compose import temporary_settings
from inspection.up.run import run_up


def main() -> int:
    """As the command line does it."""
    with temporary_settings() as settings:
        return run_up(settings, environment=os.environ, without=set(sys.argv[1].split(",")))


if __name__ == "__main__":
    sys.exit(main())
