"""The renderer: a part's specification in, its picture and its truth out. numpy and OpenCV only.

Invariants: the same specification gives the same bytes. Each stage draws from a random stream of its own, seeded by
(seed, index, stage): a defective part is its good twin plus the defect, and no other pixel differs.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.contracts import Box
from inspection.demo import lid, surroundings
from inspection.demo.defects import PAINTERS, Severity
from inspection.demo.lid import SURFACES, Layer, Layers, Mask, make_lid
from inspection.errors import UsageError

GOOD = "good"
KINDS: tuple[str, ...] = tuple(PAINTERS)
START_KINDS: tuple[str, ...] = ("dent", "stain", "missing_screw")
NEW_KINDS: tuple[str, ...] = ("crack", "chipped_edge", "gasket_gap")
SURFACE_NAMES: tuple[str, ...] = tuple(SURFACES)

_BODY, _POSE, _LIGHT, _BELT, _LOOKALIKES, _LENS, _SENSOR, _DEFECT = range(8)


@dataclass(frozen=True)
class Truth:
    """What is known about a part: its class, boxes in picture pixels, the kind of defect, the picture's size in pixels.

    For the made-up product ``kind`` is the class; ``boxes`` is empty on good parts and where nobody drew any.
    """

    label: str
    boxes: tuple[Box, ...] = ()
    kind: str = GOOD
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Look:
    """How hard the pictures are. ``contrast`` and ``defect_size`` are factors; ``lookalikes`` a probability each."""

    size: int = 160
    contrast: float = 1.0
    defect_size: float = 1.0
    lookalikes: float = 0.3


@dataclass(frozen=True)
class PartSpec:
    """One part of the made-up product; ``index`` is its place in time (light drifts with it)."""

    part: str
    seed: int
    index: int
    kind: str = GOOD
    look: Look = field(default_factory=Look)


class Rendered(NamedTuple):
    """A picture uint8 [S, S, 3] BGR and its truth."""

    picture: NDArray[np.uint8]
    truth: Truth


def _stream(part: PartSpec, stage: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64([part.seed, part.index, stage]))


def _pose(part: PartSpec) -> NDArray[np.float64]:
    """Affine matrix [2, 3] from the part's frame to the picture: turn, scale, shift."""
    rng, size = _stream(part, _POSE), part.look.size
    centre = (size / 2, size / 2)
    turn, scale = float(np.clip(rng.normal(0, 2.2), -5, 5)), float(rng.normal(1.0, 0.012))
    matrix = np.asarray(cv2.getRotationMatrix2D(centre, turn, scale), np.float64)
    matrix[:, 2] += np.clip(rng.normal(0, 0.015, 2), -0.035, 0.035) * size
    return matrix


def _decorate(part: PartSpec, layers: Layers) -> None:
    """Look-alikes lie on good and bad parts with the same probability."""
    rng = _stream(part, _LOOKALIKES)
    for draw in (surroundings.brush_marks, surroundings.dust, surroundings.water_mark):
        if rng.random() < part.look.lookalikes:
            draw(layers, rng)


def _spoil(part: PartSpec, layers: Layers) -> Mask:
    rng = _stream(part, _DEFECT)
    how = Severity(
        size=part.look.defect_size * float(rng.uniform(0.8, 1.35)),
        contrast=part.look.contrast * float(rng.uniform(0.7, 1.3)),
    )
    return PAINTERS[part.kind](layers, rng, how)


def _compose(part: PartSpec, layers: Layers, light: surroundings.Light, pose: NDArray[np.float64]) -> Layer:
    """The lit part on the belt, with its contact shadow; linear light, float32 [S, S, 3]."""
    size = part.look.size
    lit = surroundings.shade(layers, light)
    placed = cv2.warpAffine(lit, pose, (size, size))
    alpha = lid.tripled(np.asarray(cv2.warpAffine(layers.alpha, pose, (size, size)), np.float32))
    shift = pose.copy()
    shift[:, 2] -= 0.02 * size * np.array([np.cos(light.direction), np.sin(light.direction)])
    shadow = cv2.warpAffine(_soft_outline(size), shift, (size, size))
    level = surroundings.belt(_stream(part, _BELT), size) * (1 - np.float32(0.6) * shadow)
    ground = cv2.merge([level * np.float32(tint) for tint in surroundings.BELT_TINT])
    return np.asarray(ground + (placed - ground) * alpha, np.float32)


@lru_cache(maxsize=8)
def _soft_outline(size: int) -> Layer:
    """The shadow a lid throws, before it is placed."""
    return np.asarray(cv2.GaussianBlur(lid.shape(size).coverage, (0, 0), 0.02 * size), np.float32)


def _boxes(mask: Mask, pose: NDArray[np.float64], label: str) -> tuple[Box, ...]:
    """One box round everything the defect touched, in picture pixels, a pixel of margin each side."""
    size = mask.shape[0]
    placed = cv2.warpAffine(mask, pose, (size, size), flags=cv2.INTER_LINEAR)
    x, y, w, h = cv2.boundingRect((placed > 24).astype(np.uint8))
    if w == 0:
        return ()
    left, top = max(0, x - 1), max(0, y - 1)
    right, bottom = min(size, x + w + 1), min(size, y + h + 1)
    return (Box(x=left, y=top, width=right - left, height=bottom - top, label=label),)


def render_with_truth(part: PartSpec) -> Rendered:
    """Picture and truth of one part. Raises UsageError on a kind that does not exist."""
    if part.kind != GOOD and part.kind not in PAINTERS:
        raise UsageError(f"no defect kind {part.kind!r}: choose {GOOD!r} or one of {', '.join(KINDS)}")
    rng = _stream(part, _BODY)
    surface = SURFACE_NAMES[int(rng.integers(len(SURFACE_NAMES)))]
    layers = make_lid(rng, part.look.size, surface, part.index)
    pose, light = _pose(part), surroundings.light_at(part.index, _stream(part, _LIGHT))
    boxes: tuple[Box, ...] = ()
    if part.kind != GOOD:
        boxes = _boxes(_spoil(part, layers), pose, part.kind)
    _decorate(part, layers)
    scene = _compose(part, layers, light, pose)
    lens = _stream(part, _LENS)
    if lens.random() < part.look.lookalikes:
        surroundings.lens_dust(scene, lens)
    picture = surroundings.expose(scene, light, _stream(part, _SENSOR))
    return Rendered(picture, Truth(part.kind, boxes, part.kind, part.look.size, part.look.size))


def render(part: PartSpec) -> NDArray[np.uint8]:
    """Picture of one part, uint8 [S, S, 3] BGR."""
    return render_with_truth(part).picture


def encode_png(picture: NDArray[np.uint8]) -> bytes:
    """Lossless file bytes, quickly (compression 1)."""
    done, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise UsageError(f"OpenCV could not encode a picture of shape {picture.shape} as PNG")
    return bytes(data)
