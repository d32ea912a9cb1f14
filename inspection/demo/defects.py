"""What can be wrong with a lid: eight kinds, each drawn into the part's layers before light falls on it.

A painter changes colour, height or outline in place and returns the mask of what it touched (the truth's box comes
from it). Invariant: nothing outside that mask changes, so a defective part differs from its good twin nowhere else.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.demo import lid
from inspection.demo.lid import Layers, Mask

Rng = np.random.Generator
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Severity:
    """How large and how visible this one defect is: factors around 1."""

    size: float
    contrast: float


def _stroke(layers: Layers) -> int:
    """Width in pixels of a fine line, so that it looks alike at every picture size."""
    return max(1, round(layers.size / 95))


def _free_spot(rng: Rng, margin: float = 0.07) -> tuple[float, float]:
    """A place on the lid's face, away from port, screws and edge."""
    while True:
        x = rng.uniform(0.5 - lid.HALF_WIDTH + margin, 0.5 + lid.HALF_WIDTH - margin)
        y = rng.uniform(0.5 - lid.HALF_HEIGHT + margin, 0.5 + lid.HALF_HEIGHT - margin)
        clear_of_port = np.hypot(x - lid.PORT_CENTRE[0], y - lid.PORT_CENTRE[1]) > lid.SEAL_RADIUS + 0.045
        clear_of_screws = all(np.hypot(x - sx, y - sy) > lid.SCREW_RADIUS + 0.04 for sx, sy in lid.SCREWS)
        if clear_of_port and clear_of_screws:
            return float(x), float(y)


def _edge_spot(rng: Rng) -> tuple[Points, Points]:
    """A place on the straight part of the outline, and the unit vector that points outwards there."""
    along = rng.uniform(-1, 1)
    span_x, span_y = lid.HALF_WIDTH - lid.CORNER, lid.HALF_HEIGHT - lid.CORNER
    side = int(rng.integers(4))
    if side < 2:
        sign = 1.0 if side else -1.0
        return np.array([0.5 + along * span_x, 0.5 + sign * lid.HALF_HEIGHT]), np.array([0.0, sign])
    sign = 1.0 if side == 2 else -1.0
    return np.array([0.5 + sign * lid.HALF_WIDTH, 0.5 + along * span_y]), np.array([sign, 0.0])


def _blob(rng: Rng, centre: Points, radius: float, roughness: float = 0.3, points: int = 14) -> Points:
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    radii = radius * (1 + roughness * rng.uniform(-1, 1, points))
    squash = rng.uniform(0.55, 1.0)
    ring = np.stack([radii * np.cos(angles), squash * radii * np.sin(angles)], axis=1)
    turn = rng.uniform(0, np.pi)
    rotate = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.asarray(centre + ring @ rotate.T)


def _walk(rng: Rng, start: Points, heading: float, length: float, wobble: float, steps: int) -> Points:
    headings = heading + np.cumsum(rng.normal(0, wobble, steps))
    stride = length / steps * np.stack([np.cos(headings), np.sin(headings)], axis=1)
    return np.vstack([start, start + np.cumsum(stride, axis=0)])


def scratch(layers: Layers, rng: Rng, how: Severity) -> Mask:
    """A bright line across the grain with a dark lip, slightly curved."""
    angle = layers.grain + rng.choice([-1, 1]) * rng.uniform(0.45, 1.45)
    points = _walk(rng, np.array(_free_spot(rng)), angle, how.size * rng.uniform(0.16, 0.34), 0.05, 8)
    mask, lip = layers.blank(), layers.blank()
    draw = np.array([0.6, 0.8]) / layers.size
    lid.draw_lines(lip, points + draw, _stroke(layers))
    lid.draw_lines(mask, points, _stroke(layers))
    layers.paint(lip, (0.12, 0.12, 0.12), min(1.0, 0.42 * how.contrast))
    layers.paint(mask, (0.88, 0.89, 0.90), min(1.0, 0.62 * how.contrast))
    return np.maximum(mask, lip)


def dent(layers: Layers, rng: Rng, how: Severity) -> Mask:
    """A shallow dip: seen only by the light it bends."""
    radius = how.size * rng.uniform(0.042, 0.075)
    mask = layers.blank()
    lid.draw_polygon(mask, _blob(rng, np.array(_free_spot(rng, 0.09)), radius, 0.12))
    blurred = cv2.GaussianBlur(mask, (0, 0), max(0.8, radius * layers.size * 0.33))
    soft = np.maximum(np.asarray(blurred, np.float32) - 10, 0)  # no tail beyond the mask
    depth = 0.9 * radius * layers.size * how.contrast
    layers.height -= soft * np.float32(depth / 255)
    return np.where(soft > 3, 255, 0).astype(np.uint8)


def crack(layers: Layers, rng: Rng, how: Severity) -> Mask:
    """A dark jagged line that starts at a hole or an edge and forks."""
    if rng.random() < 0.5:
        turn = rng.uniform(0, 2 * np.pi)
        out = np.array([np.cos(turn), np.sin(turn)])
        start, heading = np.array(lid.PORT_CENTRE) + out * (lid.SEAL_RADIUS + lid.SEAL_WIDTH / 2), turn
    else:
        start, out = _edge_spot(rng)
        heading = float(np.arctan2(-out[1], -out[0]))
    length = how.size * rng.uniform(0.20, 0.36)
    mask = layers.blank()
    path = _walk(rng, start, heading + rng.normal(0, 0.25), length, 0.36, 11)
    lid.draw_lines(mask, path, _stroke(layers))
    fork = path[int(rng.integers(4, 9))]
    lid.draw_lines(mask, _walk(rng, fork, heading + rng.choice([-0.8, 0.8]), 0.4 * length, 0.4, 5), 1)
    mask = np.where(lid.shape(layers.size).coverage > 0.5, mask, 0).astype(np.uint8)
    layers.paint(mask, (0.015, 0.015, 0.02), min(1.0, how.contrast))
    layers.height -= mask * np.float32(0.8 * how.contrast / 255)
    return mask


_STAINS: tuple[lid.Colour, ...] = ((0.07, 0.14, 0.22), (0.08, 0.09, 0.10), (0.10, 0.19, 0.33))


def stain(layers: Layers, rng: Rng, how: Severity) -> Mask:
    """Oil, soot or rust: a blotch with a darker rim and a few satellites."""
    centre, radius = np.array(_free_spot(rng, 0.09)), how.size * rng.uniform(0.045, 0.085)
    mask = layers.blank()
    lid.draw_polygon(mask, _blob(rng, centre, radius, 0.38))
    for _ in range(int(rng.integers(0, 4))):
        drop = centre + rng.normal(0, 1.1 * radius, 2)
        lid.draw_disc(mask, (float(drop[0]), float(drop[1])), radius * rng.uniform(0.1, 0.25))
    soft = cv2.GaussianBlur(mask, (0, 0), layers.size / 160 * 0.9)
    mask = np.where(lid.shape(layers.size).coverage > 0.5, soft, 0).astype(np.uint8)
    rim = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)), np.uint8)
    colour = _STAINS[int(rng.integers(len(_STAINS)))]
    layers.paint(mask, colour, min(1.0, 0.62 * how.contrast))
    layers.paint(rim, colour, min(1.0, 0.3 * how.contrast))
    return np.maximum(mask, rim)


def missing_screw(layers: Layers, rng: Rng, how: Severity) -> Mask:  # noqa: ARG001 - a screw is there or not
    """An empty threaded hole."""
    centre = lid.SCREWS[int(rng.integers(4))]
    whole, mask = layers.blank(), layers.blank()
    lid.draw_disc(whole, centre, lid.SCREW_RADIUS + 0.004)
    layers.paint(whole, (0.24, 0.245, 0.25))
    lid.draw_disc(mask, centre, lid.SCREW_RADIUS * 0.66)
    layers.paint(mask, (0.030, 0.030, 0.030))
    ring = layers.blank()
    lid.draw_disc(ring, centre, lid.SCREW_RADIUS * 0.5, 1)
    layers.paint(ring, (0.20, 0.20, 0.20), 0.55)
    layers.height -= whole * np.float32(1.4 / 255) + mask * np.float32(1.2 / 255)
    return np.maximum(whole, mask)


def chipped_edge(layers: Layers, rng: Rng, how: Severity) -> Mask:
    """Material broken out of the outline, with a bright fracture face."""
    spot, out = _edge_spot(rng)
    radius = how.size * rng.uniform(0.038, 0.062)
    bite, face = layers.blank(), layers.blank()
    shape = _blob(rng, spot + out * radius * 0.15, radius, 0.3, 11)
    lid.draw_polygon(bite, shape)
    lid.draw_polygon(face, shape - out * radius * 0.42)
    on_lid = lid.shape(layers.size).coverage
    face = (face * on_lid).astype(np.uint8)
    layers.paint(face, (0.74, 0.75, 0.77), min(1.0, 0.75 * how.contrast))
    layers.height += face * np.float32(rng.normal(0, 0.5) / 255)
    layers.alpha *= 1 - bite * np.float32(1 / 255)
    return np.maximum(face, (bite * on_lid).astype(np.uint8))


def burr(layers: Layers, rng: Rng, how: Severity) -> Mask:
    """A ragged bright fringe left on the outline by a blunt tool."""
    spot, out = _edge_spot(rng)
    along, length = np.array([-out[1], out[0]]), how.size * rng.uniform(0.10, 0.22)
    steps = 12
    reach = np.abs(rng.normal(0, 0.011 * how.contrast, steps)) + 0.006
    base = spot + np.linspace(-0.5, 0.5, steps)[:, None] * length * along
    ragged = base + reach[:, None] * out
    mask = layers.blank()
    lid.draw_polygon(mask, np.vstack([base - 0.008 * out, ragged[::-1]]))
    layers.paint(mask, (0.62, 0.63, 0.64), min(1.0, 0.85 * how.contrast))
    np.maximum(layers.alpha, mask * np.float32(1 / 255), out=layers.alpha)
    return mask


def gasket_gap(layers: Layers, rng: Rng, how: Severity) -> Mask:
    """The rubber seal is torn: bare groove over a short arc."""
    middle, half = rng.uniform(0, 2 * np.pi), how.size * rng.uniform(0.30, 0.65)
    angles = np.linspace(middle - half, middle + half, 9)
    lean = rng.normal(0, 0.08, 2)
    inner = lid.SEAL_RADIUS - lid.SEAL_WIDTH * 0.62
    outer = lid.SEAL_RADIUS + lid.SEAL_WIDTH * 0.62
    ring = [(r, a + s) for r, order, s in ((inner, angles, lean[0]), (outer, angles[::-1], lean[1])) for a in order]
    points = np.array([[r * np.cos(a), r * np.sin(a)] for r, a in ring]) + np.array(lid.PORT_CENTRE)
    mask = layers.blank()
    lid.draw_polygon(mask, points)
    mask = (mask * lid.shape(layers.size).seal).astype(np.uint8)
    layers.paint(mask, (0.52, 0.53, 0.54), min(1.0, 0.95 * how.contrast))
    layers.height -= mask * np.float32(1.5 / 255)
    return mask


Painter = Callable[[Layers, Rng, Severity], Mask]
PAINTERS: dict[str, Painter] = {
    "dent": dent,
    "stain": stain,
    "missing_screw": missing_screw,
    "scratch": scratch,
    "crack": crack,
    "chipped_edge": chipped_edge,
    "burr": burr,
    "gasket_gap": gasket_gap,
}
