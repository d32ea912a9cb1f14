"""One frozen settings object, built once by an entry point and passed down; nobody below reads the environment.

State lives in one folder. ``settings.json`` in it holds addresses (written by ``inspection up``), ``secrets.json``
(mode 0600) what must stay secret. Environment variables ``ESCAPEMENT_<FIELD>`` override both, and
``ESCAPEMENT_TRAIN_<FIELD>`` what trainings run on.
"""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from inspection.errors import UsageError

ENV_PREFIX = "ESCAPEMENT_"
SETTINGS_FILE = "settings.json"
SECRETS_FILE = "secrets.json"
MAX_PICTURE_BYTES = 64 * 1024 * 1024
MAX_PICTURE_PIXELS = 64_000_000


class Secrets(BaseModel):
    """Random secrets, made once per state folder."""

    model_config = ConfigDict(frozen=True)

    console_password: SecretStr
    label_studio_password: SecretStr
    label_studio_token: SecretStr
    link_key: SecretStr
    enrolment_code: SecretStr

    @classmethod
    def generate(cls) -> "Secrets":
        """Fresh random secrets. The Label Studio token has the 40 hexadecimal digits its database column takes."""
        return cls(
            console_password=SecretStr(secrets.token_urlsafe(12)),
            label_studio_password=SecretStr(secrets.token_urlsafe(12)),
            label_studio_token=SecretStr(secrets.token_hex(20)),
            link_key=SecretStr(secrets.token_hex(32)),
            enrolment_code=SecretStr(secrets.token_urlsafe(12)),
        )


class Training(BaseModel):
    """What trainings run on. By default every GPU of this machine, or its processor.

    ``accelerator`` and ``devices`` as Lightning names them ("cpu", "gpu"; a number, or "auto"); ``workers``: loading
    processes of each device (None: by the machine's cores). With ``nodes`` above one every machine runs the same
    `inspection train --snapshot S` on one shared state folder, told apart by ``NODE_RANK``, with one ``MASTER_ADDR`` and
    ``MASTER_PORT`` for all; flows train on one machine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    nodes: int = Field(default=1, ge=1)
    workers: int | None = Field(default=None, ge=0)


class Settings(BaseModel):
    """Everything a program of the server side must know. URLs have no trailing slash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: Path
    database_url: str
    blob_url: str
    hub_url: str = "http://127.0.0.1:8470"
    label_studio_url: str = "http://127.0.0.1:8471"
    mlflow_url: str = "http://127.0.0.1:8472"
    prefect_url: str = "http://127.0.0.1:8473"
    label_studio_user: str = "operator@escapement.example"
    label_studio_database: str | None = None
    console_user: str = "engineer"
    agent_poll_seconds: float = 30.0
    max_picture_bytes: int = MAX_PICTURE_BYTES
    max_picture_pixels: int = MAX_PICTURE_PIXELS
    training: Training = Training()
    secrets: Secrets

    @property
    def keys(self) -> Path:
        """Folder of the signing keys (mode 0700)."""
        return self.state / "keys"


def default_state(env: Mapping[str, str]) -> Path:
    """The state folder when none is named: ``$ESCAPEMENT_STATE``, else ``./state``."""
    return Path(env.get(ENV_PREFIX + "STATE", "state")).absolute()


def load_secrets(state: Path) -> Secrets:
    """Read ``secrets.json`` of the state folder, or make it (mode 0600) the first time."""
    path = state / SECRETS_FILE
    try:
        return Secrets.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        pass
    made = Secrets.generate()
    content = {k: v.get_secret_value() for k, v in made}
    state.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        json.dump(content, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    try:
        os.link(temporary, path)  # fails when another process made them first: theirs count
    except FileExistsError:
        return load_secrets(state)
    finally:
        temporary.unlink()
    return made


def _places(state: Path) -> dict[str, str]:
    """Where rows and pictures are kept unless something else is said."""
    return {"database_url": f"sqlite:///{state / 'escapement.db'}", "blob_url": f"file://{state / 'blobs'}"}


def _training(env: Mapping[str, str]) -> dict[str, str]:
    found = {field: env.get(f"{ENV_PREFIX}TRAIN_{field.upper()}") for field in Training.model_fields}
    return {field: value for field, value in found.items() if value}


def load_training(env: Mapping[str, str]) -> Training:
    """``ESCAPEMENT_TRAIN_DEVICES`` and the like alone, for what needs no state folder. Raises UsageError."""
    try:
        return Training.model_validate(_training(env))
    except ValueError as error:
        raise UsageError(f"ESCAPEMENT_TRAIN_... cannot be used: {error}") from error


def load_settings(state: Path, env: Mapping[str, str], **overrides: Any) -> Settings:
    """Build the settings of a state folder: defaults, ``settings.json``, ``env``, then ``overrides``.

    Raises UsageError on an unknown field in ``settings.json`` or a value of the wrong form.
    """
    state = state.absolute()
    values: dict[str, Any] = {"state": state, **_places(state)}
    path = state / SETTINGS_FILE
    if path.exists():
        values.update(json.loads(path.read_text()))
    for field in Settings.model_fields:
        if field not in {"secrets", "state", "training"} and (given := env.get(ENV_PREFIX + field.upper())):
            values[field] = given
    values["training"] = {**values.get("training", {}), **_training(env)}
    values.update(overrides)
    state.mkdir(parents=True, exist_ok=True)
    try:
        return Settings(**values, secrets=load_secrets(state))
    except ValueError as error:
        raise UsageError(f"settings of {state} cannot be used: {error}") from error


def save_settings(settings: Settings) -> None:
    """Write the non-secret part to ``settings.json``, atomically, so that other programs find the same addresses."""
    body = settings.model_dump(mode="json", exclude={"secrets", "state"})
    for field, value in _places(settings.state).items():
        if body[field] == value:
            del body[field]  # follows the folder, which may be moved
    path = settings.state / SETTINGS_FILE
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.touch(mode=0o600)  # a database URL may hold a password
    temporary.write_text(json.dumps(body, indent=1))
    temporary.replace(path)
