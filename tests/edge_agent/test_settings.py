"""Changing `agent.json`: checked as a whole before anything is written."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_agent.config import AgentConfig, changed, load_config, shown, write_config
from edge_agent.enrolling import enrol
from edge_agent.errors import UsageError
from edge_agent.wiring import Wiring, secret
from tests.edge_agent import helpers


def config() -> AgentConfig:
    return helpers.config(helpers.Authority().root)


def test_settings_are_set_by_name_and_survive_the_file(tmp_path: Path) -> None:
    """Numbers, texts, and settings below ones that were not there yet."""
    new = changed(config(), ["takt_seconds=1.5", "wiring.modbus.host=10.0.0.5", "wiring.trigger=modbus"])
    write_config(tmp_path, new)
    read = load_config(tmp_path)
    assert read.takt_seconds == 1.5
    assert read.wiring.modbus is not None
    assert read.wiring.modbus.host == "10.0.0.5"
    assert read.wiring.trigger == "modbus"
    assert changed(read, ["takt_seconds=null"]).takt_seconds is None


@pytest.mark.parametrize(
    ("assignments", "says"),
    [
        (["takt_seconds"], "NAME=VALUE"),
        (["=3"], "NAME=VALUE"),
        (["takt_second=3"], "takt_second"),
        (["takt_seconds=-1"], "greater than 0"),
        (["takt_seconds.deep=1"], "takt_seconds"),
        (["hub.deep=1"], "hub holds no settings"),
        (["wiring.trigger=modbus"], "needs the setting 'modbus'"),
        (["wiring.trigger=semaphore"], "wiring.trigger"),
        (["wiring.modbus.host=a", "wiring.opcua.url=opc.tcp://a"], "leave one out"),
        (["enrolment.token=mine"], "NAME=VALUE"),
        (["limits.keep_queue_frames=0"], "greater than or equal to 1"),
    ],
)
def test_a_slip_changes_nothing_and_is_named(assignments: list[str], says: str) -> None:
    """What is wrong is said with the setting's name."""
    with pytest.raises(UsageError, match=says):
        changed(config(), assignments)


def test_the_token_is_not_shown() -> None:
    """What `settings` prints can be pasted into a mail."""
    assert config().enrolment.token not in str(shown(config()))


def test_a_secret_is_one_line_of_a_file(tmp_path: Path) -> None:
    """A missing or empty file is said, not taken for no password."""
    (tmp_path / "pin").write_text("4711\n")
    (tmp_path / "empty").write_text("\n")
    assert secret(str(tmp_path / "pin")) == "4711"
    assert secret(None) is None
    for name in ("missing", "empty"):
        with pytest.raises(UsageError, match=name):
            secret(str(tmp_path / name))


def test_nothing_is_wired_by_default() -> None:
    """A station without settings listens on no port and calls nobody."""
    wired = {name: value for name, value in Wiring().model_dump().items() if value is not None}
    assert wired == {"trigger": "free"}


SOMEBODY = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


@contextmanager
def somebody() -> Iterator[None]:
    """This process as a user without rights."""
    os.seteuid(SOMEBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@as_root
def test_the_folder_of_another_user_is_left_alone_even_by_root(tmp_path: Path) -> None:
    """What `sudo edge-agent settings` leaves there, the service could not read; nor is the hub asked in vain."""
    hub = helpers.FakeHub(helpers.Authority())
    write_config(tmp_path, config())
    os.chown(tmp_path, SOMEBODY, -1)
    with pytest.raises(UsageError, match=f"{tmp_path} belongs to #{SOMEBODY}; run `sudo -u #{SOMEBODY} edge-agent"):
        load_config(tmp_path)
    for force in (False, True):
        with pytest.raises(UsageError, match="belongs to"):
            enrol(hub, "dir:x", "K7", "cam1", "press1", state=tmp_path, camera=None, force=force)
    assert hub.requests == []


@as_root
def test_what_root_left_is_said_with_the_way_to_give_it_back(tmp_path: Path) -> None:
    """A folder that is root's, and a file that is, in a folder of one's own: never a traceback; enrolling keeps it."""
    write_config(tmp_path, config())
    with tempfile.TemporaryDirectory() as place:
        write_config(Path(place), config())
        os.chown(place, SOMEBODY, -1)
        with somebody(), pytest.raises(UsageError, match=r"agent\.json cannot be read: Permission denied; give it back"):
            load_config(Path(place))
        hub = helpers.FakeHub(helpers.Authority())
        with somebody(), pytest.raises(UsageError, match="sudo chown -R"):
            enrol(hub, "dir:x", "K7", "cam1", "press1", state=Path(place), camera=None, force=True)
        os.chown(place, 0, -1)
        with somebody(), pytest.raises(UsageError, match=f"belongs to root.*chown -R #{SOMEBODY} {place}"):
            load_config(Path(place))
    with somebody(), pytest.raises(UsageError, match="cannot be looked into: Permission denied"):
        load_config(tmp_path)
