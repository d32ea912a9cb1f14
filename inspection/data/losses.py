"""Losses: classes of which a new snapshot holds far less than the one the champion was made from. Pure.

A class that vanishes teaches nothing and judges nobody: the next model lets it through, and no gate would notice. Labels
only ever grow, so a class shrinks by what people do to labels or to the product, and that is asked about before anything
is trained.

Invariants: every class of the former snapshot is looked at on every side of the split; a loss that was said to be meant is
none, down to the number that was said.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from inspection.data.snapshot_record import Snapshot, Split

LEAST_SHARE = 0.5  # of a class's pictures on a side that must still be there


@dataclass(frozen=True)
class Loss:
    """A class's pictures on one side: how many there were and are, and what became of those that are missing."""

    name: str
    side: Split
    before: int
    now: int
    fates: dict[str, int]

    def __str__(self) -> str:
        fates = ", ".join(
            f"{count} {fate}" for fate, count in sorted(self.fates.items(), key=lambda item: (-item[1], item[0]))
        )
        return f"class {self.name!r} had {self.before} {self.side.value} pictures and has {self.now} ({fates})"


def losses(before: Snapshot, now: Snapshot, meant: Mapping[str, int]) -> list[Loss]:
    """Classes with less than `LEAST_SHARE` of their former pictures on a side, in the former snapshot's order.

    ``meant``: so few pictures of a class on a side are no loss, by its name.
    """
    found = []
    for name in before.classes:
        for side in Split:
            had = [e.picture for e in before.of(side) if e.label == name]
            has = sum(e.label == name for e in now.of(side))
            if has < LEAST_SHARE * len(had) and has < meant.get(name, len(had)):
                found.append(Loss(name, side, len(had), has, _fates(had, name, side, now)))
    return found


def _fates(pictures: list[str], name: str, side: Split, now: Snapshot) -> dict[str, int]:
    there = {e.picture: e for e in now.examples}
    refused = {item.picture: item.reason for item in now.refused}
    fates: Counter[str] = Counter()
    for picture in pictures:
        example = there.get(picture)
        if example is None:
            fates[f"left out as {refused[picture]}" if picture in refused else "no longer labelled"] += 1
        elif example.label != name:
            fates[f"now labelled {example.label!r}"] += 1
        elif example.split is not side:
            fates[f"now {example.split.value}"] += 1
    return dict(fates)
