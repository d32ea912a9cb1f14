"""Everything in the picture that says nothing about the part: belt, light, dust, lens, sensor, and look-alikes.

Invariant: no function here sees the part's truth, so none of it can leak the class. Light drifts with the part's
index: slowly in brightness, colour temperature and direction.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.demo import lid
from inspection.demo.lid import Layer, Layers

Rng = np.random.Generator


@dataclass(frozen=True)
class Light:
    """One exposure: ``gain`` overall, ``warmth`` (positive: redder), direction in radians, ``slope`` of brightness."""

    gain: float
    warmth: float
    direction: float
    slope: float
    slope_direction: float
    highlight: float


def light_at(index: int, rng: Rng) -> Light:
    """The light at a part's index: a slow drift (lamp ageing, daylight, warm-up) plus a small flicker."""
    hours = index / 400.0
    drift = 0.075 * np.sin(2 * np.pi * hours / 1.7) - 0.05 * np.tanh(hours / 3)
    return Light(
        gain=float(1.0 + drift + rng.normal(0, 0.025)),
        warmth=float(0.035 * np.sin(2 * np.pi * hours / 2.3 + 1) + rng.normal(0, 0.012)),
        direction=float(-2.2 + 0.35 * np.sin(2 * np.pi * hours / 3.1) + rng.normal(0, 0.12)),
        slope=float(abs(rng.normal(0.10, 0.05))),
        slope_direction=float(hours * 0.9 + rng.normal(0, 0.3)),
        highlight=float(rng.uniform(0.15, 0.85)),
    )


@lru_cache(maxsize=8)
def _axes(size: int) -> tuple[Layer, Layer]:
    axis = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    return x, y


def shade(layers: Layers, light: Light) -> Layer:
    """Light on the part: reflectance times diffuse shading, plus highlights; float32 [S, S, 3].

    Diffuse shading is the Lambert term linearized in the height map's slope; the highlight is a soft band whose place
    bends with the slope.
    """
    gx = cv2.Sobel(layers.height, cv2.CV_32F, 1, 0, ksize=3, scale=0.125)
    gy = cv2.Sobel(layers.height, cv2.CV_32F, 0, 1, ksize=3, scale=0.125)
    lx, ly = float(np.cos(light.direction)), float(np.sin(light.direction))
    lean = cv2.addWeighted(gx, -lx, gy, -ly, 0)
    x, y = _axes(layers.size)
    place = cv2.addWeighted(x, lx, y, ly, 0.5 - light.highlight)
    cv2.scaleAdd(lean, 0.25, place, dst=place)
    band = cv2.exp(cv2.multiply(place, place, scale=-20.0))
    diffuse = np.clip(1 - np.float32(0.8) * np.asarray(lean, np.float32), 0.25, 2.2)
    diffuse *= 1 + layers.gloss * np.asarray(band, np.float32)
    return np.asarray(cv2.multiply(layers.colour, lid.tripled(diffuse)), np.float32)


def brush_marks(layers: Layers, rng: Rng) -> None:
    """Handling marks along the grain: thin, long, faint. Not a defect."""
    mask = layers.blank()
    for _ in range(int(rng.integers(1, 5))):
        x, y, length = rng.uniform(0.2, 0.7), rng.uniform(0.2, 0.8), rng.uniform(0.08, 0.25)
        tilt = rng.normal(0, 0.05)
        lid.draw_lines(mask, np.array([[x, y], [x + length, y + tilt * length]]), 1)
    tone = float(rng.choice([0.25, 0.8]))
    layers.paint(mask, (tone, tone, tone), float(rng.uniform(0.15, 0.4)))


def dust(layers: Layers, rng: Rng) -> None:
    """Specks and a fibre lying on the part; blown off at the next station. Not a defect."""
    mask = layers.blank()
    for _ in range(int(rng.integers(2, 9))):
        x, y = rng.uniform(0.15, 0.85, 2)
        lid.draw_disc(mask, (float(x), float(y)), float(rng.uniform(0.002, 0.006)))
    if rng.random() < 0.4:
        start = rng.uniform(0.25, 0.75, 2)
        bend = np.cumsum(rng.normal(0, 0.012, (4, 2)), axis=0)
        lid.draw_lines(mask, np.vstack([start, start + bend]), 1)
    mask = (mask * lid.shape(layers.size).coverage).astype(np.uint8)
    layers.paint(mask, (0.72, 0.74, 0.75), float(rng.uniform(0.35, 0.7)))


def water_mark(layers: Layers, rng: Rng) -> None:
    """A dried drop: a pale film with a thin rim. Not a defect."""
    centre = (float(rng.uniform(0.25, 0.75)), float(rng.uniform(0.25, 0.75)))
    radius = float(rng.uniform(0.03, 0.085))
    film, rim = layers.blank(), layers.blank()
    lid.draw_disc(film, centre, radius)
    lid.draw_disc(rim, centre, radius, 1)
    film = (cv2.GaussianBlur(film, (0, 0), layers.size / 90) * lid.shape(layers.size).coverage).astype(np.uint8)
    rim = (rim * lid.shape(layers.size).coverage).astype(np.uint8)
    layers.paint(film, (0.66, 0.66, 0.66), float(rng.uniform(0.08, 0.2)))
    layers.paint(rim, (0.75, 0.75, 0.75), float(rng.uniform(0.08, 0.25)))


def lens_dust(picture: Layer, rng: Rng) -> None:
    """Dirt on the front glass: soft dark discs fixed in the picture, not on the part."""
    size = picture.shape[0]
    for _ in range(int(rng.integers(1, 4))):
        radius = float(rng.uniform(0.02, 0.05)) * size
        half = int(2 * radius) + 1
        cx, cy = (int(v) for v in rng.integers(half, size - half, 2))
        axis = np.arange(-half, half, dtype=np.float32)
        bump = np.exp(-(((axis[:, None] ** 2 + axis**2) / np.float32(radius**2)) ** 2))
        window = picture[cy - half : cy + half, cx - half : cx + half]
        window *= (1 - np.float32(rng.uniform(0.05, 0.13)) * bump)[..., None]


def belt(rng: Rng, size: int) -> Layer:
    """A ribbed rubber conveyor at a random phase; float32 [S, S]."""
    phase = rng.uniform(0, 2 * np.pi)
    ribs = 0.010 * np.sin(np.linspace(0, 2 * np.pi * 17, size) + phase) + 0.055
    return np.asarray(rng.standard_normal((size, size), dtype=np.float32) * np.float32(0.006) + ribs, np.float32)


BELT_TINT: lid.Colour = (1.08, 1.0, 0.86)


def expose(scene: Layer, light: Light, rng: Rng) -> NDArray[np.uint8]:
    """Lens and sensor: vignette, blur, colour balance, shot and read noise, gamma 1/2; uint8 [S, S, 3] BGR.

    Noise variance is read noise + shot noise proportional to the light (EMVA 1288's linear camera model).
    """
    size = scene.shape[0]
    x, y = _axes(size)
    tilt = cv2.addWeighted(
        x, light.slope * np.cos(light.slope_direction), y, light.slope * np.sin(light.slope_direction), 1
    )
    field = (tilt - _vignette(size)) * np.float32(light.gain)
    planes = [field * np.float32(balance) for balance in (1 - light.warmth, 1.0, 1 + light.warmth)]
    linear = cv2.multiply(cv2.GaussianBlur(scene, (0, 0), 0.45 * size / 160), cv2.merge(planes))
    variance = np.maximum(linear[..., 1], 0) * np.float32(1.2e-4) + np.float32(1.5e-5)
    noise = rng.standard_normal((size, size), dtype=np.float32) * np.asarray(np.sqrt(variance), np.float32)
    linear = cv2.add(linear, lid.tripled(noise))
    np.maximum(linear, 0, out=linear)
    return np.asarray(cv2.convertScaleAbs(cv2.sqrt(linear), alpha=255.0), np.uint8)


@lru_cache(maxsize=8)
def _vignette(size: int) -> Layer:
    x, y = _axes(size)
    return np.asarray(np.float32(0.22) * (x * x + y * y), np.float32)
