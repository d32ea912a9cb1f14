"""One challenge: known parts in their order, what each must get, what it got. Pure: no clock, no file, no thread.

Invariants: NG and INCONCLUSIVE both catch a known-bad part, since both keep it off the line; ERROR is no answer, so the
part is shown again; a challenge proves one bundle with one recipe in one mode, so it ends when one of them changes.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, computed_field, model_validator

from inspection.contracts import Decision, Mode, Verdict

MOST_PARTS = 50
MOST_ERRORS = 20
"""So many pictures of one part that cannot be judged, and the challenge ends: showing it again does not help."""


class Outcome(StrEnum):
    """How a challenge stands. ``REJECTS_GOOD``: every known-bad part was caught, but a known-good one was not passed."""

    RUNNING = "running"
    PASSED = "passed"
    REJECTS_GOOD = "rejects_good"
    FAILED = "failed"
    ENDED_EARLY = "ended_early"


class Result(StrEnum):
    """What the station did with one known part."""

    CAUGHT = "caught"
    MISSED = "missed"
    PASSED = "passed"
    REJECTED = "rejected"


def printable(text: str) -> str:
    """``text`` itself. ValueError when it holds control characters, or begins or ends with a blank."""
    if not text.isprintable() or text != text.strip():
        raise ValueError("must be printable, without blanks at either end")
    return text


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Known(BaseModel):
    """A known part to be shown: what it must get, and what people call it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    expected: Literal["NG", "OK"]
    name: Annotated[str, Field(max_length=80), AfterValidator(printable)] = ""


class Plan(BaseModel):
    """What a person asks for. ``confirm``: a part counts only after somebody said that it lies there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parts: Annotated[list[Known], Field(min_length=1, max_length=MOST_PARTS)]
    confirm: bool = False

    @model_validator(mode="after")
    def _has_a_bad_part(self) -> "Plan":
        if all(part.expected == "OK" for part in self.parts):
            raise ValueError("a challenge needs at least one known-bad part: good ones alone prove nothing")
        return self


class Shown(_Record):
    """One verdict on a known part."""

    verdict_id: str
    part: str
    decision: Decision
    defect_class: str | None = None
    reason: str | None = None


class Step(_Record):
    """One known part and the verdicts on it; the last one counts unless it is ERROR."""

    expected: Literal["NG", "OK"]
    name: str = ""
    shown: tuple[Shown, ...] = ()

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own advice for a computed property
    @property
    def result(self) -> Result | None:
        """What came of it, or None: not judged yet."""
        if not self.shown or self.shown[-1].decision is Decision.ERROR:
            return None
        passed = self.shown[-1].decision is Decision.OK
        if self.expected == "NG":
            return Result.MISSED if passed else Result.CAUGHT
        return Result.PASSED if passed else Result.REJECTED


class Trial(_Record):
    """A challenge, running or ended. ``why``: why it ended before every part was judged."""

    schema_: str = Field(default="escapement.challenge/1.0", alias="schema", pattern=r"^escapement\.challenge/1\.")
    id: str
    station: str
    started_at: datetime
    ended_at: datetime | None = None
    mode: Mode
    bundle_digest: str
    recipe_digest: str
    model: str
    confirm: bool = False
    steps: tuple[Step, ...]
    why: str | None = None

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own advice for a computed property
    @property
    def outcome(self) -> Outcome:
        """How it stands."""
        if self.ended_at is None:
            return Outcome.RUNNING
        results = [step.result for step in self.steps]
        if Result.MISSED in results:  # also of one that ended early: an escape is an escape
            return Outcome.FAILED
        if self.why is not None:
            return Outcome.ENDED_EARLY
        return Outcome.REJECTS_GOOD if Result.REJECTED in results else Outcome.PASSED

    @property
    def position(self) -> int:
        """Which step is next, counted from 0; as many as there are when all are done."""
        return next((i for i, step in enumerate(self.steps) if step.result is None), len(self.steps))

    def count(self, result: Result) -> int:
        """How many parts came to this."""
        return sum(step.result is result for step in self.steps)

    def of(self, expected: str) -> int:
        """How many known parts must get ``expected``."""
        return sum(step.expected == expected for step in self.steps)

    def ended(self, at: datetime, why: str | None = None) -> "Trial":
        """The same, ended; unchanged when it was."""
        return self if self.ended_at else self.model_copy(update={"ended_at": at, "why": why})

    def taken(self, verdict: Verdict, at: datetime) -> "Trial":
        """The same after one more verdict; ended when that was the last part, or when it proves something else now."""
        if self.ended_at is not None:
            return self
        if (changed := self._changed(verdict)) is not None:
            return self.ended(at, changed)
        position = self.position
        steps = list(self.steps)
        steps[position] = _with(steps[position], verdict)
        after = self.model_copy(update={"steps": tuple(steps)})
        if after.position == len(steps):
            return after.ended(at)
        if len(steps[position].shown) >= MOST_ERRORS and after.position == position:
            return after.ended(at, f"part {position + 1} could not be judged {MOST_ERRORS} times: {verdict.reason}")
        return after

    def _changed(self, verdict: Verdict) -> str | None:
        if verdict.mode is not self.mode:
            return f"the station went into mode {verdict.mode.value}"
        if verdict.bundle_digest not in (None, self.bundle_digest):
            return "another bundle came into force"
        if verdict.recipe_digest not in (None, self.recipe_digest):
            return "another recipe came into force"
        return None


def _with(step: Step, verdict: Verdict) -> Step:
    shown = Shown(
        verdict_id=verdict.id,
        part=verdict.part,
        decision=verdict.decision,
        defect_class=verdict.defect_class,
        reason=verdict.reason,
    )
    return step.model_copy(update={"shown": (*step.shown, shown)})
