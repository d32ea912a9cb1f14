"""The demo: `up`, a virtual line, and the whole circle once, with a closing table and ``demo-report.json``.

Everything goes the way a factory's would: agents are enrolled over HTTP, labels come through Label Studio's API, the
retrain fires on its schedule, and the figures are read from the verdicts the hub has received.
"""

import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from inspection.contracts import Tiling
from inspection.demo import agents
from inspection.demo.circle import Circle, NotShippedError
from inspection.demo.plan import NO_HUB, Plan, hub_answers, images_plan, rendered_plan
from inspection.demo.report import DemoReport, closing_table, write_report
from inspection.demo.timeline import MemoryWatch, Timeline
from inspection.errors import UsageError
from inspection.settings import Settings, load_settings
from inspection.store.session import Store
from inspection.up.compose import choose_ports, missing_modules
from inspection.up.machine import free_ports, in_use, is_running, refuse
from inspection.up.run import stop_on_signals, table
from inspection.up.service import Event
from inspection.up.supervisor import Supervisor

MARK = ".escapement-demo"
STAGES = 9
EXIT_NOT_SHIPPED = 3
EXIT_TERMINATED = 143


@dataclass(frozen=True)
class DemoOptions:
    """What the command line says."""

    exit_at_end: bool = False
    label_yourself: bool = False
    images: Path | None = None
    good: str | None = None
    backbone: str | None = None
    pretrained: str | None = None
    student: str | None = None
    student_pretrained: str | None = None
    size: int | None = None
    tiling: Tiling | None = None
    max_escape: float | None = None
    max_overkill: float | None = None
    report: Path = Path("demo-report.json")
    state: Path = Path("demo-state")


def run_demo(options: DemoOptions, environment: Mapping[str, str]) -> int:
    """Run the demo; exit code 0, or 3 when a gate kept a model from the line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))  # so that everything started is stopped
    return turn(_plan(options), options, environment, Console())


def turn(
    plan: Plan,
    options: DemoOptions,
    environment: Mapping[str, str],
    console: Console,
    on_up: Callable[[Supervisor, Supervisor], None] | None = None,
) -> int:
    """One turn of the loop on ``plan``. ``on_up(servers, line)`` is called once all programs are healthy."""
    refuse(missing_modules())
    settings = choose_ports(_settings(options.state), free=True)
    options.report.unlink(missing_ok=True)  # nobody shall read an earlier one beside this run's exit code
    timeline = Timeline(console, STAGES)
    with ExitStack() as held:
        memory = held.enter_context(MemoryWatch())
        store = held.enter_context(Store.open(settings.database_url, settings.blob_url))
        circle = Circle(settings, store, plan, console, np.random.default_rng(plan.seed))
        held.callback(circle.close)
        servers = Supervisor(settings, environment=environment, on_event=_teller(console))
        held.callback(servers.stop)
        with timeline.stage("starting Label Studio, MLflow, Prefect, the flows and the hub; importing the labelled start"):
            circle.define()
            servers.start()
            circle.import_start()
            console.print(table(servers.wait_healthy()))
        line = _agents(settings, store, plan, {**environment, **servers.marks}, console, held, timeline)
        if on_up is not None:
            on_up(servers, line)
        shipped = _begin(circle, options, timeline) and _improve(circle, timeline)
        _close(circle.report(timeline, memory.peak_bytes), options.report, console)
        if not options.exit_at_end:
            _look_around(console, servers, line)
    return 0 if shipped else EXIT_NOT_SHIPPED


def _close(report: DemoReport, path: Path, console: Console) -> None:
    write_report(report, path)
    console.print(closing_table(report))
    console.print(f"The report is in {path}.", highlight=False)


def _plan(options: DemoOptions) -> Plan:
    usual = None
    if options.images is None:
        if options.good is not None:
            raise UsageError("--good belongs to --images: name the folder of pictures too")
        if options.tiling is not None:
            raise UsageError("--tiles belongs to --images: the made-up parts are shown whole")
        plan = rendered_plan()
    elif options.good is None:
        raise UsageError("--images needs --good: the name of the good class among the folder's classes")
    else:
        plan = images_plan(options.images, options.good, options.tiling or Tiling())
        if None in (options.pretrained, options.student_pretrained):  # real pictures want learned weights
            usual = "hub" if hub_answers() else None
            plan = plan if usual else plan.noted(NO_HUB)
    plan = plan.for_people() if options.label_yourself else plan
    tuned = plan.tuned(
        backbone=options.backbone,
        pretrained=options.pretrained or usual,
        student=options.student,
        student_pretrained=options.student_pretrained or usual,
        size=options.size,
        max_escape=options.max_escape,
        max_overkill=options.max_overkill,
    )
    _check_networks(tuned, named=bool(options.backbone or options.student))
    return tuned


def _check_networks(plan: Plan, *, named: bool) -> None:
    """UsageError now, not after minutes: a file of weights that is not there, a network nobody knows (if one was named)."""
    for wanted in (plan.product.train, plan.product.student):
        if wanted.pretrained not in {"hub", "none"} and not Path(wanted.pretrained).is_file():
            raise UsageError(f"there is no file of weights {wanted.pretrained}: correct --pretrained, or say none")
        if named:
            from inspection.models.catalogue import parse_backbone  # loads torch: only where there is a name to check

            parse_backbone(wanted.backbone)


def _settings(state: Path) -> Settings:
    """A fresh state folder; one that an earlier demo left is removed, anything else is left alone."""
    if state.exists() and any(state.iterdir()):
        if not (state / MARK).exists():
            raise UsageError(f"{state} is not empty and no demo made it: name another folder with --state")
        refuse([in_use(state)] if is_running(state) else [])
        shutil.rmtree(state)
    state.mkdir(parents=True, exist_ok=True)
    (state / MARK).touch()
    return load_settings(state, {}, agent_poll_seconds=agents.POLL_SECONDS)


def _teller(console: Console) -> Callable[[Event], None]:
    def tell(event: Event) -> None:
        if event.kind in {"trouble", "given up"}:
            console.print(f"    {event.service}: {event.message}", style="yellow", highlight=False)

    return tell


def _agents(
    settings: Settings,
    store: Store,
    plan: Plan,
    environment: Mapping[str, str],
    console: Console,
    held: ExitStack,
    timeline: Timeline,
) -> Supervisor:
    with timeline.stage(f"enrolling and starting {len(plan.stations)} edge agents"):
        pages = dict(zip(plan.stations, free_ports("127.0.0.1", len(plan.stations)), strict=True))
        for station, port in pages.items():
            agents.enrol(settings, station, port, environment)
        own = load_settings(settings.state / "line", {})
        services = agents.services(settings, store, pages, environment)
        line = Supervisor(own, environment=environment, services=services, on_event=_teller(console))
        held.callback(line.stop)
        line.start()
        for agent in line.wait_healthy():
            console.print(f"    {agent.title}, its page: {agent.address}", highlight=False)
    return line


def _begin(circle: Circle, options: DemoOptions, timeline: Timeline) -> bool:
    """Up to the answers of the operators; False when not even a first model passed the gates."""
    try:
        with timeline.stage("first model: train, gate 1, distil, quantize, gate 2, sign, roll out"):
            circle.first_model()
    except NotShippedError as reason:
        circle.refused(str(reason))
        return False
    with timeline.stage("the line before: new kinds of defect appear"):
        circle.measure_before()
    with timeline.stage("asking: pictures go to Label Studio, operators answer there"):
        circle.ask_and_answer(by_hand=options.label_yourself)
    return True


def _improve(circle: Circle, timeline: Timeline) -> bool:
    """Retrain, roll out, measure again; False when the gates kept the new model away and the first one was measured."""
    try:
        with timeline.stage("the scheduled retrain fires: train, gates, signature"):
            circle.wait_for_retrain()
        with timeline.stage("rollout: the first group proves the new bundle, then the rest"):
            circle.wait_for_rollout()
        shipped = True
    except NotShippedError as reason:
        circle.refused(str(reason))
        shipped = False
    with timeline.stage("the line after: new parts, same mix"):
        circle.measure_after()
    return shipped


def _look_around(console: Console, servers: Supervisor, line: Supervisor) -> None:
    console.print(table((*servers.services, *line.services)))
    console.print("Everything stays up to look at. Ctrl-C stops it.")
    with stop_on_signals(servers):
        servers.wait_stopped()
