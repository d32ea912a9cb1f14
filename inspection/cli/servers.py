"""The commands that run and look at whole programs: the servers, the demo, the hub, this machine."""

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from inspection.cli.common import EXIT_FAILED, json_option, settings_of, show, state_option, tiles_option
from inspection.errors import UsageError


@click.command()
@state_option
@click.option("--ephemeral", is_flag=True, help="Use a temporary folder and free ports; remove the folder at the end.")
@click.option("--host", default=None, help="This machine's address for other machines. Default: loopback only.")
def up(state: Path | None, ephemeral: bool, host: str | None) -> None:
    """Start Label Studio, MLflow, Prefect, the flows and the hub; watch them; stop them on Ctrl-C.

    Example: inspection up --state /srv/escapement
    """
    from inspection.up.compose import temporary_settings
    from inspection.up.run import run_up

    if ephemeral and state is not None:
        raise UsageError("--ephemeral makes a folder of its own: leave --state away")
    with temporary_settings() if ephemeral else nullcontext(settings_of(state)) as settings:
        code = run_up(settings, environment=os.environ, host=host)
    sys.exit(code)


@click.command(context_settings={"ignore_unknown_options": False})
@click.option("--exit", "exit_at_end", is_flag=True, help="Stop the servers at the end instead of leaving them up.")
@click.option("--label-yourself", is_flag=True, help="You answer in Label Studio instead of the scripted operator.")
@click.option("--images", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Your own pictures.")
@click.option("--good", help="With --images: the name of the good class.")
@click.option("--backbone", default=None, help="Teacher's network. Default: resnet18.")
@click.option(
    "--pretrained",
    default=None,
    help='"hub", "none", or a file of weights. Default: "none", but "hub" for --images where it can be reached.',
)
@click.option("--student", default=None, help="The device's network. Default: mobilenetv4_conv_small.")
@click.option("--student-pretrained", default=None, help="The same for the device's network.")
@click.option(
    "--size",
    type=click.IntRange(32, 1024),
    default=None,
    help="Pixels a side the networks are shown. Default: 128 at most; up to 320 where boxes.csv shows small defects.",
)
@tiles_option
@click.option("--max-escape", type=click.FloatRange(0, 1), default=None, help="Limit on the escape rate for the gates.")
@click.option("--max-overkill", type=click.FloatRange(0, 1), default=None, help="Limit on the overkill rate.")
@click.option("--report", type=click.Path(path_type=Path), default=Path("demo-report.json"), show_default=True)
@click.option("--state", type=click.Path(path_type=Path, file_okay=False), default=Path("demo-state"), show_default=True)
def demo(**options: Any) -> None:
    """The whole loop on this machine: a virtual line, operators, retraining, a signed int8 model, a safer line.

    Example: inspection demo --images photos/ --good ok --exit
    """
    from inspection.demo.main import DemoOptions, run_demo

    sys.exit(run_demo(DemoOptions(**options), os.environ))


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), default=None, help="Port to bind. Default: that of the hub's address."
)
@state_option
def hub(port: int | None, state: Path | None) -> None:
    """Serve the hub alone (uploads, pictures, rollouts, console). Example: inspection hub --state /srv/escapement"""
    from inspection.hub.__main__ import serve

    serve(settings_of(state), port=port)


@click.command()
@state_option
@json_option
def doctor(state: Path | None, as_json: bool) -> None:
    """Name every problem of this machine in words, with the next step. Example: inspection doctor"""
    from inspection.up.preflight import preflight

    problems = preflight(settings_of(state), environment=os.environ)
    show([str(p) for p in problems], as_json, "\n".join(map(str, problems)) or "no problem found")
    sys.exit(EXIT_FAILED if problems else 0)


COMMANDS = (up, demo, hub, doctor)
