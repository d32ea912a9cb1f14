"""`edge-agent ...`: parse, wire, call. What is concrete is named in `making`.

Exit codes: 0 done, 1 failed, 2 wrong usage. Imports happen inside the commands, so `replay` starts without HTTP.
"""

import functools
import json
import logging
import os
import signal as signals
import sys
import tempfile
import threading
import uuid
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_agent.errors import AgentError, UsageError
from edge_agent.making import make_camera, make_page, make_transport, opened_wires, runtime_maker

if TYPE_CHECKING:
    from edge_agent.agent import Agent
    from edge_agent.bundle import Bundle
    from edge_agent.config import AgentConfig
    from edge_agent.runtime import Runtime
    from inspection.contracts import Verdict

_STATE = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False, readable=False),  # our own words say whose it is
    default=Path("agent-state"),
    show_default=True,
    help="The agent's folder.",
)
_CAMERA_HELP = "folder:DIR, opencv:id=NAME, opencv:serial=SERIAL, opencv:URL (rtsp, http), opencv:FILE or genicam:SERIAL."
_UNSAFE = click.option(
    "--unsafe",
    is_flag=True,
    help="Allow opencv:INDEX and opencv:/dev/videoN, which may be another camera after a reboot.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
_BUNDLE = click.argument("bundle", type=click.Path(path_type=Path, exists=True))


def _pairs(_ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[tuple[int, int]]:
    """Each two whole numbers above 0, as in 1920x1080."""
    found = []
    for value in values:
        first, _, second = value.partition("x")
        if not (first.isdecimal() and second.isdecimal() and int(first) and int(second)):
            raise click.BadParameter(f"{value!r} is not two numbers like 2x3", param=param)
        found.append((int(first), int(second)))
    return found


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Camera in, durable signalled verdict out. Example: edge-agent run --camera folder:pictures"""


@cli.command()
@click.option("--hub", required=True, help="http(s)://... of the hub, or dir:FOLDER for a device without network.")
@click.option(
    "--code", required=True, envvar="ESCAPEMENT_ENROLMENT_CODE", show_envvar=True, help="The enrolment code the hub shows."
)
@click.option("--device", required=True, help="This device's name.")
@click.option("--station", required=True, help="The station it serves.")
@click.option("--camera", help=_CAMERA_HELP)
@_UNSAFE
@click.option("--page", help="Where the station's page is served: HOST:PORT, or off.  [default: 127.0.0.1:8480]")
@click.option("--force", is_flag=True, help="Enrol again although this folder is enrolled; its settings are kept.")
@_STATE
def enrol(
    hub: str,
    code: str,
    device: str,
    station: str,
    camera: str | None,
    unsafe: bool,
    page: str | None,
    force: bool,
    state: Path,
) -> None:
    """Make this device known to a hub, once.

    Example: edge-agent enrol --hub http://hub:8470 --code K7 --device cam1 --station press1 --camera folder:pictures
    """
    from edge_agent.enrolling import enrol as do_enrol

    transport = make_transport(hub, None, 20.0)
    try:
        path = do_enrol(
            transport, hub, code, device, station, state=state, camera=camera, unsafe=unsafe, page=page, force=force
        )
    finally:
        transport.close()
    click.echo(f"{device} is enrolled at {hub}; its settings are in {path}")


@cli.command()
@_STATE
@click.option("--camera", help=_CAMERA_HELP)
@_UNSAFE
@click.option("--interval", type=click.FloatRange(min=0), help="Seconds between triggers; 0: whatever the camera delivers.")
@click.option("--max-triggers", type=click.IntRange(min=1), help="Stop after so many triggers.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the model.")
@click.option("--poll", type=click.FloatRange(min=0.05), help="Seconds between two polls of the hub.")
@click.option("--signal-file", help="Append one JSON line per verdict to this file.")
@click.option("--loop", is_flag=True, help="Begin a folder again at its end (benches only).")
@click.option("--quiet", is_flag=True, help="Log warnings and errors only.")
def run(state: Path, max_triggers: int | None, loop: bool, quiet: bool, unsafe: bool, **flags: Any) -> None:
    """Inspect until stopped (SIGTERM or Ctrl-C finish the current part).

    Example: edge-agent run --state agent-state --camera folder:pictures --interval 0.5
    """
    stop = threading.Event()
    for number in (signals.SIGTERM, signals.SIGINT):
        signals.signal(number, lambda *_: stop.set())
    from edge_agent import logs
    from edge_agent.agent import Agent, only_one
    from edge_agent.config import load_config
    from edge_agent.machine import give_back_large_blocks

    give_back_large_blocks()
    logs.to_stderr(logging.WARNING if quiet else logging.INFO)
    named = {"interval": "interval_seconds", "poll": "poll_seconds"}
    config = load_config(state).overridden(**{named.get(k, k): v for k, v in flags.items()})
    if unsafe:
        config = config.overridden(camera_settings={**config.camera_settings.model_dump(mode="json"), "unsafe": True})
    if config.camera is None:
        raise UsageError("no camera is configured; give --camera folder:DIR or --camera opencv:id=NAME")
    with only_one(state):
        transport = make_transport(config.hub, config.enrolment.token, config.limits.http_timeout_seconds)
        agent = Agent(state, config, str(uuid.uuid4()), transport)
        try:
            _run_agent(agent, config, config.camera, stop, loop=loop, max_triggers=max_triggers)
        finally:
            agent.close()


def _run_agent(
    agent: "Agent", config: "AgentConfig", spec: str, stop: threading.Event, *, loop: bool, max_triggers: int | None
) -> None:
    from edge_agent.watchdog import Watchdog

    with ExitStack() as ending:
        camera = ending.enter_context(closing(make_camera(spec, config, agent.journal.delivered, loop=loop)))
        wires, asked = ending.enter_context(opened_wires(camera, config))
        page = make_page(config, asked)
        agent.run(
            camera,
            wires,
            runtime_maker(config.threads),
            stop,
            watchers=[Watchdog(os.environ), *([page[0]] if page else [])],
            make_page=page[1] if page else None,
            max_triggers=max_triggers,
        )


def _opened(path: Path, threads: int) -> "tuple[Bundle, Runtime]":
    from edge_agent.bundle import open_path

    bundle = open_path(path)
    return bundle, runtime_maker(threads)(bundle.model, bundle.manifest)


def _vouched(bundle: Path, trust: Path | None, envelope: Path | None) -> None:
    if trust is None and envelope is None:
        return
    if trust is None or envelope is None or bundle.is_dir():
        raise UsageError("--trust and --envelope go together, and with a bundle file")
    from edge_agent.vouching import vouch

    vouch(bundle, trust, envelope)


@cli.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True), required=False)
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False), required=False)
@click.option("--part", help="Judge this part of the agent's journal again from its record, and compare.")
@_STATE
@_JSON
@click.option("--recipe", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Judge with this recipe.")
@click.option(
    "--trust", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Check against this trust root."
)
@click.option(
    "--envelope", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The bundle's signed release."
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of the model.")
def replay(bundle: Path | None, folder: Path | None, part: str | None, state: Path, as_json: bool, **judging: Any) -> None:
    """Judge a folder of pictures (class-per-folder, labels.csv, or flat; one verdict per line), or one past part again.

    Example: edge-agent replay bundle.tar pictures --json > verdicts.jsonl

    Example: edge-agent replay --part A-0017 --state agent-state
    """
    if part is None:
        if bundle is None or folder is None:
            raise UsageError("replay needs BUNDLE and FOLDER, or --part ID")
        _replay_folder(bundle, folder, as_json, **judging)
        return
    if folder is not None or judging["recipe"] is not None:
        raise UsageError("--part judges one part by its own record: leave FOLDER and --recipe out")
    _replay_part(part, state, bundle, as_json, **judging)


def _replay_folder(
    bundle: Path,
    folder: Path,
    as_json: bool,
    *,
    recipe: Path | None,
    trust: Path | None,
    envelope: Path | None,
    threads: int,
) -> None:
    from edge_agent import replaying

    _vouched(bundle, trust, envelope)
    paths = replaying.listed(folder)
    opened, runtime = _opened(bundle, threads)
    other = replaying.read_recipe(recipe.read_bytes()) if recipe else None
    for verdict in replaying.replay(opened, runtime, folder, paths, recipe=other):
        click.echo(verdict.canonical().decode() if as_json else _line(verdict))


def _replay_part(
    part: str,
    state: Path,
    bundle: Path | None,
    as_json: bool,
    *,
    recipe: None,  # noqa: ARG001  # refused above
    trust: Path | None,
    envelope: Path | None,
    threads: int,
) -> None:
    from edge_agent.bundle import open_path
    from edge_agent.passporting import archive

    if bundle is not None:
        _vouched(bundle, trust, envelope)
    with archive(state) as kept:
        replayed = kept.replay(part, runtime_maker(threads), None if bundle is None else open_path(bundle))
    _show(vars(replayed), as_json)
    if not replayed.same:
        sys.exit(1)


@cli.command()
@click.argument("part")
@_STATE
@_JSON
def passport(part: str, state: Path, as_json: bool) -> None:
    """Everything this device knows about how a part was judged, newest verdict first.

    Example: edge-agent passport A-0017 --state agent-state --json
    """
    from edge_agent.passporting import archive

    with archive(state) as kept:
        for one in kept.passports(part):
            _show(vars(one), as_json)


def _line(verdict: "Verdict") -> str:
    what = verdict.defect_class or verdict.reason or ""
    return f"{verdict.decision:<12} {verdict.timings_ms.get('total', 0.0):8.2f} ms  {verdict.part}  {what}"


@cli.command()
@_BUNDLE
@_JSON
@click.option("--size", "sizes", multiple=True, callback=_pairs, help="Frame size as 1920x1080; may be given again.")
@click.option("--tiles", "grids", multiple=True, callback=_pairs, help="Grid as 2x3 (rows x columns); may be given again.")
@click.option("--runs", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
def bench(
    bundle: Path,
    as_json: bool,
    sizes: list[tuple[int, int]],
    grids: list[tuple[int, int]],
    runs: int,
    threads: int,
) -> None:
    """Time a bundle on this computer: the bare model, and a frame to its durable, signalled verdict with each stage.

    Without --size and --tiles: 640x480, 1920x1080 and 3840x2160, each whole and in 2x3 tiles. The recipe's own region
    and grid do not count here.

    Example: edge-agent bench bundle.tar --size 1920x1080 --tiles 2x3 --runs 200 --json
    """
    from edge_agent import benching

    opened, runtime = _opened(bundle, threads)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(benching.cases(sizes or benching.SIZES, grids or benching.GRIDS)):
            rows.append(benching.bench(opened, runtime, Path(folder, str(number)), case, runs=runs))
    built = {"precision": opened.manifest.precision, "runtime": opened.manifest.runtime}
    click.echo(json.dumps(built | {"cases": rows}) if as_json else benching.table(rows))


@cli.command()
@_STATE
@_JSON
def status(state: Path, as_json: bool) -> None:
    """What this agent runs, what it has done, what waits.

    Example: edge-agent status --state agent-state --json
    """
    from edge_agent.config import load_config
    from edge_agent.status import status as read_status

    _show(read_status(state, load_config(state)), as_json)


@cli.command()
@click.argument("assignments", nargs=-1, metavar="[NAME=VALUE]...")
@_STATE
def settings(assignments: tuple[str, ...], state: Path) -> None:
    """Show the settings of this device, or change some: checked first, in force at the agent's next start.

    Example: edge-agent settings wiring.trigger=modbus wiring.modbus.host=192.168.0.10 takt_seconds=1.5

    Example: edge-agent settings wiring.page.host=0.0.0.0 wiring.page.pin_file=/etc/escapement/pin
    """
    from edge_agent.config import changed, load_config, shown, write_config

    config = load_config(state)
    if assignments:
        config = changed(config, assignments)
        write_config(state, config)
    click.echo(json.dumps(shown(config), indent=1))


@cli.command()
@_STATE
@_JSON
def requeue(state: Path, as_json: bool) -> None:
    """Send again what was set aside (the hub refused it, or it could not be read), and say how much. Stop the agent first.

    Example: edge-agent requeue --state agent-state
    """
    from edge_agent.config import load_config
    from edge_agent.requeueing import requeue as do_requeue

    again = do_requeue(state, load_config(state))
    if as_json:
        click.echo(json.dumps({"requeued": again}))
    else:
        click.echo(f"{again} verdicts and pictures wait again: the next `edge-agent run` sends them")


@cli.command()
@_STATE
@_JSON
def doctor(state: Path, as_json: bool) -> None:
    """Say what is wrong with camera, permissions, processor, disk, clock, hub, bundle, and what to do next.

    Exit code 1 when something is. The camera is tried only while no agent runs; else the agent's page is asked.

    Example: edge-agent doctor --state agent-state
    """
    from edge_agent.config import load_config
    from edge_agent.doctor import Finding, Patient, Unlooked, examine
    from edge_agent.runtimes import present

    config = load_config(state)
    transport = make_transport(config.hub, config.enrolment.token, config.limits.http_timeout_seconds)
    try:
        camera = functools.partial(make_camera, str(config.camera), config, lambda _source, _present: set(), loop=False)
        found = examine(Patient(state, config, transport, runtime_maker(1), camera))
    finally:
        transport.close()
    notes = [note for notes in found.values() for note in notes]
    problems = [note for note in notes if isinstance(note, Finding)]
    unlooked = [note for note in notes if isinstance(note, Unlooked)]
    if as_json:
        not_looked_at = {note.subject: note.reason for note in unlooked}
        checked = [subject for subject in found if subject not in not_looked_at]
        said = {"checked": checked, "problems": [vars(note) for note in problems], "not_looked_at": not_looked_at}
        click.echo(json.dumps(said | {"runtimes": present()}))
    else:
        well = ", ".join(subject for subject, said_of_it in found.items() if not said_of_it)
        runs = ", ".join(f"{name} {said}" for name, said in present().items())
        click.echo("\n".join([*map(str, [*problems, *unlooked]), f"well: {well}", f"runtimes: {runs}"]))
    if problems:
        sys.exit(1)


def _show(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        click.echo(f"{name:20} {value}")


def main() -> None:
    """Entry point: our errors become a sentence and an exit code, all others a traceback."""
    try:
        cli()
    except UsageError as error:
        click.echo(f"edge-agent: {error}", err=True)
        sys.exit(2)
    except AgentError as error:
        click.echo(f"edge-agent: {error}", err=True)
        sys.exit(1)
    except MemoryError:
        click.echo("edge-agent: this computer has too little memory left; look what else runs on it", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
