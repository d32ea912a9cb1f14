"""The made-up product: the lid "KX-40" of a pump housing, as layers in its own upright frame.

Owns the geometry (outline, four screws, port with a rubber seal, vent slots, laser mark) and the surface textures.
Invariants: lengths are shares of the picture's side; every layer is float32; static layers are cached per size and
never written to. Colours are BGR reflectances in [0, 1].
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Layer = NDArray[np.float32]
Mask = NDArray[np.uint8]
Colour = tuple[float, float, float]

HALF_WIDTH, HALF_HEIGHT, CORNER = 0.42, 0.385, 0.08
SCREW_RADIUS, SCREW_INSET = 0.052, 0.083
PORT_CENTRE = (0.5, 0.44)
PORT_RADIUS, SEAL_RADIUS, SEAL_WIDTH = 0.145, 0.180, 0.036
SCREWS = tuple(
    (0.5 + sx * (HALF_WIDTH - SCREW_INSET), 0.5 + sy * (HALF_HEIGHT - SCREW_INSET))
    for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))
)
RUBBER: Colour = (0.062, 0.060, 0.058)
STEEL: Colour = (0.56, 0.57, 0.58)
_SUBPIXEL = 4  # bits of fraction in drawn coordinates


@dataclass
class Layers:
    """What a part is made of before light falls on it; drawn on in place.

    ``colour`` [S, S, 3] reflectance, ``height`` [S, S] in pixels towards the camera, ``alpha`` [S, S] coverage of the
    part, ``gloss`` [S, S] how strongly highlights show. ``grain``: direction of the surface's marks in radians.
    """

    size: int
    colour: Layer
    height: Layer
    alpha: Layer
    gloss: Layer
    grain: float

    def paint(self, mask: Mask, colour: Colour, opacity: float = 1.0) -> None:
        """Blend a colour in where ``mask`` (uint8 [S, S]) is set."""
        x, y, w, h = cv2.boundingRect(mask)
        if w == 0:
            return
        window = (slice(y, y + h), slice(x, x + w))
        weight = mask[window].astype(np.float32)[..., None] * np.float32(opacity / 255.0)
        self.colour[window] += (np.asarray(colour, np.float32) - self.colour[window]) * weight

    def blank(self) -> Mask:
        """An empty mask of this size."""
        return np.zeros((self.size, self.size), np.uint8)


def fixed(values: object, size: int) -> NDArray[np.int32]:
    """Shares of the side as the fixed-point integers OpenCV's drawing calls take with ``shift=4``."""
    return np.rint(np.asarray(values, np.float64) * size * (1 << _SUBPIXEL)).astype(np.int32)


def draw_lines(mask: Mask, points: NDArray[np.float64], thickness: int = 1, closed: bool = False) -> None:
    """An anti-aliased polyline through ``points`` [N, 2] (shares of the side)."""
    size = mask.shape[0]
    cv2.polylines(mask, [fixed(points, size)], closed, 255, thickness, cv2.LINE_AA, _SUBPIXEL)


def draw_polygon(mask: Mask, points: NDArray[np.float64]) -> None:
    """A filled anti-aliased polygon through ``points`` [N, 2] (shares of the side)."""
    cv2.fillPoly(mask, [fixed(points, mask.shape[0])], 255, cv2.LINE_AA, _SUBPIXEL)


def draw_disc(mask: Mask, centre: tuple[float, float], radius: float, thickness: int = -1) -> None:
    """A filled disc, or a ring of ``thickness`` pixels (centre and radius as shares of the side)."""
    size = mask.shape[0]
    x, y, r = (int(v) for v in fixed((*centre, radius), size))
    cv2.circle(mask, (x, y), r, 255, thickness, cv2.LINE_AA, _SUBPIXEL)


@lru_cache(maxsize=8)
def _grid(size: int) -> tuple[Layer, Layer]:
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = np.meshgrid(axis, axis)
    return x, y


@lru_cache(maxsize=8)
def inside(size: int) -> Layer:
    """Signed distance to the lid's outline in pixels, positive inside (rounded rectangle)."""
    x, y = _grid(size)
    dx, dy = np.abs(x - 0.5) - (HALF_WIDTH - CORNER), np.abs(y - 0.5) - (HALF_HEIGHT - CORNER)
    outer = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0)
    return np.asarray((CORNER - outer) * size, np.float32)


@lru_cache(maxsize=8)
def from_port(size: int) -> Layer:
    """Distance to the port's centre as a share of the side."""
    x, y = _grid(size)
    return np.asarray(np.hypot(x - PORT_CENTRE[0], y - PORT_CENTRE[1]), np.float32)


def _smooth(value: Layer, width: float) -> Layer:
    """0 to 1 across ``width`` around zero."""
    t = np.clip(value / width + 0.5, 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


@dataclass(frozen=True)
class Shape:
    """What every lid of one size shares: float32 [S, S], read only.

    ``coverage`` of the lid, ``height`` in pixels, ``seal`` coverage, ``bare`` = 1 - seal, ``metal`` = share of the
    surface's own brightness that shows, ``fittings`` = the three colour planes of seal and screw heads.
    """

    coverage: Layer
    height: Layer
    seal: Layer
    bare: Layer
    metal: Layer
    fittings: tuple[Layer, Layer, Layer]


@lru_cache(maxsize=8)
def shape(size: int) -> Shape:
    """The geometry of every lid at this size."""
    edge, radius = inside(size), from_port(size)
    seal = np.clip((SEAL_WIDTH / 2 - np.abs(radius - SEAL_RADIUS)) * size + 0.5, 0, 1)
    floor = np.clip((PORT_RADIUS - radius) * size + 0.5, 0, 1)
    height = 2.4 * _smooth(edge - 2.2, 5.0) + 0.9 * _smooth(edge - 0.062 * size, 2.5)  # bevel, raised plateau
    bead = np.sqrt(np.clip(1 - ((radius - SEAL_RADIUS) / SEAL_WIDTH * 2) ** 2, 0, 1))
    heads, sunk = _screw_discs(size, SCREW_RADIUS), _screw_discs(size, SCREW_RADIUS + 0.012)
    height += -1.5 * floor - seal * (1.6 - 2.1 * bead) + 1.4 * heads
    metal = (1 - seal) * (1 - 0.42 * floor) * (1 - np.maximum(0.75 * sunk, heads))
    fittings = [
        _plane(seal * rubber + heads * steel + 0.12 * (sunk - heads)) for rubber, steel in zip(RUBBER, STEEL, strict=True)
    ]
    return Shape(
        coverage=_plane(np.clip(edge + 0.5, 0, 1)),
        height=_plane(height),
        seal=_plane(seal),
        bare=_plane(1 - seal),
        metal=_plane(metal),
        fittings=(fittings[0], fittings[1], fittings[2]),
    )


def _plane(values: object) -> Layer:
    return np.ascontiguousarray(values, np.float32)


def _screw_discs(size: int, radius: float) -> Layer:
    x, y = _grid(size)
    nearest = np.minimum.reduce([np.hypot(x - cx, y - cy) for cx, cy in SCREWS])
    return _plane(np.clip((radius - nearest) * size + 0.5, 0, 1))


def tripled(layer: Layer) -> Layer:
    """[S, S] to [S, S, 3]: OpenCV's arithmetic on equal shapes is many times faster than broadcasting."""
    return np.asarray(cv2.merge([layer, layer, layer]), np.float32)


def _noise(rng: np.random.Generator, size: int) -> Layer:
    return rng.standard_normal((size, size), dtype=np.float32)


def _brushed(rng: np.random.Generator, size: int) -> tuple[Layer, Layer]:
    length = int(size * 0.3) | 1
    streaks = cv2.blur(_noise(rng, size), (length, 1)) * np.float32(length**0.5)
    return 1 + 0.09 * streaks, 0.05 * streaks


def _turned(rng: np.random.Generator, size: int) -> tuple[Layer, Layer]:
    rings = rng.standard_normal(2 * size, dtype=np.float32)
    rings = np.convolve(rings, np.array([0.25, 0.5, 0.25], np.float32), "same").astype(np.float32)
    centre = rng.uniform(-0.02, 0.02)
    spread = np.take(rings, (np.abs(from_port(size) + np.float32(centre)) * (1.6 * size)).astype(np.int32))
    grain = 0.02 * _noise(rng, size)
    return 1 + 0.10 * spread + grain, 0.06 * spread


def _cast(rng: np.random.Generator, size: int) -> tuple[Layer, Layer]:
    fine = cv2.GaussianBlur(_noise(rng, size), (0, 0), 0.9) * np.float32(3.0)
    coarse = cv2.resize(_noise(rng, max(8, size // 10)), (size, size), interpolation=cv2.INTER_CUBIC)
    return 1 + 0.05 * fine + 0.06 * coarse, 0.11 * fine + 0.09 * coarse


def _matte(rng: np.random.Generator, size: int) -> tuple[Layer, Layer]:
    peel = cv2.GaussianBlur(_noise(rng, size), (0, 0), 1.4) * np.float32(4.5)
    return 1 + 0.012 * _noise(rng, size), 0.07 * peel


def _blasted(rng: np.random.Generator, size: int) -> tuple[Layer, Layer]:
    fine = _noise(rng, size)
    return 1 + 0.055 * fine, 0.03 * fine


@dataclass(frozen=True)
class Surface:
    """A finish: texture, base colour, how it shines, how bright the laser marks it."""

    texture: Callable[[np.random.Generator, int], tuple[Layer, Layer]]
    colour: Colour
    gloss: float
    mark: float = 0.06


SURFACES: dict[str, Surface] = {
    "brushed": Surface(_brushed, (0.335, 0.340, 0.345), 0.75),
    "turned": Surface(_turned, (0.300, 0.312, 0.325), 0.65),
    "cast": Surface(_cast, (0.215, 0.222, 0.228), 0.25, 0.03),
    "matte": Surface(_matte, (0.215, 0.160, 0.125), 0.20, 0.62),
    "blasted": Surface(_blasted, (0.330, 0.330, 0.325), 0.30),
}


def _recesses(layers: Layers, rng: np.random.Generator) -> None:
    """The crosses in the screw heads, each turned as it happened to stop."""
    mask = layers.blank()
    for centre in SCREWS:
        angle = rng.uniform(0, np.pi)
        for turn in (0.0, np.pi / 2):
            arm = 0.66 * SCREW_RADIUS * np.array([np.cos(angle + turn), np.sin(angle + turn)])
            draw_lines(mask, np.array([np.array(centre) - arm, np.array(centre) + arm]), max(2, layers.size // 80))
    layers.paint(mask, (0.09, 0.09, 0.10), 0.9)


def _mark(layers: Layers, rng: np.random.Generator, serial: int, tone: float) -> None:
    """The laser mark: type and serial number. Its place and depth vary from part to part: that is no defect."""
    size, zoom = layers.size, 3
    canvas = np.zeros((size * zoom // 4, size * zoom), np.uint8)
    scale, thick = size * zoom / 600.0, max(1, size * zoom // 240)
    cv2.putText(
        canvas, "KX-40", (int(0.315 * size * zoom), int(0.095 * size * zoom)), 0, 1.25 * scale, 255, thick + 1, cv2.LINE_AA
    )
    digits = f"{serial % 1_000_000:06d}"
    cv2.putText(
        canvas, digits, (int(0.365 * size * zoom), int(0.17 * size * zoom)), 0, 0.72 * scale, 220, thick, cv2.LINE_AA
    )
    small = cv2.resize(canvas, (size, canvas.shape[0] // zoom), interpolation=cv2.INTER_AREA)
    shift = np.array([[1, 0, rng.normal(0, 0.010) * size], [0, 1, (0.640 + rng.normal(0, 0.006)) * size]])
    mask = np.asarray(cv2.warpAffine(small, shift, (size, size)), np.uint8)
    layers.paint(mask, (tone, tone, tone), float(rng.uniform(0.5, 0.85)))


def _slots(layers: Layers) -> None:
    mask = layers.blank()
    for y in (0.40, 0.445, 0.49):
        for x in (0.19, 0.755):
            draw_lines(mask, np.array([[x, y], [x + 0.05, y]]), max(2, layers.size // 64))
    layers.paint(mask, (0.055, 0.055, 0.055), 0.92)
    layers.height -= mask * np.float32(1.0 / 255)


def make_lid(rng: np.random.Generator, size: int, surface: str, serial: int) -> Layers:
    """An undamaged lid. Raises KeyError on an unknown surface."""
    finish, form = SURFACES[surface], shape(size)
    texture, relief = finish.texture(rng, size)
    shown = texture * form.metal * np.float32(rng.uniform(0.92, 1.08))
    planes = [shown * np.float32(own) + fitting for own, fitting in zip(finish.colour, form.fittings, strict=True)]
    gloss = (form.bare * np.float32(0.8) + np.float32(0.2)) * np.float32(finish.gloss)
    height = form.height + relief * form.bare
    layers = Layers(size, np.asarray(cv2.merge(planes), np.float32), height, form.coverage.copy(), gloss, grain=0.0)
    _slots(layers)
    _recesses(layers, rng)
    _mark(layers, rng, serial, finish.mark)
    return layers
