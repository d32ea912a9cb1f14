"""Recipe: how scores become a decision. Signed and released apart from the weights."""

from typing import ClassVar, Self

from pydantic import Field, model_validator

from inspection.contracts.base import Contract, Name, Part, Probability
from inspection.contracts.verdict import Band

ANY_DEFECT = "*"
"""Key of the band on the total defect score, 1 - score(good class)."""


class Region(Part):
    """A rectangle of the frame in pixels."""

    x: int = Field(ge=0)
    y: int = Field(ge=0)
    width: int = Field(gt=0)
    height: int = Field(gt=0)


class Tiling(Part):
    """A grid of native-resolution tiles over the region of interest; ``overlap`` in pixels."""

    rows: int = Field(default=1, ge=1)
    columns: int = Field(default=1, ge=1)
    overlap: int = Field(default=0, ge=0)


class Limits(Part):
    """What the product tolerates. The gate compares one-sided upper bounds at ``confidence`` with these rates."""

    escape_rate: Probability
    overkill_rate: Probability
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0)


class Costs(Part):
    """Cost of one escape and of one overkill, in the same currency; only their ratio matters."""

    escape: float = Field(default=10.0, gt=0)
    overkill: float = Field(default=1.0, gt=0)


class Promise(Part):
    """What validation parts promise of the thresholds: with ``confidence`` over their draw, at most ``escape_rate`` of
    defective parts have a total defect score below ``edge``, as ``misses`` of ``parts`` had. ``words`` say it to people.

    ``within_limit``: whether that rate is within the recipe's limit.
    """

    edge: Probability
    escape_rate: Probability
    confidence: float = Field(gt=0, lt=1)
    misses: int = Field(ge=0)
    parts: int = Field(ge=0)
    within_limit: bool
    words: str


class Recipe(Contract):
    """Thresholds and geometry of one product. ``thresholds`` has a band per defect class and/or ``"*"`` for any defect.

    ``promise`` is about these thresholds: whoever moves them up leaves it out or makes it anew. A picture whose novelty is
    ``unfamiliar`` or more cannot be OK (None: novelty is not asked for).
    """

    SCHEMA: ClassVar[str] = "escapement.recipe/1.2"

    product: Name
    version: int = Field(ge=1)
    good_class: str
    region: Region | None = None
    tiling: Tiling = Tiling()
    thresholds: dict[str, Band]
    limits: Limits
    costs: Costs = Costs()
    promise: Promise | None = None
    unfamiliar: Probability | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.thresholds:
            raise ValueError("a recipe needs at least one threshold")
        if self.good_class in self.thresholds:
            raise ValueError(f"the good class {self.good_class!r} cannot have a defect threshold")
        for name, band in self.thresholds.items():
            if band.inconclusive > band.ng:
                raise ValueError(f"threshold {name!r}: inconclusive {band.inconclusive} is above ng {band.ng}")
        self._keeps_its_promise()
        return self

    def _keeps_its_promise(self) -> None:
        if self.promise is None:
            return
        band = self.thresholds.get(ANY_DEFECT)
        if band is None or band.inconclusive > self.promise.edge:
            raise ValueError(
                f"the promise is about parts below {self.promise.edge}, but others pass: leave it out or calibrate anew"
            )
