"""The README's promises: commands exist, links lead somewhere, nothing speaks of a particular machine."""

import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_agent.__main__ import cli as edge_agent
from inspection.cli import main as inspection
from inspection.contracts import Limits
from inspection.data.product import Product

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


NOT_OURS = re.compile(r"pip3? install\s+(?:-\S+\s+)*['\"]?escapement\b")
ADVICE = [
    ROOT / "README.md",
    *sorted(p for folder in ("inspection", "edge_agent", "pipelines") for p in (ROOT / folder).rglob("*.*")),
]


@pytest.mark.parametrize(
    "text", ["pip install escapement", "pip install -U 'escapement[server]'", 'pip install "escapement"']
)
def test_the_bare_name_is_recognised(text: str) -> None:
    """So that the next test finds what it looks for, and lets a wheel of ours pass."""
    assert NOT_OURS.search(text)
    assert not NOT_OURS.search("pip install ./escapement-*.whl")


def test_nobody_is_told_to_install_another_projects_package() -> None:
    """The name belongs to somebody else on PyPI: ours comes from a checkout, or a wheel made of one."""
    told = [p for p in ADVICE if p.suffix in {".py", ".md", ".html"} and NOT_OURS.search(p.read_text())]
    assert told == []
    assert "pip wheel --no-deps" in README
    assert "pip install ./escapement-*.whl" in README


def test_the_way_from_pictures_to_the_line_is_written_down_in_order() -> None:
    """Each command of the chain, one after the other."""
    chain = ["import-images", "train --product", "build-bundle", "gate", "sign", "rollout start", "rollout status"]
    places = [README.index(f".venv/bin/inspection {command} ", README.index("by hand; each command")) for command in chain]
    assert places == sorted(places)


def test_flows_that_the_readme_runs_by_hand_are_served() -> None:
    """`prefect deployment run` with the names it gives finds a deployment."""
    from pipelines.deployments import deployments_of

    product = Product(name="lid", good_class="ok", classes=["ok", "dent"], limits=Limits(escape_rate=1, overkill_rate=1))
    served = {f"{made.flow_name}/{made.name}" for made in deployments_of(product)}
    (ran,) = re.findall(r"prefect deployment run '(\S+)'", README)
    assert ran in served
    named = README[README.index("To run one now") :].split(")")[0]
    assert {f"{name}/lid" for name in re.findall(r"`([a-z-]+)`", named)} == served


def test_links_of_the_readme_lead_somewhere() -> None:
    """Relative links are files."""
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


DESIGN = (ROOT / "inspection" / "README.md").read_text()


def _signatures() -> Iterator[tuple[ast.FunctionDef, list[str]]]:
    """Functions that the design names behind their file, and the parameters it names."""
    for section in DESIGN.split("\n## ")[1:]:
        packages = [*re.findall(r"\w+", section.splitlines()[0]), ""]
        functions: dict[str, ast.FunctionDef] = {}
        for quoted in re.findall(r"`([^`]+)`", section):
            if re.fullmatch(r"[\w/]+\.py", quoted):
                files = [ROOT / "inspection" / package / quoted for package in packages]
                tree = ast.parse(next(file for file in files if file.is_file()).read_text())
                functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
            elif (found := re.match(r"(\w+)\(([^)]*)\)", quoted)) and found[1] in functions:
                named = [re.split("[:=]", word)[0].strip(" *\n") for word in found[2].split(",")]
                yield functions[found[1]], [name for name in named if name]


def test_signatures_of_the_design_are_those_of_the_code() -> None:
    """No parameter that is not there, and all that must be given, unless dots say that there are more."""
    signatures = list(_signatures())
    assert len(signatures) > 30
    for function, named in signatures:
        given = function.args
        every = [*given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
        assert {*named} - {"..."} <= {argument.arg for argument in every}, function.name
        must = given.args[: len(given.args) - len(given.defaults)]
        must += [name for name, default in zip(given.kwonlyargs, given.kw_defaults, strict=True) if default is None]
        assert "..." in named or {argument.arg for argument in must} <= {*named}, function.name


def test_help_lists_every_target() -> None:
    """`make help` is complete for targets that are meant for people."""
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "check", "bench", "faults"):
        assert f"make {target}" in told
