"""`inspection up` itself: start, say what happens, print the table, wait for Ctrl-C or a signal, stop.

Invariants: log-ins are printed to the terminal only, never to a log; the handlers of signals are put back.
"""

import signal
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.table import Table

from inspection.errors import EnvironmentTroubleError
from inspection.settings import Settings
from inspection.up import machine
from inspection.up.compose import choose_ports, missing_modules
from inspection.up.preflight import preflight
from inspection.up.rules import Phase
from inspection.up.service import Event, Running
from inspection.up.supervisor import Supervisor

__all__ = ["enrolment", "preflight", "run_up", "stop_on_signals", "table"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_up(
    settings: Settings,
    *,
    environment: Mapping[str, str],
    on_ready: Callable[[tuple[Running, ...]], None] | None = None,
    host: str | None = None,
    without: Collection[str] = (),
    console: Console | None = None,
) -> int:
    """Run the embedded set until Ctrl-C, SIGTERM or SIGHUP; exit code 0, or 1 when a program was given up meanwhile.

    ``host`` is the address of this machine under which others reach hub and Label Studio (see ``choose_ports``);
    it is remembered, and None keeps what the settings say. ``without`` names programs that run elsewhere and are not
    started here. ``on_ready`` is called once, in this thread, when all are healthy. EnvironmentTroubleError when
    something stands in the way or a program does not come up; everything is stopped then. Call it in the main thread.
    """
    console = console or Console()
    settings = settings if host is None else choose_ports(settings, free=False, host=host)
    machine.refuse(missing_modules())
    up = Supervisor(settings, environment=environment, without=without, on_event=lambda event: _say(console, event))
    with stop_on_signals(up):
        try:
            up.start()
            if _come_up(up, console):
                console.print(table(up.services))
                console.print(enrolment(settings), highlight=False, markup=False, soft_wrap=True)
                console.print(f"State: {settings.state}. Ctrl-C stops everything.", highlight=False)
                if on_ready is not None:
                    on_ready(up.services)
                up.wait_stopped()
            given_up = any(service.phase is Phase.GIVEN_UP for service in up.services)
            console.print("Stopping (Ctrl-C once more: at once)")
        finally:
            up.stop()
    return 1 if given_up else 0


def _come_up(up: Supervisor, console: Console) -> bool:
    """True when all are healthy; False when somebody asked to stop meanwhile."""
    try:
        with console.status("Starting the servers (the first start on a folder makes their databases)"):
            up.wait_healthy()
    except EnvironmentTroubleError:
        if up.stop_asked:
            return False
        raise
    return True


def _say(console: Console, event: Event) -> None:
    style = {"healthy": "green", "trouble": "yellow", "given up": "bold red"}.get(event.kind, "")
    console.print(event.message, style=style, markup=False, highlight=False)


def table(services: tuple[Running, ...]) -> Table:
    """Addresses and log-ins."""
    made = Table(title="inspection up", show_lines=True)
    for heading in ("Program", "Address", "Log-in"):
        made.add_column(heading, no_wrap=True)  # a broken password cannot be copied
    for service in services:
        if service.address:
            login = service.login.replace(" / ", "\n")  # two lines: all of it fits a terminal of 80 columns
            made.add_row(service.title, service.address, login or "none (this machine only)")
    return made


def enrolment(settings: Settings) -> str:
    """What a device needs to belong, on a line of its own: a code that is broken cannot be copied."""
    code = settings.secrets.enrolment_code.get_secret_value()
    return f"Enrolment code of devices: {code}\n`inspection product add-station` prints the whole command for a device."


@contextmanager
def stop_on_signals(up: Supervisor) -> Iterator[None]:
    """Inside the block SIGINT, SIGTERM and SIGHUP ask ``up`` to stop instead of interrupting this thread."""

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        up.ask_to_stop(at_once=up.stop_asked)  # the second one means: at once

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
