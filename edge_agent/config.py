"""One frozen configuration per agent process: ``agent.json`` in the state folder, overridden by flags.

Invariants: built once by the entry point and passed down; limits carry their unit in the name; the file is written
with mode 0600 because it holds the device's token; a folder of another user is neither read nor written, root or not: what
root leaves there, the agent's own user cannot read.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_agent.camera.opening import CameraSettings
from edge_agent.errors import UsageError
from edge_agent.files import give_back, user_name, write_durably
from edge_agent.wiring import Wiring
from inspection.contracts import Enrolment

CONFIG_NAME = "agent.json"


class Limits(BaseModel):
    """Bounds of one agent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    camera_deadline_seconds: float = Field(default=2.0, gt=0)
    max_picture_bytes: int = 64 * 1024 * 1024
    max_picture_pixels: int = 64_000_000
    max_bundle_bytes: int = 512 * 1024 * 1024
    outbox_max_bytes: int = 2 * 1024 * 1024 * 1024
    outbox_max_verdicts: int = Field(default=3_000_000, ge=1)  # 72 h at 10 triggers a second are 2.6 million
    min_free_disk_bytes: int = Field(default=256 * 1024 * 1024, ge=0)
    update_reserve_bytes: int = Field(default=256 * 1024 * 1024, ge=0)  # pictures leave this much besides, for a bundle
    ballast_bytes: int = Field(default=64 * 1024 * 1024, ge=0)
    journal_keep_rows: int = Field(default=100_000, ge=0)
    ledger_check_seconds: float = Field(default=60.0, gt=0)
    keep_queue_frames: int = Field(default=8, ge=1)
    near_threshold_margin: float = Field(default=0.1, ge=0, le=1)
    probation_verdicts: int = Field(default=20, ge=1)
    probation_error_share: float = Field(default=0.2, gt=0, le=1)
    probation_starts: int = Field(default=3, ge=1)
    upload_batch_verdicts: int = Field(default=100, ge=1)
    http_timeout_seconds: float = Field(default=20.0, gt=0)
    backoff_base_seconds: float = Field(default=0.5, gt=0)
    backoff_cap_seconds: float = Field(default=60.0, gt=0)


class AgentConfig(BaseModel):
    """What one agent must know. ``hub`` is an ``http(s)://`` address or ``dir:FOLDER`` (air gap)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hub: str
    enrolment: Enrolment
    camera: str | None = None
    camera_settings: CameraSettings = CameraSettings()
    interval_seconds: float = Field(default=0.0, ge=0)
    takt_seconds: float | None = Field(default=None, gt=0)
    threads: int = Field(default=1, ge=1)
    poll_seconds: float | None = Field(default=None, gt=0)
    signal_file: str | None = None
    wiring: Wiring = Wiring()
    limits: Limits = Limits()

    @property
    def poll_every_seconds(self) -> float:
        """Seconds between two polls: our own setting, else what the hub asked for."""
        return self.poll_seconds or self.enrolment.poll_seconds

    def overridden(self, **values: Any) -> "AgentConfig":
        """The same configuration with the values that are not None replaced (and checked again)."""
        given = {k: v for k, v in values.items() if v is not None}
        return AgentConfig.model_validate(self.model_dump(mode="json") | given)


def changed(config: AgentConfig, assignments: Sequence[str]) -> AgentConfig:
    """The configuration after ``name.of.setting=value`` (JSON, or else text; ``null`` takes a setting back to nothing).

    All of them together are checked: UsageError says what is wrong, and nothing is changed.
    """
    document = config.model_dump(mode="json")
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        *path, last = name.split(".")
        if not equals or not last or path[:1] == ["enrolment"] or name == "enrolment":
            raise UsageError(f"{assignment!r} is not NAME=VALUE of a setting, as in takt_seconds=1.5; nothing was changed")
        place = document
        for step in path:
            if place.get(step) is None:
                place[step] = {}
            place = place[step]
            if not isinstance(place, dict):
                raise UsageError(f"{assignment!r}: {step} holds no settings of its own; nothing was changed")
        place[last] = _value(text)
    try:
        return AgentConfig.model_validate(document)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors())
        raise UsageError(f"{wrong}; nothing was changed") from error


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def shown(config: AgentConfig) -> dict[str, Any]:
    """The settings without the enrolment, which holds the token."""
    return {name: value for name, value in config.model_dump(mode="json").items() if name != "enrolment"}


def write_config(state: Path, config: AgentConfig) -> Path:
    """Write ``agent.json`` (mode 0600) into the state folder, made with mode 0700 when missing."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = state / CONFIG_NAME
    write_durably(path, config.model_dump_json(indent=1).encode(), mode=0o600)
    path.chmod(0o600)  # whatever the umask was
    return path


def check_owner(state: Path) -> None:
    """UsageError when the state folder belongs to another user. One that does not exist belongs to nobody."""
    try:
        owner = state.stat().st_uid
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(
            f"{state} cannot be looked into: {error.strerror}; run `sudo -u USER edge-agent ...` as the user it belongs to"
        ) from error
    if owner == os.geteuid():
        return
    by_mistake = f"; where root made it by mistake: `{give_back(state)}`" if owner == 0 else ""
    raise UsageError(f"{state} belongs to {user_name(owner)}; run `sudo -u {user_name(owner)} edge-agent ...`{by_mistake}")


def config_bytes(state: Path) -> bytes:
    """``agent.json`` as it lies there. UsageError when there is none, or it may not be read."""
    check_owner(state)
    path = state / CONFIG_NAME
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UsageError(
            f"{path} does not exist: this device is not enrolled; run `edge-agent enrol --help` first"
        ) from None
    except OSError as error:
        what = f"give it back: `{give_back(state)}`" if isinstance(error, PermissionError) else "check the disk"
        raise UsageError(f"{path} cannot be read: {error.strerror}; {what}") from error


def load_config(state: Path) -> AgentConfig:
    """Read ``agent.json``. UsageError when the device was never enrolled, the folder is another user's, or the file is
    damaged."""
    try:
        return AgentConfig.model_validate_json(config_bytes(state))
    except ValidationError as error:
        raise UsageError(
            f"{state / CONFIG_NAME} is damaged ({error}); enrol again with `edge-agent enrol --force`"
        ) from error
