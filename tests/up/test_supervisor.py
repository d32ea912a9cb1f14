"""The supervisor on real, tiny programs that die, hang, ignore TERM and leave offspring behind."""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from inspection.errors import EnvironmentTroubleError, EscapementError
from inspection.settings import Settings, load_settings
from inspection.up import leftovers
from inspection.up.machine import free_ports, is_running
from inspection.up.rules import Phase
from inspection.up.service import Event
from inspection.up.supervisor import Supervisor
from tests.up.conftest import QUICK, Ups, service, until


def is_free(port: int) -> bool:
    """Whether the port can be bound."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def gone(pid: int) -> bool:
    """Whether no live process has this pid."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_all_are_healthy_inside_the_block_and_gone_after_it(ups: Ups, tmp_path: Path, port: int) -> None:
    """Pids and addresses are true inside; ports and the state folder are free after."""
    with ups(service("one", port, tmp_path)) as up:
        (one,) = up.services
        assert one.phase is Phase.HEALTHY
        assert one.pid is not None
        assert not is_free(port)
        assert is_running(ups.settings.state)
    assert gone(one.pid)
    assert is_free(port)
    assert not is_running(ups.settings.state)


def test_a_program_starts_after_what_it_leans_on_is_healthy(ups: Ups, tmp_path: Path) -> None:
    """The order of the list does not matter, the dependency does."""
    base, leaning = free_ports("127.0.0.1", 2)
    with ups(service("leaning", leaning, tmp_path, depends_on=("base",)), service("base", base, tmp_path)):
        order = [(event.service, event.kind) for event in ups.events]
    assert order.index(("base", "healthy")) < order.index(("leaning", "started"))


def test_what_is_killed_comes_back(ups: Ups, tmp_path: Path, port: int) -> None:
    """SIGKILL from outside leads to a new life with another pid."""
    with ups(service("one", port, tmp_path)) as up:
        first = up.service("one").pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        until(lambda: up.service("one").starts == 2 and up.service("one").phase is Phase.HEALTHY)
        assert up.service("one").pid not in {None, first}
    trouble = next(event for event in ups.events if event.kind == "trouble")
    assert "was ended by signal 9; starting it again" in trouble.message


def test_what_hangs_is_replaced(ups: Ups, tmp_path: Path, port: int) -> None:
    """A program that runs but does not answer is ended and started again."""
    with ups(service("one", port, tmp_path)) as up:
        (tmp_path / "hang").touch()
        until(lambda: up.service("one").phase is Phase.BACK_OFF or up.service("one").starts == 2)
        (tmp_path / "hang").unlink()
        until(lambda: up.service("one").starts >= 2 and up.service("one").phase is Phase.HEALTHY)
    assert any("gave no answer" in event.message for event in ups.events)


def test_a_program_that_ignores_term_is_killed(ups: Ups, tmp_path: Path, port: int) -> None:
    """After its grace it is gone all the same."""
    with ups(service("one", port, tmp_path, "ignore-term")) as up:
        pid = up.service("one").pid
    assert pid is not None
    assert gone(pid)


def test_offspring_in_a_session_of_its_own_is_stopped_too(ups: Ups, tmp_path: Path, port: int) -> None:
    """Also when the program itself was killed and could not see to it; the new life has its own offspring."""
    with ups(service("one", port, tmp_path, "offspring")) as up:
        first, pid = int((tmp_path / "offspring").read_text()), up.service("one").pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: up.service("one").starts == 2 and up.service("one").phase is Phase.HEALTHY)
        assert gone(first)
        second = int((tmp_path / "offspring").read_text())
    assert gone(second)


def test_what_dies_again_and_again_is_given_up_loudly_and_the_rest_goes_on(ups: Ups, tmp_path: Path) -> None:
    """One broken program does not take the others along."""
    ill, well = tmp_path / "ill", tmp_path / "well"
    ill.mkdir()
    well.mkdir()
    ports = free_ports("127.0.0.1", 2)
    with ups(service("ill", ports[0], ill), service("well", ports[1], well)) as up:
        (ill / "die").touch()
        until(lambda: up.service("ill").phase is Phase.GIVEN_UP)
        assert (up.service("well").phase, up.service("well").starts) == (Phase.HEALTHY, 1)
    (event,) = [event for event in ups.events if event.kind == "given up"]
    assert "Ill failed 3 times in a row, last: it ended with exit code 3" in event.message
    assert "listening" in event.message  # the end of its log


def test_a_program_that_does_not_come_up_stops_the_rest_and_shows_its_log(ups: Ups, tmp_path: Path, port: int) -> None:
    """The error carries the last lines of the log, without the secrets in them."""
    secret = ups.settings.secrets.link_key.get_secret_value()
    (tmp_path / "die").touch()
    with (
        pytest.raises(EnvironmentTroubleError, match=r"listening \*{8}") as caught,
        ups(service("one", port, tmp_path, secret)),
    ):
        pass
    assert secret not in str(caught.value)
    assert is_free(port)


def test_a_program_that_is_not_there_is_named(ups: Ups, tmp_path: Path, port: int) -> None:
    """A missing file is a sentence, not a trace."""
    missing = replace(service("one", port, tmp_path), command=(str(tmp_path / "nowhere"),))
    with pytest.raises(EnvironmentTroubleError, match=r"could not be started: .*No such file"), ups(missing):
        pass


def test_a_second_up_on_the_same_folder_is_refused_with_the_pid_of_the_first(ups: Ups, tmp_path: Path, port: int) -> None:
    """The folder is locked; the first one is not disturbed."""
    with ups(service("one", port, tmp_path)) as up:
        other = Supervisor(ups.settings, environment={}, services=[service("two", port, tmp_path)], limits=QUICK)
        with pytest.raises(EnvironmentTroubleError, match=rf"in use.*pid {os.getpid()}"):
            other.start()
        assert up.service("one").phase is Phase.HEALTHY


def test_a_taken_port_names_its_holder(ups: Ups, tmp_path: Path, port: int) -> None:
    """Nothing is started, and the person reads which program it is."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        with pytest.raises(EnvironmentTroubleError, match=rf"port {port}.*taken: by .*pid {os.getpid()}") as caught:
            ups(service("one", port, tmp_path)).__enter__()
    assert "ESCAPEMENT_ONE_URL" in str(caught.value)
    assert not is_running(ups.settings.state)


def test_a_second_up_after_a_stop_carries_on(ups: Ups, tmp_path: Path, port: int) -> None:
    """Same folder, same ports, same log."""
    for _ in range(2):
        with ups(service("one", port, tmp_path)) as up:
            log = up.service("one").log
    assert log.read_text().count("listening") == 2


def test_a_killed_watchdog_is_replaced(ups: Ups, tmp_path: Path, port: int) -> None:
    """The guard itself is guarded."""
    with ups(service("one", port, tmp_path)):
        first = watchdog()
        os.kill(first, signal.SIGKILL)
        until(lambda: watchdog() not in {0, first})


def watchdog() -> int:
    """Pid of this process's live watchdog; 0 when there is none."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # dead, also between two questions: a zombie has no command line
            if leftovers.__file__ in child.cmdline():
                return child.pid
    return 0


def test_a_listener_that_fails_stops_everything_and_is_reported(settings: Settings, tmp_path: Path, port: int) -> None:
    """An error in the supervisor's own thread is not lost."""

    def fail(event: Event) -> None:
        if event.kind == "healthy":
            raise RuntimeError("the terminal is gone")

    up = Supervisor(settings, environment={}, services=[service("one", port, tmp_path)], limits=QUICK, on_event=fail)
    with pytest.raises(EscapementError, match="the terminal is gone"), up:
        pass
    assert is_free(port)


@pytest.mark.fault
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_survives_the_death_of_the_supervisor(tmp_path: Path, port: int, how: signal.Signals) -> None:
    """However the supervisor dies: program and offspring, both deaf to TERM, are gone within seconds."""
    command = [sys.executable, "-m", "tests.up.supervise", str(tmp_path), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        program = int(supervisor.stdout.readline().split()[1])
        offspring = int((tmp_path / "offspring").read_text())
        supervisor.send_signal(how)
    until(lambda: gone(program) and gone(offspring) and is_free(port))


@pytest.mark.fault
def test_what_outlived_supervisor_and_watchdog_is_stopped_by_the_next_up(tmp_path: Path, port: int) -> None:
    """Both killed at once: the next `up` on the folder finds the rest by its mark, says so, and starts."""
    state = tmp_path / "state"
    command = [sys.executable, "-m", "tests.up.supervise", str(state), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        program = int(supervisor.stdout.readline().split()[1])
        dogs = [c for c in psutil.Process(supervisor.pid).children() if leftovers.__file__ in c.cmdline()]
        for pid in [*(dog.pid for dog in dogs), supervisor.pid]:
            os.kill(pid, signal.SIGKILL)
    assert not gone(program)
    ups = Ups(load_settings(state, {}))
    with ups(service("one", port, tmp_path)):
        assert gone(program)
    assert any("left by an earlier `inspection up`" in event.message for event in ups.events)
