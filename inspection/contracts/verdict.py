"""Verdict: what was decided about one trigger, by what, from what, how fast."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from inspection.contracts.base import Contract, Name, Part, Probability, Sha256, Utc


class Decision(StrEnum):
    """The four decisions; everything but OK raises the NG output."""

    OK = "OK"
    NG = "NG"
    INCONCLUSIVE = "INCONCLUSIVE"
    ERROR = "ERROR"


class Mode(StrEnum):
    """What a station is allowed to do."""

    COLLECT = "collect"
    SHADOW = "shadow"
    JUDGE = "judge"


class Box(Part):
    """A region in pixels of the captured frame: left, top, width, height, all >= 0."""

    x: float = Field(ge=0, allow_inf_nan=False)
    y: float = Field(ge=0, allow_inf_nan=False)
    width: float = Field(gt=0, allow_inf_nan=False)
    height: float = Field(gt=0, allow_inf_nan=False)
    label: str
    score: Probability = 1.0


class Band(Part):
    """Thresholds on one defect score: below ``inconclusive`` OK, from ``ng`` NG, between INCONCLUSIVE."""

    inconclusive: Probability
    ng: Probability


class VerdictKey(Part):
    """The idempotency key of a verdict."""

    device: Name
    boot: str
    sequence: int = Field(ge=1)


class Purpose(StrEnum):
    """Why a part was shown: made on the line, or a known part shown to prove that the station still catches it."""

    PRODUCTION = "production"
    CHALLENGE = "challenge"


class ChallengerView(Part):
    """What a challenger, which answers nobody, made of the same frame. ``infer_ms``: milliseconds of its inference."""

    bundle_digest: Sha256
    decision: Decision
    defect_class: str | None = None
    scores: dict[str, Probability] = {}
    infer_ms: float = Field(ge=0)


class ErrorCode(StrEnum):
    """Why a verdict is ERROR, for machines; ``reason`` says it to people. Later versions may know more."""

    NO_FRAME = "no_frame"
    UNFIT_FRAME = "unfit_frame"
    NO_BUNDLE = "no_bundle"
    MODEL = "model"
    MISFIT = "misfit"
    LATE = "late"
    NO_MEMORY = "no_memory"


class Verdict(Contract):
    """One trigger's verdict. ``(device, boot, sequence)`` is the idempotency key.

    ``scores`` are class probabilities in [0, 1] that sum to 1 (empty on ERROR, unless it only came too late).
    ``novelty`` says how far the picture lies from the good ones the model has learnt (None: the model does not say).
    ``frame_sha256`` is the digest of the stored, losslessly encoded picture (PNG), or None when the picture was not kept.
    ``timings_ms`` are milliseconds per stage.
    """

    SCHEMA: ClassVar[str] = "escapement.verdict/1.3"

    id: str
    device: Name
    boot: str
    sequence: int = Field(ge=1)
    station: Name
    product: Name
    part: str
    lot: str | None = None
    captured_at: Utc
    mode: Mode = Mode.JUDGE
    purpose: Purpose = Purpose.PRODUCTION
    decision: Decision
    reason: str | None = None
    error_code: str | None = None  # an `ErrorCode`, when the decision is ERROR
    defect_class: str | None = None
    scores: dict[str, Probability] = {}
    novelty: Probability | None = None
    thresholds: dict[str, Band] = {}
    regions: list[Box] = []
    frame_sha256: Sha256 | None = None
    bundle_digest: Sha256 | None = None
    recipe_digest: Sha256 | None = None
    timings_ms: dict[str, float] = {}
    challenger: ChallengerView | None = None
    agent_version: str

    @property
    def key(self) -> VerdictKey:
        """The idempotency key."""
        return VerdictKey(device=self.device, boot=self.boot, sequence=self.sequence)


class PictureNote(Contract):
    """What travels with an uploaded picture: whose it is and why it was chosen."""

    SCHEMA: ClassVar[str] = "escapement.picture/1.0"

    sha256: Sha256
    length: int = Field(gt=0)
    verdict_id: str
    why: str  # "ng" | "inconclusive" | "near_threshold" | "audit" | "disagree" | "collect"


class Receipt(Contract):
    """The hub's word that it holds exactly these bytes; only now may the sender delete its copy."""

    SCHEMA: ClassVar[str] = "escapement.receipt/1.0"

    kind: str  # "verdict" | "picture"
    key: str  # the verdict's id, or the picture's sha256
    sha256: Sha256  # of the verdict's canonical bytes, or of the picture's bytes
    new: bool  # False: the hub held it already
