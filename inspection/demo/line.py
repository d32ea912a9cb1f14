"""The virtual line: which parts pass which station in which phase, and the feeder that puts them before the cameras.

Invariants: a part id occurs once in a schedule and in one phase only; the truth of a part is on disk before its
picture is; the truth never enters a spool folder; a picture appears in the spool whole or not at all (rename).
Units: takt in seconds.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from inspection.contracts import Box
from inspection.demo.renderer import (
    GOOD,
    KINDS,
    NEW_KINDS,
    START_KINDS,
    Look,
    PartSpec,
    Truth,
    encode_png,
    render_with_truth,
)
from inspection.errors import EnvironmentTroubleError, UsageError

PHASES = ("start", "before", "pool", "after")


class Shot(NamedTuple):
    """A part's picture as PNG file bytes, and what is known about it."""

    png: bytes
    truth: Truth


@dataclass(frozen=True)
class LinePart:
    """One part on the line. ``shoot()`` makes its picture and truth (rendered or read from ``source``).

    ``group`` keeps what belongs together on one side of a split (a board and its template, one scan).
    """

    part: str
    station: str
    group: str
    label: str
    shoot: Callable[[], Shot]
    source: Path | None = None

    @property
    def stem(self) -> str:
        """Its picture's file name: ``<lot>@<part>`` where parts come in lots, as the folder camera reads it."""
        if self.group == self.part:
            return self.part
        lot = re.sub(r"[^A-Za-z0-9._-]", "-", self.group)
        return f"{lot}@{self.part}"


@dataclass(frozen=True)
class Schedule:
    """The parts of each phase, in order.

    ``start``: labelled pictures for the first model, without the new classes. ``before``: measured with the first
    model. ``pool``: what passes while people are asked (part of it becomes training data). ``after``: measured with
    the retrained model. Only ``start``, ``before`` and ``pool`` may reach training. ``notes``: what a reader of the
    figures must know.
    """

    good_class: str
    classes: tuple[str, ...]
    new_classes: tuple[str, ...]
    start: tuple[LinePart, ...]
    before: tuple[LinePart, ...]
    pool: tuple[LinePart, ...]
    after: tuple[LinePart, ...]
    notes: tuple[str, ...] = ()

    def phase(self, name: str) -> tuple[LinePart, ...]:
        """The parts of a phase by name. Raises UsageError on a name that is none."""
        if name not in PHASES:
            raise UsageError(f"no phase {name!r}: choose one of {', '.join(PHASES)}")
        parts: tuple[LinePart, ...] = getattr(self, name)
        return parts

    def at(self, phase: str, station: str) -> tuple[LinePart, ...]:
        """The parts of one phase that pass one station."""
        return tuple(part for part in self.phase(phase) if part.station == station)


@dataclass(frozen=True)
class Sizes:
    """Pictures per phase, all stations together."""

    start: int = 450
    before: int = 300
    pool: int = 360
    after: int = 300


@dataclass(frozen=True)
class Mix:
    """Which share of the parts is defective, and which share of those has a kind that the start did not know."""

    start_defects: float = 0.45
    line_defects: float = 0.40
    new_share: float = 0.55
    start_kinds: tuple[str, ...] = START_KINDS
    new_kinds: tuple[str, ...] = NEW_KINDS


def _shoot(spec: PartSpec) -> Shot:
    picture, truth = render_with_truth(spec)
    return Shot(encode_png(picture), truth)


def _rendered(spec: PartSpec, station: str) -> LinePart:
    return LinePart(spec.part, station, spec.part, spec.kind, partial(_shoot, spec))


def _kinds(rng: np.random.Generator, count: int, phase: str, mix: Mix) -> list[str]:
    """The kinds of a phase's parts: exact shares, random order."""
    starting = phase == "start"
    defective = round(count * (mix.start_defects if starting else mix.line_defects))
    new = 0 if starting else round(defective * mix.new_share)
    kinds = [mix.new_kinds[i % len(mix.new_kinds)] for i in range(new)]
    kinds += [mix.start_kinds[i % len(mix.start_kinds)] for i in range(defective - new)]
    kinds += [GOOD] * (count - defective)
    return [kinds[i] for i in rng.permutation(count)]


def rendered_schedule(
    seed: int, stations: Sequence[str], sizes: Sizes | None = None, mix: Mix | None = None, look: Look | None = None
) -> Schedule:
    """The made-up product's schedule; part ids are ``<station>-<index>``. Same arguments, same parts and pictures.

    Raises UsageError without stations, or on a kind that does not exist or is both known and new.
    """
    sizes, mix, look = sizes or Sizes(), mix or Mix(), look or Look()
    wrong = [kind for kind in (*mix.start_kinds, *mix.new_kinds) if kind not in KINDS]
    if not stations or wrong or set(mix.start_kinds) & set(mix.new_kinds):
        raise UsageError(f"a line needs a station and distinct kinds out of {', '.join(KINDS)}; got {stations}, {mix}")
    rng = np.random.default_rng([seed, 1])
    index, phases = 0, {}
    for phase in PHASES:
        parts = []
        for kind in _kinds(rng, getattr(sizes, phase), phase, mix):
            index += 1
            station = stations[index % len(stations)]
            parts.append(_rendered(PartSpec(f"{station}-{index:06d}", seed, index, kind, look), station))
        phases[phase] = tuple(parts)
    return Schedule(
        good_class=GOOD,
        classes=(GOOD, *mix.start_kinds, *mix.new_kinds),
        new_classes=mix.new_kinds,
        start=phases["start"],
        before=phases["before"],
        pool=phases["pool"],
        after=phases["after"],
        notes=("The product, its parts and its defects are rendered, not photographed.",),
    )


class TruthBook(Mapping[str, Truth]):
    """What is known about every part fed so far, by part id; one JSON line each in a file outside every spool.

    Only the scripted operator and the closing report read it: nothing of the loop does. Safe for several threads.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._known, self._lock = path, dict[str, Truth](), threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._known = dict(_read_truth(line) for line in path.read_text().splitlines())

    def add(self, part: str, truth: Truth) -> None:
        """Note a part's truth and write it down. A different truth for a known part is a UsageError."""
        with self._lock:
            if self._known.setdefault(part, truth) != truth:
                raise UsageError(f"{self._path} already says otherwise about part {part}: use a fresh folder per run")
            line = {"part": part} | asdict(truth) | {"boxes": [box.model_dump() for box in truth.boxes]}
            with self._path.open("a") as out:
                out.write(json.dumps(line) + "\n")

    def __getitem__(self, part: str) -> Truth:
        return self._known[part]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._known))

    def __len__(self) -> int:
        return len(self._known)


def _read_truth(line: str) -> tuple[str, Truth]:
    body = json.loads(line)
    boxes = tuple(Box.model_validate(box) for box in body.pop("boxes"))
    return body.pop("part"), Truth(boxes=boxes, **body)


Waiting = Callable[[int], int]
"""How many pictures wait in front of a camera, given how many were fed."""


def waiting_in(spool: Path) -> Waiting:
    """For a camera that moves or deletes what it has read: the pictures still in the spool."""
    return lambda fed: sum(1 for e in spool.iterdir() if e.is_file() and not e.name.startswith("."))  # noqa: ARG005


def waiting_after(judged: Callable[[], int]) -> Waiting:
    """For a camera that leaves files where they are: fed, less what ``judged()`` says was judged of these parts."""
    return lambda fed: fed - judged()


@dataclass
class _Progress:
    fed: int = 0
    held_back: int = 0
    trouble: BaseException | None = None
    halt: threading.Event = field(default_factory=threading.Event)


class Feeder:
    """Puts one station's parts into its spool at a given takt, in a thread of its own.

    It does not run ahead of the camera: while ``waiting`` says that ``max_ahead`` pictures wait, it waits too.
    ``takt_seconds`` 0 means as fast as the camera reads.
    """

    def __init__(
        self,
        parts: Iterable[LinePart],
        spool: Path,
        book: TruthBook,
        *,
        takt_seconds: float,
        waiting: Waiting,
        max_ahead: int = 20,
    ) -> None:
        self._parts, self._spool, self._book = parts, spool, book
        self._takt, self._max_ahead = takt_seconds, max_ahead
        self._waiting = waiting
        self._progress = _Progress()
        self._thread = threading.Thread(target=self._run, name=f"feeder-{spool.name}", daemon=True)

    @property
    def fed(self) -> int:
        """Pictures put into the spool so far."""
        return self._progress.fed

    @property
    def held_back(self) -> int:
        """How often the takt was missed because the camera had not read what lay there."""
        return self._progress.held_back

    @property
    def running(self) -> bool:
        """True until the last part is fed, or the feeder was stopped or failed."""
        return self._thread.is_alive()

    def start(self) -> "Feeder":
        """Begin to feed; the spool folder is made if need be."""
        self._spool.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def stop(self) -> int:
        """Stop after the part in hand; pictures fed so far. Raises what `join` raises."""
        self._progress.halt.set()
        self.join()
        return self.fed

    def join(self, timeout_seconds: float | None = None) -> bool:
        """Wait until all parts are fed: True when they are. Raises EnvironmentTroubleError when feeding failed."""
        self._thread.join(timeout_seconds)
        trouble = self._progress.trouble
        if trouble is not None:
            raise EnvironmentTroubleError(
                f"the virtual line stopped feeding {self._spool} after {self.fed} pictures: {trouble}; "
                "free disk space or check the folder, then start the demo again"
            ) from trouble
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._feed()
        except Exception as error:  # noqa: BLE001 - supervised: kept here and raised by join() in the caller's thread
            self._progress.trouble = error

    def _feed(self) -> None:
        due = time.monotonic()
        for part in self._parts:
            shot = part.shoot()
            if not self._wait_for_room(due):
                return
            due = max(due + self._takt, time.monotonic())
            self._book.add(part.part, shot.truth)
            _place(self._spool, part.stem, shot.png)
            self._progress.fed += 1

    def _crowded(self) -> bool:
        return self._waiting(self._progress.fed) >= self._max_ahead

    def _wait_for_room(self, due: float) -> bool:
        """Until the takt is over and the camera has kept up; False when the feeder was stopped."""
        halt = self._progress.halt
        halt.wait(max(0.0, due - time.monotonic()))
        if not halt.is_set() and self._crowded():
            self._progress.held_back += 1
            while not halt.is_set() and self._crowded():
                halt.wait(0.02)
        return not halt.is_set()


def _place(spool: Path, name: str, data: bytes) -> None:
    hidden = spool / f".{name}.png"
    hidden.write_bytes(data)
    hidden.replace(spool / f"{name}.png")
