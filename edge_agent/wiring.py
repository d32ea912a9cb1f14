"""What a station is wired to, as settings: the line's controller, a broker, a web address, its own page.

Invariants: no secret stands in `agent.json` beside the hub's token (passwords come from files); what is not set is off.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edge_agent.errors import UsageError

TriggerKind = Literal["free", "interval", "http", "mqtt", "modbus", "opcua"]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Modbus(_Settings):
    """A PLC that serves holding registers over Modbus TCP; the agent is the client. ``command_address`` is the first
    register the PLC writes, ``result_address`` the first the agent writes (both counted from 0; the map is in
    ``edge_agent/plc/REGISTERS.md``)."""

    host: str
    port: int = Field(default=502, ge=1, le=65535)
    unit: int = Field(default=1, ge=0, le=255)
    command_address: int = Field(default=0, ge=0, le=65535)
    result_address: int = Field(default=100, ge=0, le=65535)
    poll_seconds: float = Field(default=0.01, gt=0, le=1)
    timeout_seconds: float = Field(default=0.5, gt=0)


class OpcUa(_Settings):
    """A PLC that serves OPC UA; the agent is the client. ``prefix`` comes before each name of the map, as in
    ``ns=2;s=Line1.Inspection.``"""

    url: str
    prefix: str = "ns=2;s=Inspection."
    user: str | None = None
    password_file: str | None = None
    poll_seconds: float = Field(default=0.02, gt=0, le=1)
    timeout_seconds: float = Field(default=1.0, gt=0)


class Mqtt(_Settings):
    """A broker. Topics are ``<prefix>/<station>/trigger | verdict | status | missed``; results are sent whenever a broker
    is set, triggers are taken when the trigger is ``mqtt``."""

    host: str
    port: int = Field(default=1883, ge=1, le=65535)
    prefix: str = "escapement"
    user: str | None = None
    password_file: str | None = None
    tls: bool = False
    ca_file: str | None = None
    keepalive_seconds: int = Field(default=15, ge=1)


class Webhook(_Settings):
    """A web address that gets each verdict as JSON. ``token_file`` holds a bearer token."""

    url: str = Field(pattern=r"^https?://")
    token_file: str | None = None
    timeout_seconds: float = Field(default=5.0, gt=0)
    queue_verdicts: int = Field(default=1000, ge=1)


class Page(_Settings):
    """The station's page. ``pin_file`` holds the PIN that allows changes; without one the page only shows.
    ``trigger_token_file`` holds the bearer token that all HTTP triggers need, also this computer's; without one only this
    computer may trigger, and behind a proxy everybody looks like it."""

    host: str = "127.0.0.1"
    port: int = Field(default=8480, ge=0, le=65535)
    pin_file: str | None = None
    trigger_token_file: str | None = None
    names: list[str] = []  # further host names under which the page may be asked for (a DNS name of this computer)


def page_at(where: str) -> Page | None:
    """``HOST:PORT``, or ``off``. UsageError for anything else."""
    if where == "off":
        return None
    host, _, port = where.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--page {where!r} is neither HOST:PORT nor off")
    return Page(host=host.strip("[]"), port=int(port))


class Wiring(_Settings):
    """All of it."""

    trigger: TriggerKind = "free"
    modbus: Modbus | None = None
    opcua: OpcUa | None = None
    mqtt: Mqtt | None = None
    webhook: Webhook | None = None
    page: Page | None = None

    @model_validator(mode="after")
    def _trigger_has_its_wire(self) -> "Wiring":
        needs = {"http": "page", "mqtt": "mqtt", "modbus": "modbus", "opcua": "opcua"}.get(self.trigger)
        if needs is not None and getattr(self, needs) is None:
            raise ValueError(f"trigger {self.trigger} needs the setting {needs!r}")
        if self.modbus is not None and self.opcua is not None:
            raise ValueError("modbus and opcua are both set, but one controller has one handshake: leave one out")
        return self


def secret(path: str | None) -> str | None:
    """The one line of a file that holds a password, a PIN or a token. UsageError when it cannot be read or is empty."""
    if path is None:
        return None
    try:
        found = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error}); put the secret there, readable by this user only") from error
    if not found:
        raise UsageError(f"{path} is empty; put the secret there, on one line")
    return found
