"""Which of the files that were built and measured goes to a device. Pure: measurements in, a choice and its reasons out.

Invariants: everything is measured against one file, the plan's own student in float on ONNX Runtime (the *reference*); what
plain `quantize_static` gives (the *plain* file) is always among the candidates, and the choice is never less exact than it,
nor slower by more than is told apart, where it would do itself; of files equally fast the most exact is shipped; when
nothing good enough is faster by more than is told apart, the reference is; what is shipped is in the Pareto set.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from inspection.contracts import ONNXRUNTIME

FLOAT, PLAIN, QAT = "float", "plain", "qat"
ALIKE = 0.05  # speeds that differ by less are not told apart: medians of 100 turns on a machine that does other things, too
_ROUNDING = 1e-9  # shares that are equal may differ by the last digit of a sum


class Build(BaseModel):
    """One way to build the device's file: a student (by the name of its folder), a quantizer (`FLOAT`, `PLAIN`, `QAT` or
    one of the product's), and the runtime it is made to run on."""

    model_config = ConfigDict(frozen=True)

    student: str
    backbone: str
    height: int
    width: int
    quantizer: str
    runtime: str = ONNXRUNTIME

    @property
    def precision(self) -> str:
        """As a manifest says it."""
        return "float32" if self.quantizer == FLOAT else "int8"

    def __str__(self) -> str:
        return f"{self.backbone} {self.height}x{self.width} {self.quantizer} on {self.runtime}"


class Measured(BaseModel):
    """A build as it was measured on the validation side.

    ``agreement``: share of pictures on which it decides what its own student's float file decides, by the same recipe;
    ``teacher_agreement``: on which its best class is the teacher's; ``accuracy_drop``: balanced accuracy of the reference
    minus its own; ``escape``, ``overkill``: rates of pictures at thresholds calibrated on its own scores (None: no such
    pictures). ``speedup``: the reference's time over its own, median over turns, and ``latency_ms`` its median for all
    tiles of a picture, one thread, batch 1 (None: not timed). ``error``: why it was not measured.
    """

    model_config = ConfigDict(frozen=True)

    build: Build
    file: str
    length: int = 0
    agreement: float = 0.0
    teacher_agreement: float = 0.0
    accuracy_drop: float = 1.0
    escape: float | None = None
    overkill: float | None = None
    latency_ms: float | None = None
    speedup: float | None = None
    error: str | None = None

    @property
    def lost(self) -> float:
        """Balanced accuracy lost; what was gained by luck does not count."""
        return max(0.0, self.accuracy_drop)


@dataclass(frozen=True)
class Bar:
    """What a file must reach to be shipped: shares in [0, 1]."""

    min_agreement: float
    max_accuracy_drop: float

    def met_by(self, one: Measured, reference: Measured) -> bool:
        """Whether ``one`` decides as its float file does, is as good as the reference, and as near to the teacher."""
        far = reference.teacher_agreement - one.teacher_agreement
        return (
            one.error is None
            and one.agreement >= self.min_agreement - _ROUNDING
            and one.accuracy_drop <= self.max_accuracy_drop + _ROUNDING
            and far <= 1 - self.min_agreement + _ROUNDING
        )


def choose(found: Sequence[Measured], bar: Bar) -> Measured:
    """The fastest that meets the bar, is faster than the reference and no worse than the plain file, or of those about as
    fast the most exact; else the reference.

    ``found`` holds the reference and is otherwise in any order; what was not timed is not chosen.
    """
    good = _candidates(found, bar, ALIKE)
    return max(_about_as_fast(good, ALIKE), key=_exactness, default=reference_of(found))


def finalists(found: Sequence[Measured], bar: Bar, count: int) -> list[Build]:
    """Of builds that were timed a few times, those worth timing often: the ``count`` fastest that may be chosen, the most
    exact of those about as fast, with the reference and the plain file.

    A few turns tell speeds apart half as well as many.
    """
    good = sorted(_candidates(found, bar, -2 * ALIKE), key=lambda one: (-_speed(one), str(one.build)))
    exact = sorted(_about_as_fast(good, 2 * ALIKE), key=_exactness)[-1:]
    plain = plain_of(found)
    with_them = [reference_of(found), *([plain] if plain is not None and bar.met_by(plain, reference_of(found)) else [])]
    return list(dict.fromkeys(one.build for one in [*good[:count], *exact, *with_them]))


def _candidates(found: Sequence[Measured], bar: Bar, lead: float) -> list[Measured]:
    """What meets the bar, is faster than the reference by ``lead`` (a share, which may be below 0), and is no worse than
    the plain file where that does, too."""
    reference, plain = reference_of(found), plain_of(found)
    good = [one for one in found if one != reference and (1 - lead) * _speed(one) > 1 and bar.met_by(one, reference)]
    return [one for one in good if no_worse(one, plain, abs(lead))] if plain is not None and plain in good else good


def _about_as_fast(good: Sequence[Measured], share: float) -> list[Measured]:
    fastest = max(map(_speed, good), default=0.0)
    return [one for one in good if _speed(one) >= (1 - share) * fastest]


def _exactness(one: Measured) -> tuple[float | str, ...]:
    """Agreement is with a file's own float file, so what is lost against the reference comes first."""
    return (-one.lost, one.agreement, *_goods(one), one.build.student, str(one.build))


def _speed(one: Measured) -> float:
    return one.speedup or 0.0


def reference_of(found: Iterable[Measured]) -> Measured:
    """The first student's float file on ONNX Runtime. ValueError without one."""
    for one in found:
        if one.build.quantizer == FLOAT and one.build.runtime == ONNXRUNTIME:
            return one
    raise ValueError("nothing was measured in float on ONNX Runtime, so there is nothing to compare with")


def plain_of(found: Sequence[Measured]) -> Measured | None:
    """What `quantize_static` makes by itself of the reference's student, on ONNX Runtime; None where that failed."""
    student = reference_of(found).build.student
    plain = (one for one in found if one.build.quantizer == PLAIN and one.build.runtime == ONNXRUNTIME)
    return next((one for one in plain if one.build.student == student and one.error is None), None)


def no_worse(one: Measured, plain: Measured, alike: float = ALIKE) -> bool:
    """Neither slower, as far as that can be told, nor less exact."""
    as_fast = _speed(one) >= (1 - alike) * _speed(plain)
    return as_fast and one.agreement >= plain.agreement and one.lost <= plain.lost + _ROUNDING


def pareto(found: Iterable[Measured]) -> list[Measured]:
    """Those that no other beats: at least as fast, as accurate, as near to the teacher and to its own float file, and
    better in one of these."""
    timed = [one for one in found if one.error is None and one.speedup is not None]
    return [one for one in timed if not any(_beats(other, one) for other in timed)]


def _goods(one: Measured) -> tuple[float, ...]:
    return (_speed(one), -one.accuracy_drop, one.teacher_agreement, one.agreement)


def _beats(one: Measured, other: Measured) -> bool:
    ours, theirs = _goods(one), _goods(other)
    return ours != theirs and all(a >= b for a, b in zip(ours, theirs, strict=True))


def to_markdown(found: Sequence[Measured], chosen: Measured, bar: Bar) -> str:
    """A table for people, the fastest first; and in a sentence what was chosen."""
    reference, front = reference_of(found), pareto(found)
    head = [
        "build", "ms", "times as fast", "MB", "equal verdicts", "as the teacher", "points lost", "escape", "overkill", "",
    ]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    names = _names(found)
    for one in sorted(found, key=lambda one: -_speed(one)):
        notes = [
            "**shipped**" if one == chosen else "",
            "reference" if one == reference else "",
            "" if bar.met_by(one, reference) else one.error or "misses the bar",
            "Pareto" if one in front else "",
        ]
        lines.append("| " + " | ".join([names[one.build], *_cells(one), ", ".join(filter(None, notes))]) + " |")
    return "\n".join(lines) + "\n\n" + in_words(found, chosen, bar) + "\n"


def _names(found: Iterable[Measured]) -> dict[Build, str]:
    """Builds in words; with the student's name where two students differ in nothing else."""
    builds = [one.build for one in found]
    told = [str(build) for build in builds]
    return {b: f"{b} ({b.student})" if told.count(words) > 1 else words for b, words in zip(builds, told, strict=True)}


def _cells(one: Measured) -> list[str]:
    if one.error is not None:
        return ["n/a"] * 8
    return [
        _said(one.latency_ms, ".2f"),
        _said(one.speedup, ".2f"),
        f"{one.length / 1e6:.2f}",
        f"{one.agreement:.1%}",
        f"{one.teacher_agreement:.1%}",
        f"{100 * one.accuracy_drop:.1f}",
        _said(one.escape, ".1%"),
        _said(one.overkill, ".1%"),
    ]


def _said(value: float | None, form: str) -> str:
    return "n/a" if value is None else format(value, form)


def in_words(found: Sequence[Measured], chosen: Measured, bar: Bar) -> str:
    """What is shipped, and why not something faster."""
    reference = reference_of(found)
    good = sum(bar.met_by(one, reference) for one in found if one.build.precision == "int8")
    small = sum(one.build.precision == "int8" for one in found)
    said = (
        f"{good} of {small} int8 builds are good enough (at least {bar.min_agreement:.1%} equal verdicts, at most "
        f"{100 * bar.max_accuracy_drop:.1f} points lost, as near to the teacher)"
    )
    if chosen == reference:
        return f"Shipped: float. {said}{'; none of the good ones is faster' if good else ''}."
    return f"Shipped: {chosen.build}, {_said(chosen.speedup, '.2f')} times as fast as float on ONNX Runtime. {said}."
