"""The two command lines, as a newcomer and as a script meet them."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edge_agent.__main__ import cli as edge_agent
from inspection.cli import main as inspection


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    """Every command that is not a group, with its path."""
    found = []
    for name, command in group.commands.items():
        here = (*path, name)
        found += commands(command, here) if isinstance(command, click.Group) else [(here, command)]
    return found


PROGRAMS = [(program, path) for program in (inspection, edge_agent) for path, _ in commands(program)]


@pytest.mark.parametrize(("program", "path"), PROGRAMS, ids=[" ".join(path) for _, path in PROGRAMS])
def test_every_command_shows_an_example(program: click.Group, path: tuple[str, ...]) -> None:
    """Help that does not show how is no help."""
    told = CliRunner().invoke(program, [*path, "--help"])
    assert told.exit_code == 0
    assert "Example:" in told.output


STABLE = [
    "up", "demo", "hub", "import-images", "train", "build-bundle", "gate", "sign", "rollout start", "rollout pause",
    "rollout resume", "rollout abort", "rollout status", "passport", "doctor",
]  # fmt: skip


@pytest.mark.parametrize("path", STABLE)
def test_commands_that_scripts_lean_on_are_there(path: str) -> None:
    """The command line is stable."""
    assert tuple(path.split()) in [known for known, _ in commands(inspection)]


@pytest.mark.parametrize("path", ["enrol", "run", "replay", "status", "doctor", "bench"])
def test_commands_of_the_agent_are_there(path: str) -> None:
    """The command line is stable."""
    assert (path,) in [known for known, _ in commands(edge_agent)]


@pytest.mark.parametrize(
    "arguments",
    [
        ["product", "show", "nobody"],
        ["passport", "nobody"],
        ["build-bundle", "nobody"],
        ["gate", "nobody"],
        ["rollout", "pause", "--product", "nobody"],
        ["train", "--good", "x"],
        ["demo", "--good", "ok"],
    ],
)
def test_wrong_usage_is_told_in_a_sentence_and_by_exit_code_2(arguments: list[str], tmp_path: Path) -> None:
    """No traceback for something a person can put right."""
    done = subprocess.run(
        [sys.executable, "-m", "inspection.cli", *arguments],
        env={"PATH": "/usr/bin:/bin", "ESCAPEMENT_STATE": str(tmp_path / "state"), "HOME": str(tmp_path)},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
