"""What stands in the way on this machine, and the words for it."""

import socket
from pathlib import Path

import pytest

from inspection.settings import Settings
from inspection.up import logs
from inspection.up.machine import disk_problem, is_running, port_problem, state_lock
from inspection.up.preflight import preflight
from tests.up.conftest import service

ENVIRONMENT = {"ESCAPEMENT_LABEL_STUDIO": __file__}  # any file will do: nothing is started


def test_a_disk_without_room_is_told_with_figures(tmp_path: Path) -> None:
    """Also for a folder that does not exist yet."""
    assert disk_problem(tmp_path / "not" / "yet", needed=1) is None
    problem = disk_problem(tmp_path / "not" / "yet", needed=2**62)
    assert problem is not None
    assert "MiB free" in problem.why
    assert "--state" in problem.next_step


def test_an_address_of_another_machine_cannot_be_listened_on(tmp_path: Path) -> None:
    """192.0.2.0/24 belongs to nobody."""
    one = service("one", 20_001, tmp_path)
    problem = port_problem(type(one)(**{**vars(one), "host": "192.0.2.1"}), tmp_path)
    assert problem is not None
    assert "Cannot assign requested address" in problem.why


def test_the_state_lock_is_free_after_its_block(tmp_path: Path) -> None:
    """The file may stay, the lock does not."""
    assert not is_running(tmp_path)
    with state_lock(tmp_path):
        assert is_running(tmp_path)
    assert not is_running(tmp_path)


def test_preflight_names_a_taken_port_and_a_missing_label_studio(settings: Settings, port: int) -> None:
    """All problems at once, not the first only; none of them once they are mended."""
    mine = settings.model_copy(update={"hub_url": f"http://127.0.0.1:{port}"})
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        found = preflight(mine, environment={"ESCAPEMENT_LABEL_STUDIO": "/nowhere/label-studio"})
    words = "\n".join(map(str, found))
    assert f"port {port}, which Hub needs, is taken" in words
    assert "label-studio is missing" in words
    mended = "\n".join(map(str, preflight(mine, environment=ENVIRONMENT)))
    assert str(port) not in mended
    assert "label-studio" not in mended


def test_preflight_does_not_take_a_running_up_for_a_stranger(settings: Settings, port: int) -> None:
    """While an `up` holds the folder its ports are its own."""
    mine = settings.model_copy(update={"hub_url": f"http://127.0.0.1:{port}"})
    with socket.socket() as holder, state_lock(mine.state):
        holder.bind(("127.0.0.1", port))
        holder.listen()
        assert str(port) not in "\n".join(map(str, preflight(mine, environment=ENVIRONMENT)))


def test_preflight_tells_secrets_that_others_can_read(settings: Settings) -> None:
    """With the command that mends it."""
    secrets = settings.state / "secrets.json"
    secrets.chmod(0o644)
    assert any(p.next_step == f"chmod 600 {secrets}" for p in preflight(settings, environment=ENVIRONMENT))


def test_preflight_tells_addresses_that_cannot_be_used(settings: Settings) -> None:
    """A bad URL is a problem in the list, not a trace."""
    wrong = settings.model_copy(update={"hub_url": "ftp://x"})
    assert any("ftp://x cannot be served here" in p.why for p in preflight(wrong, environment=ENVIRONMENT))


@pytest.mark.parametrize(("size", "cut"), [(100, False), (101, True)])
def test_a_log_is_bounded_and_the_one_before_is_kept(tmp_path: Path, size: int, cut: bool) -> None:
    """A writer that has it open for appending goes on at the new end."""
    path = tmp_path / "x.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"x" * size)
        assert logs.bound(path, 100) is cut
        writer.write(b"new")
    assert path.read_bytes() == (b"new" if cut else b"x" * size + b"new")
    assert path.with_name("x.log.1").exists() is cut


def test_the_tail_of_a_log_is_its_last_lines_without_secrets(tmp_path: Path) -> None:
    """Bytes that are no text do not get in the way."""
    path = tmp_path / "x.log"
    path.write_bytes(b"\xff\n" * 20_000 + b"one\nkey=hunter2\n")
    assert logs.tail(path, 2, ["hunter2"]) == "one\nkey=********"
    assert logs.tail(tmp_path / "none", 2) == ""
