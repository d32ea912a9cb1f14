"""The README's promises: commands exist, links lead somewhere, nothing speaks of a particular machine."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_agent.__main__ import cli as edge_agent
from inspection.cli import main as inspection

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [line.strip().split("   #")[0] for line in README.splitlines() if line.startswith("    ")]


@pytest.mark.parametrize("line", [c for c in COMMANDS if c.startswith("make ")])
def test_make_targets_of_the_readme_exist(line: str) -> None:
    """`make -n` accepts each."""
    target = shlex.split(line)[1]
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("line", [c for c in COMMANDS if "inspection " in c or c.startswith("edge-agent ")])
def test_commands_of_the_readme_exist_with_their_options(line: str) -> None:
    """Every command parses: its help can be asked for with the same words."""
    program, *words = shlex.split(line)
    group = edge_agent if program == "edge-agent" else inspection
    told = CliRunner().invoke(group, [*[w for w in words if not w.startswith("-")][:2], "--help"])
    if told.exit_code:
        told = CliRunner().invoke(group, [words[0], "--help"])
    assert told.exit_code == 0
    for option in [w for w in words if w.startswith("--")]:
        assert option in told.output


def test_links_of_the_readme_lead_somewhere() -> None:
    """Relative links are files."""
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_help_lists_every_target() -> None:
    """`make help` is complete for targets that are meant for people."""
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "check", "bench", "faults"):
        assert f"make {target}" in told
