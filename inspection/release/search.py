"""Which of the files that were built and measured goes to a device. Pure: measurements in, a choice and its reasons out.

Invariants: everything is measured against one file, the plan's own student in float on ONNX Runtime (the *reference*); what
plain `quantize_static` gives (the *plain* file) is always among the candidates, and the choice is never less exact than it,
nor slower by more than is told apart, where it would do itself; of files equally fast the most exact is shipped;
when nothing good enough is faster, the reference is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from inspection.contracts import ONNXRUNTIME

FLOAT, PLAIN, QAT = "float", "plain", "qat"
ALIKE = 0.05  # speeds that differ by less are not told apart: medians of 100 turns on a machine that does other things, too


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
            and one.agreement >= self.min_agreement
            and one.accuracy_drop <= self.max_accuracy_drop
            and far <= 1 - self.min_agreement + 1e-9
        )


def choose(found: Sequence[Measured], bar: Bar) -> Measured:
    """The fastest that meets the bar, is faster than the reference and no worse than the plain file, or of those about as
    fast the one that decides most like its float file; else the reference.

    ``found`` holds the reference and is otherwise in any order; what was not timed is not chosen.
    """
    reference = reference_of(found)
    good = [one for one in found if (one.speedup or 0.0) > 1.0 and bar.met_by(one, reference)]
    plain = plain_of(found)
    if plain is not None and plain in good:
        good = [one for one in good if no_worse(one, plain)]
    fastest = max((one.speedup or 0.0 for one in good), default=0.0)
    alike = [one for one in good if (one.speedup or 0.0) >= (1 - ALIKE) * fastest]
    return max(alike, key=lambda one: (one.agreement, -one.lost, one.speedup or 0.0, str(one.build)), default=reference)


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


def no_worse(one: Measured, plain: Measured) -> bool:
    """Neither slower, as far as that can be told, nor less exact."""
    as_fast = (one.speedup or 0.0) >= (1 - ALIKE) * (plain.speedup or 0.0)
    return as_fast and one.agreement >= plain.agreement and one.lost <= plain.lost


def pareto(found: Iterable[Measured]) -> list[Measured]:
    """Those that no other beats: at least as fast, as accurate and as near to the teacher, and better in one of these."""
    timed = [one for one in found if one.error is None and one.speedup is not None]
    return [one for one in timed if not any(_beats(other, one) for other in timed)]


def _goods(one: Measured) -> tuple[float, float, float]:
    return (one.speedup or 0.0, -one.accuracy_drop, one.teacher_agreement)


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
    for one in sorted(found, key=lambda one: -(one.speedup or 0.0)):
        notes = [
            "**shipped**" if one == chosen else "",
            "reference" if one == reference else "",
            "" if bar.met_by(one, reference) else one.error or "misses the bar",
            "Pareto" if one in front else "",
        ]
        lines.append("| " + " | ".join([*_cells(one), ", ".join(filter(None, notes))]) + " |")
    return "\n".join(lines) + "\n\n" + in_words(found, chosen, bar) + "\n"


def _cells(one: Measured) -> list[str]:
    if one.error is not None:
        return [str(one.build), *["n/a"] * 8]
    return [
        str(one.build),
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
        f"{good} of {small} int8 builds give at least {bar.min_agreement:.1%} equal verdicts "
        f"and lose at most {100 * bar.max_accuracy_drop:.1f} points"
    )
    if chosen == reference:
        return f"Shipped: float. {said}; none of the good ones is faster."
    return f"Shipped: {chosen.build}, {_said(chosen.speedup, '.2f')} times as fast as float on ONNX Runtime. {said}."
