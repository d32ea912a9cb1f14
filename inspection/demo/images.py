"""A directory of real pictures as a virtual line: which of them start, stream before, are asked about, stream after.

Invariants: the four phases share no picture, no part and no group; where `labels.csv` names a test split, the measured
phases come from it alone and what people label comes from the rest, so figures compare with the set's published ones;
the held-back classes are absent from the start. The same directory, seed and sizes give the same schedule.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path

import numpy as np

from inspection.data.importers import Item, read_directory
from inspection.data.pictures import check_picture, decode_bgr, encode_png
from inspection.data.snapshot_record import Split
from inspection.demo.line import PHASES, LinePart, Schedule, Shot, Sizes
from inspection.demo.renderer import Truth
from inspection.errors import PictureError, UsageError
from inspection.settings import MAX_PICTURE_BYTES, MAX_PICTURE_PIXELS

IMAGE_SIZES = Sizes(start=600, before=300, pool=400, after=300)
_LEARNING, _MEASURED = ("start", "pool"), ("before", "after")
_GROUPS_AT_LEAST = {"start": 5, "before": 1, "pool": 1, "after": 1}  # the start is split into three sides again
_BY_PART = "There are too few groups to keep them apart: the phases share no part, but they share groups."


@dataclass(frozen=True)
class ImageMix:
    """Shares as in `inspection.demo.line.Mix`. ``start_defects_alone``: the start's share of defects when there is one
    defect class only, so that "new defects" can be more of the same."""

    start_defects: float = 0.5
    start_defects_alone: float = 0.15
    line_defects: float = 0.4
    new_share: float = 0.5
    held_back_share: float = 0.4


Need = dict[str, int]
Key = Callable[[Item], str]


def images_schedule(
    directory: Path,
    good: str,
    stations: Sequence[str],
    *,
    seed: int,
    sizes: Sizes = IMAGE_SIZES,
    mix: ImageMix | None = None,
    held_back: Sequence[str] | None = None,
) -> Schedule:
    """Split a directory of pictures into a line's schedule; part ids are ``<station>-<number>``.

    ``held_back`` names the classes that appear only on the line; by default a seeded choice of them. Raises UsageError
    when the directory cannot feed all phases with good and defective parts.
    """
    mix, items = mix or ImageMix(), read_directory(directory, good)
    if not stations:
        raise UsageError("a line needs at least one station: name one")
    defects = sorted({item.label for item in items} - {good})
    if not defects:
        raise UsageError(f"{directory} has no defective pictures beside {good!r}: the demo needs at least one such class")
    new = _held_back(defects, held_back, mix, seed)
    needs = {phase: _need(getattr(sizes, phase), phase, good, defects, new, mix) for phase in PHASES}
    chosen, notes = _choose(directory, items, needs, good, seed)
    notes = [*notes, *_class_notes(defects, new, needs["start"])]
    numbered = _number(chosen, stations, seed)
    return Schedule(
        good_class=good,
        classes=(good, *defects),
        new_classes=new,
        start=numbered["start"],
        before=numbered["before"],
        pool=numbered["pool"],
        after=numbered["after"],
        notes=tuple(notes),
    )


def _held_back(defects: Sequence[str], wanted: Sequence[str] | None, mix: ImageMix, seed: int) -> tuple[str, ...]:
    """Which defect classes the start does not know. At least one stays known."""
    if wanted is not None:
        unknown = set(wanted) - set(defects)
        if unknown or len(set(wanted)) >= len(defects):
            raise UsageError(f"cannot hold back {', '.join(wanted)}: choose some, not all, of {', '.join(defects)}")
        return tuple(sorted(set(wanted)))
    if len(defects) == 1:
        return ()
    count = min(len(defects) - 1, max(1, round(mix.held_back_share * len(defects))))
    return tuple(sorted(str(name) for name in np.random.default_rng([seed, 2]).permutation(defects)[:count]))


def _need(count: int, phase: str, good: str, defects: Sequence[str], new: Sequence[str], mix: ImageMix) -> Need:
    """How many pictures of each class a phase wants."""
    old = [name for name in defects if name not in new]
    start = phase == "start"
    start_share = mix.start_defects if new else mix.start_defects_alone
    defective = round(count * (start_share if start else mix.line_defects))
    fresh = 0 if start or not new else round(defective * mix.new_share)
    need = {good: count - defective} | _evenly(defective - fresh, old) | _evenly(fresh, list(new))
    return {name: wanted for name, wanted in need.items() if wanted}


def _evenly(count: int, names: Sequence[str]) -> Need:
    return {name: count // len(names) + (i < count % len(names)) for i, name in enumerate(names)}


def _class_notes(defects: Sequence[str], new: Sequence[str], start: Need) -> list[str]:
    if new:
        return [f"Held back from the start, new on the line: {', '.join(new)}."]
    alone = f"There is one defect class ({defects[0]}): nothing could be held back but numbers. The start has "
    return [f"{alone}{start.get(defects[0], 0)} of it; the 'new defects' are simply more pictures of the same class."]


def _choose(
    directory: Path, items: Sequence[Item], needs: Mapping[str, Need], good: str, seed: int
) -> tuple[dict[str, list[Item]], list[str]]:
    """The pictures of each phase, by group; by part where the groups are too few to fill every phase."""
    for key in (_group, _part):
        sides, notes = _sides(items, key)
        chosen: dict[str, list[Item]] = {}
        for phases, side in sides:
            chosen |= _fill(phases, side, key, needs, seed)
        if all(_complete(chosen[phase], good) for phase in PHASES):
            return chosen, notes if key is _group else [*notes, _BY_PART]
    counts = Counter(item.label for item in items)
    raise UsageError(
        f"{directory} cannot feed start, before, pool and after with good ({good}) and defective pictures that share no "
        f"part: it has {dict(counts)}; add pictures, or correct its split and group columns"
    )


def _group(item: Item) -> str:
    return item.group


def _part(item: Item) -> str:
    return item.part


def _complete(items: Sequence[Item], good: str) -> bool:
    labels = {item.label for item in items}
    return good in labels and len(labels) > 1


def _sides(items: Sequence[Item], key: Key) -> tuple[list[tuple[tuple[str, ...], list[Item]]], list[str]]:
    """Which pictures may serve which phases. A group on both sides of the given split serves learning only."""
    if not any(item.split is Split.GOLDEN for item in items):
        return [(PHASES, list(items))], []
    learning = {key(item) for item in items if item.split is not Split.GOLDEN}
    train = [item for item in items if item.split is not Split.GOLDEN]
    test = [item for item in items if item.split is Split.GOLDEN and key(item) not in learning]
    left_out = sum(item.split is Split.GOLDEN for item in items) - len(test)
    notes = ["Start and pool come from the training split, before and after from the test split."]
    if left_out:
        notes.append(f"{left_out} test pictures whose group is also in training are left out.")
    return [(_LEARNING, train), (_MEASURED, test)], notes


def _fill(
    phases: Sequence[str], items: Sequence[Item], key: Key, needs: Mapping[str, Need], seed: int
) -> dict[str, list[Item]]:
    """Give each group to the phase it helps most, largest group first; then take from its groups in turn what it needs.

    No group counts for more than its share of a phase, so the start gets groups enough to be split again.
    """
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in _shuffled(items, seed):
        groups[key(item)].append(item)
    needs = _affordable({phase: needs[phase] for phase in phases}, Counter(item.label for item in items))
    left = {phase: dict(needs[phase]) for phase in phases}
    given: dict[str, list[list[Item]]] = {phase: [] for phase in phases}
    for members in sorted(groups.values(), key=len, reverse=True):  # stable: equal sizes stay shuffled
        brings = {phase: _brings(members, left[phase], needs[phase], _GROUPS_AT_LEAST[phase]) for phase in phases}
        phase = max(phases, key=lambda p: sum(n / needs[p][name] for name, n in brings[p].items()))
        given[phase].append(members)
        for name, count in brings[phase].items():
            left[phase][name] -= count
    return {phase: _take_in_turn(given[phase], dict(needs[phase])) for phase in phases}


def _brings(members: Sequence[Item], left: Need, need: Need, groups: int) -> Need:
    """Of each class, how many pictures of a group count for a phase that wants them from so many groups."""
    counts = Counter(item.label for item in members)
    return {name: min(counts[name], left[name], -(-wanted // groups)) for name, wanted in need.items()}


def _take_in_turn(groups: Sequence[Sequence[Item]], left: Need) -> list[Item]:
    """One picture of each group after the other, as long as its class is needed."""
    taken = []
    for row in zip_longest(*groups):
        for item in row:
            if item is not None and left.get(item.label, 0) > 0:
                left[item.label] -= 1
                taken.append(item)
    return taken


def _affordable(needs: Mapping[str, Need], there: Mapping[str, int]) -> dict[str, Need]:
    """Needs shrunk, class by class and alike in every phase, to what there is."""
    total: Counter[str] = Counter()
    for need in needs.values():
        total.update(need)
    share = {name: min(1.0, there.get(name, 0) / wanted) for name, wanted in total.items()}
    shrunk = {phase: {n: int(wanted * share[n] + 1e-9) for n, wanted in need.items()} for phase, need in needs.items()}
    return {phase: {name: wanted for name, wanted in need.items() if wanted} for phase, need in shrunk.items()}


def _shuffled(items: Sequence[Item], seed: int) -> list[Item]:
    ordered = sorted(items, key=lambda item: str(item.path))
    return [ordered[i] for i in np.random.default_rng([seed, 3]).permutation(len(ordered))]


def _number(chosen: Mapping[str, Sequence[Item]], stations: Sequence[str], seed: int) -> dict[str, tuple[LinePart, ...]]:
    """Put each phase in random order, spread it over the stations and number the parts."""
    number, phases = 0, {}
    for phase in PHASES:
        parts = []
        for item in _shuffled(chosen[phase], seed + 1):
            number += 1
            station = stations[number % len(stations)]
            shoot = partial(_shoot, item)
            parts.append(LinePart(f"{station}-{number:06d}", station, item.group, item.label, shoot, item.path))
        phases[phase] = tuple(parts)
    return phases


def _shoot(item: Item) -> Shot:
    """A picture file as the camera would deliver it: 8-bit BGR, as PNG; one that cannot be read as it is, for the importer
    to refuse and the agent to call an ERROR."""
    with item.path.open("rb") as file:
        data = file.read(MAX_PICTURE_BYTES + 1)
    try:
        info = check_picture(data, max_bytes=MAX_PICTURE_BYTES, max_pixels=MAX_PICTURE_PIXELS)
    except PictureError:
        return Shot(data, Truth(item.label, (), item.label, 0, 0))
    return Shot(encode_png(decode_bgr(data)), Truth(item.label, item.boxes, item.label, info.width, info.height))
