"""Changing `agent.json`: checked as a whole before anything is written."""

from pathlib import Path

import pytest

from edge_agent.config import AgentConfig, changed, load_config, shown, write_config
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
