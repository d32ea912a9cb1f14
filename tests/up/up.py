"""Runs ``run_up`` on a temporary folder in a process of its own: ``up.py WITHOUT,WITHOUT...``."""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from inspection.settings import load_settings
from inspection.up.run import run_up


def main() -> int:
    """As the command line does it."""
    with TemporaryDirectory() as folder:
        settings = load_settings(Path(folder), {})
        return run_up(settings, ephemeral=True, environment=os.environ, without=set(sys.argv[1].split(",")))


if __name__ == "__main__":
    sys.exit(main())
