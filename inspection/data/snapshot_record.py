"""The record of a snapshot: which pictures, with which labels, on which side. Immutable; its id is its digest."""

from collections import Counter
from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from inspection.contracts import Box, Contract, Part, Sha256
from inspection.contracts.base import Name

UNUSUAL = "unusual"
"""Second class of a cold start: whatever good pictures do not show. Nobody labels a picture so."""


class Split(StrEnum):
    """Sides of a split. ``validation`` stops training early and sets thresholds; ``golden`` only judges."""

    TRAIN = "train"
    VALIDATION = "validation"
    GOLDEN = "golden"


class Example(Part):
    """One labelled picture. ``group`` never straddles splits; ``part`` is the physical part."""

    picture: Sha256
    label: str
    part: str
    group: str
    split: Split
    station: str | None = None
    boxes: list[Box] = []


RARE_CLASS = "rare_class"
"""Why a picture was left out whose class has too few to be learnt."""


class Refused(Part):
    """A labelled picture that was left out, and why (counted, shown, never silent)."""

    picture: Sha256
    # "near_duplicate" | "same_part" | "contradictory_labels" | RARE_CLASS | "cannot_tell" | "unknown_class" | "not_good"
    reason: str
    detail: str


class Snapshot(Contract):
    """Examples sorted by picture digest. ``digest`` is the snapshot's id. ``classes`` are those to learn; golden examples
    may be of others, which were too rare."""

    SCHEMA: ClassVar[str] = "escapement.snapshot/1.0"

    product: Name
    good_class: str
    classes: list[str] = Field(min_length=2)
    examples: list[Example]
    refused: list[Refused] = []

    @property
    def cold_start(self) -> bool:
        """Whether it holds good pictures alone, for a model that is to know good from `UNUSUAL`."""
        return self.classes == [self.good_class, UNUSUAL] and all(e.label == self.good_class for e in self.examples)

    def of(self, split: Split) -> list[Example]:
        """The examples of one side."""
        return [e for e in self.examples if e.split is split]

    def counts(self) -> dict[str, dict[str, int]]:
        """Pictures by side and class, and ``refused`` by reason."""
        sides = {side.value: Counter(e.label for e in self.of(side)) for side in Split}
        sides["refused"] = Counter(r.reason for r in self.refused)
        return {name: dict(found) for name, found in sides.items()}

    def in_words(self) -> str:
        """For people: its id, then what it holds."""
        rows = [f"  {side}: {_listed(found)}" for side, found in self.counts().items()]
        return "\n".join([f"snapshot {self.digest}, {len(self.examples)} pictures of {self.product}", *rows])


def _listed(found: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(found.items())) or "none"
