"""Fleet: what the hub asks of an agent (assignment), what the agent says of itself (report), who may sign."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from inspection.contracts.base import Contract, Name, Part, Sha256, Utc
from inspection.contracts.verdict import Mode


class TargetKind(StrEnum):
    """What can be released to a device."""

    BUNDLE = "bundle"
    RECIPE = "recipe"


class Release(Contract):
    """The signed statement about one target's bytes: payload of its DSSE envelope, signed by a release key."""

    SCHEMA: ClassVar[str] = "escapement.release/1.0"

    kind: TargetKind
    product: Name
    name: str
    version: int = Field(ge=1)
    sha256: Sha256
    length: int = Field(gt=0)
    signed_at: Utc


class Target(Part):
    """A pointer to a released target."""

    sha256: Sha256
    length: int = Field(gt=0)
    version: int = Field(ge=1)


class Assignment(Contract):
    """What one station shall run: payload of a DSSE envelope signed by a fleet key. ``serial`` only rises."""

    SCHEMA: ClassVar[str] = "escapement.assignment/1.1"

    station: Name
    serial: int = Field(ge=1)
    mode: Mode
    bundle: Target | None = None
    recipe: Target | None = None
    challenger: Target | None = None  # a bundle that judges beside it without answering
    audit_share: float = Field(default=0.02, ge=0, le=1)  # share of OK parts whose picture is kept and uploaded
    issued_at: Utc


class PublicKey(Part):
    """An Ed25519 public key (PEM) and its id."""

    keyid: str
    pem: str


class TrustRoot(Contract):
    """Whom a device believes: keys that may sign releases, keys that may sign assignments."""

    SCHEMA: ClassVar[str] = "escapement.trust/1.0"

    release: list[PublicKey] = Field(min_length=1)
    fleet: list[PublicKey] = Field(min_length=1)


class AgentState(StrEnum):
    """What the agent is doing. In HOLD it cannot say OK."""

    RUNNING = "running"
    PROBATION = "probation"
    HOLD = "hold"


class Ledger(Part):
    """The two identities: triggers = ok + ng + inconclusive + error + missed; stored = uploaded + pending + evicted."""

    triggers: int = Field(default=0, ge=0)
    ok: int = Field(default=0, ge=0)
    ng: int = Field(default=0, ge=0)
    inconclusive: int = Field(default=0, ge=0)
    error: int = Field(default=0, ge=0)
    missed: int = Field(default=0, ge=0)
    stored: int = Field(default=0, ge=0)
    uploaded: int = Field(default=0, ge=0)
    pending: int = Field(default=0, ge=0)
    evicted: int = Field(default=0, ge=0)

    @property
    def closes(self) -> bool:
        """True when both identities hold."""
        return (
            self.triggers == self.ok + self.ng + self.inconclusive + self.error + self.missed
            and self.stored == self.uploaded + self.pending + self.evicted
        )


class Report(Contract):
    """What a device says of itself; counts go over all restarts."""

    SCHEMA: ClassVar[str] = "escapement.report/1.1"

    device: Name
    station: Name
    boot: str
    at: Utc
    state: AgentState
    mode: Mode
    assignment_serial: int = Field(default=0, ge=0)
    bundle_digest: Sha256 | None = None
    recipe_digest: Sha256 | None = None
    verdicts_by_digest: dict[str, int] = {}  # on parts of the line; older agents count known parts of a challenge too
    ledger: Ledger = Ledger()
    outbox_depth: int = Field(default=0, ge=0)
    free_disk_bytes: int = Field(default=0, ge=0)
    camera: dict[str, str | float | int | bool | None] = {}
    machine: dict[str, str] = {}  # processor, runtimes: what the scores depend on beside the bundle
    challenger_digest: Sha256 | None = None
    counters: dict[str, int] = {}  # over all restarts: late, pictures_dropped, challenger_skipped and the like
    last_error: str | None = None
    refused: list[str] = []  # targets this agent refused, with the reason in words
    agent_version: str


class Enrolment(Contract):
    """The hub's answer to an enrolment: the device's name, its secret, whom to believe."""

    SCHEMA: ClassVar[str] = "escapement.enrolment/1.0"

    device: Name
    station: Name
    product: Name
    token: str
    trust: TrustRoot
    poll_seconds: float = Field(default=30.0, gt=0)
