"""`edge-agent ...`: parse, wire, call. The only file that names concrete cameras, transports, signals and runtimes.

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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_agent.errors import AgentError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edge_agent.agent import Agent
    from edge_agent.bundle import Bundle
    from edge_agent.camera import Camera
    from edge_agent.config import AgentConfig
    from edge_agent.runtime import Runtime
    from edge_agent.signals import Signal
    from edge_agent.transport import Transport
    from edge_agent.trigger import Trigger
    from edge_agent.updater import MakeRuntime
    from inspection.contracts import Verdict

    Delivered = Callable[[str, Iterable[str]], set[str]]

_STATE = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Camera in, durable signalled verdict out. Example: edge-agent run --camera folder:pictures"""


def make_transport(hub: str, token: str | None, timeout_seconds: float) -> "Transport":
    """``http(s)://...`` or ``dir:FOLDER``."""
    from edge_agent.transport import DirectoryTransport, HttpTransport

    if hub.startswith("dir:"):
        return DirectoryTransport(Path(hub.removeprefix("dir:")))
    if hub.startswith(("http://", "https://")):
        return HttpTransport(hub, token, timeout_seconds=timeout_seconds)
    raise UsageError(f"--hub {hub!r} is neither http(s)://... nor dir:FOLDER")


def make_camera(spec: str, config: "AgentConfig", delivered: "Delivered", *, loop: bool) -> "Camera":
    """``folder:DIR``, or what `camera.opening` knows. ``delivered`` says which files of a folder were delivered before."""
    from edge_agent.camera.folder import FolderCamera, printable
    from edge_agent.camera.opening import open_camera

    kind, _, where = spec.partition(":")
    limits = config.limits
    if kind != "folder" or not where:
        return open_camera(
            spec,
            config.camera_settings,
            deadline_seconds=limits.camera_deadline_seconds,
            max_pixels=limits.max_picture_pixels,
        )
    folder = Path(where).absolute()
    present = [printable(p.name) for p in folder.iterdir()] if folder.is_dir() else []
    return FolderCamera(
        folder,
        delivered=delivered(printable(str(folder)), present),
        loop=loop,
        max_bytes=limits.max_picture_bytes,
        max_pixels=limits.max_picture_pixels,
    )


def make_trigger(camera: "Camera", config: "AgentConfig") -> "Trigger":
    """By interval when one is set, else free-running."""
    from edge_agent.trigger.free import FreeRunning
    from edge_agent.trigger.interval import Interval

    deadline = config.limits.camera_deadline_seconds
    if config.interval_seconds > 0:
        return Interval(camera, seconds=config.interval_seconds)
    return FreeRunning(camera, deadline_seconds=deadline)


def make_signal(config: "AgentConfig") -> "Signal":
    """A file when one is set, else the log."""
    from edge_agent.signals.file import FileSignal
    from edge_agent.signals.log import LogSignal

    return FileSignal(Path(config.signal_file)) if config.signal_file else LogSignal()


def runtime_maker(threads: int) -> "MakeRuntime":
    """ONNX Runtime with so many threads."""
    from edge_agent.runtime import OnnxRuntime

    return functools.partial(OnnxRuntime, threads=threads)


@cli.command()
@click.option("--hub", required=True, help="http(s)://... of the hub, or dir:FOLDER for a device without network.")
@click.option(
    "--code", required=True, envvar="ESCAPEMENT_ENROLMENT_CODE", show_envvar=True, help="The enrolment code the hub shows."
)
@click.option("--device", required=True, help="This device's name.")
@click.option("--station", required=True, help="The station it serves.")
@click.option("--camera", help=_CAMERA_HELP)
@_UNSAFE
@click.option("--force", is_flag=True, help="Enrol again although this folder is enrolled.")
@_STATE
def enrol(
    hub: str, code: str, device: str, station: str, camera: str | None, unsafe: bool, force: bool, state: Path
) -> None:
    """Make this device known to a hub, once.

    Example: edge-agent enrol --hub http://hub:8470 --code K7 --device cam1 --station press1 --camera folder:pictures
    """
    from edge_agent.enrolling import enrol as do_enrol

    transport = make_transport(hub, None, 20.0)
    try:
        path = do_enrol(transport, hub, code, device, station, state=state, camera=camera, unsafe=unsafe, force=force)
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

    camera = make_camera(spec, config, agent.journal.delivered, loop=loop)
    try:
        agent.run(
            camera,
            make_trigger(camera, config),
            make_signal(config),
            runtime_maker(config.threads),
            stop,
            watchers=[Watchdog(os.environ)],
            max_triggers=max_triggers,
        )
    finally:
        camera.close()


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
@click.option("--width", type=click.IntRange(min=1), default=1920, show_default=True)
@click.option("--height", type=click.IntRange(min=1), default=1080, show_default=True)
@click.option("--runs", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
def bench(bundle: Path, as_json: bool, width: int, height: int, runs: int, threads: int) -> None:
    """Time a bundle on this computer.

    Example: edge-agent bench bundle.tar --width 1920 --height 1080 --runs 200 --json
    """
    from edge_agent.benching import bench as do_bench

    opened, runtime = _opened(bundle, threads)
    with tempfile.TemporaryDirectory() as folder:
        measured = do_bench(opened, runtime, Path(folder), width=width, height=height, runs=runs)
    _show(measured, as_json)


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

    Exit code 1 when something is. The camera is tried only while no agent runs.

    Example: edge-agent doctor --state agent-state
    """
    from edge_agent.config import load_config
    from edge_agent.doctor import Patient, examine

    config = load_config(state)
    transport = make_transport(config.hub, config.enrolment.token, config.limits.http_timeout_seconds)
    try:
        camera = functools.partial(make_camera, str(config.camera), config, lambda _source, _present: set(), loop=False)
        found = examine(Patient(state, config, transport, runtime_maker(1), camera))
    finally:
        transport.close()
    problems = [finding for findings in found.values() for finding in findings]
    if as_json:
        click.echo(json.dumps({"checked": list(found), "problems": [vars(finding) for finding in problems]}))
    else:
        well = ", ".join(subject for subject, findings in found.items() if not findings)
        click.echo("\n".join([*map(str, problems), f"well: {well}"]))
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


if __name__ == "__main__":
    main()
