"""Imaging health: is the picture sharp, lit and where it should be? Measured, against a reference where there is one.

Focus is the mean squared gradient (Tenengrad; Krotkov, "Focusing", IJCV 1 (1987)) of patches at native resolution, over
their variance of grey, so that a darker lamp is no defocus. Position is the phase correlation of two reduced pictures
(`cv2.phaseCorrelate`; Kuglin and Hines, 1975).
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import PictureError, UsageError
from edge_agent.pictures import Image, decode

_PATCH = 96
_GRID = 4
_SMALL = 256
SATURATED_ABOVE = 249
_SAMPLES = 400_000
_MAX_BYTES = 64 * 1024 * 1024
_MAX_PIXELS = 64_000_000
_FLAT = 1.0  # a patch with less variance of grey than this (of 255 squared) shows nothing that could be sharp


@dataclass(frozen=True)
class Imaging:
    """Focus (no unit, higher is sharper), mean grey and its 99.9th percentile (of 255), share of saturated samples, shift
    in pixels and how sure it is (0 to 1; below about 0.1 the pictures have too little in common)."""

    focus: float
    brightness: float
    saturated_share: float
    shift_x: float | None = None
    shift_y: float | None = None
    shift_response: float | None = None

    def as_health(self) -> dict[str, float]:
        """What is known, rounded, for reports."""
        return {name: round(value, 4) for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Reference:
    """A picture of a good part, well lit, sharp and in place, as this camera must see it."""

    width: int
    height: int
    focus: float
    small: NDArray[np.float32]

    @classmethod
    def of(cls, image: Image) -> "Reference":
        """From a frame."""
        return cls(image.shape[1], image.shape[0], focus_of(image), _reduced(image))

    @classmethod
    def load(cls, path: Path) -> "Reference":
        """From a file. UsageError when it is no picture."""
        try:
            return cls.of(decode(path.read_bytes(), max_bytes=_MAX_BYTES, max_pixels=_MAX_PIXELS))
        except (OSError, PictureError) as error:
            raise UsageError(f"reference picture {path} cannot be read: {error}; save one frame of a good part") from error


def focus_of(image: Image) -> float:
    """Sharpness of a frame uint8 ``[H, W, 3]``: the sharpest quarter of a grid of patches, so that a plain background
    around the part does not hide it."""
    found = sorted((_sharpness(patch) for patch in _patches(image)), reverse=True)
    best = found[: max(1, len(found) // 4)]
    return float(np.mean(best))


def _patches(image: Image) -> list[Image]:
    height, width = image.shape[:2]
    side = min(_PATCH, height, width)
    ys, xs = np.linspace(0, height - side, _GRID).astype(int), np.linspace(0, width - side, _GRID).astype(int)
    return [image[y : y + side, x : x + side] for y in ys for x in xs]


def _sharpness(patch: Image) -> float:
    grey = cv2.cvtColor(patch, cv2.COLOR_BGR2GRAY).astype(np.float32)
    variance = float(grey.var())
    if variance < _FLAT:
        return 0.0
    across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    return float((across * across + down * down).mean()) / (64.0 * variance)


class Samples:
    """Every n-th row of a frame uint8 ``[H, W, 3]``, at least 400,000 values if it has them: whole rows, since a value here
    and there costs more than all of the row around it.

    Invariant: the memory stays from frame to frame, since touching fresh memory costs more than all that is done with it.
    One for each stream; for one thread.
    """

    def __init__(self) -> None:
        self.values: Image = np.empty((0, 0, 3), np.uint8)

    def take(self, image: Image) -> "Samples":
        """Sample a frame, which must have pixels."""
        rows = image[:: max(1, image.size // _SAMPLES)]
        if rows.shape != self.values.shape:
            self._make_room(rows.shape)
        np.copyto(self.values, rows)
        return self

    def _make_room(self, shape: tuple[int, ...]) -> None:
        size = math.prod(shape)
        padded = np.zeros(-(-size // 8) * 8, np.uint8)
        self.values = padded[:size].reshape(shape)
        self._above = np.empty(shape, np.bool_)
        self._words = padded.view(np.uint64)
        self._weights: NDArray[np.uint64] | None = None

    def share_above(self, level: int) -> float:
        """Share of values above a level."""
        return float(np.count_nonzero(np.greater(self.values, level, out=self._above))) / self.values.size

    def fingerprint(self) -> int:
        """Equal for equal samples; for others as good as never: a sum of 8-byte words with random odd weights, modulo 2^64
        (multilinear hashing; Lemire and Kaser, "Strongly universal string hashing is fast", 2014). Five times as fast as a
        checksum; not against somebody who wants it to be equal."""
        if self._weights is None:
            self._weights = np.random.default_rng(0).integers(0, 2**64, self._words.size, dtype=np.uint64) | np.uint64(1)
        return int(np.dot(self._words, self._weights))


def shift_of(image: Image, reference: Reference) -> tuple[float, float, float]:
    """How many pixels the picture lies right of and below the reference, and the response of the correlation (0 to 1)."""
    (x, y), response = cv2.phaseCorrelate(reference.small, _reduced(image))
    scale_x, scale_y = image.shape[1] / _SMALL, image.shape[0] / _SMALL
    return x * scale_x, y * scale_y, float(response)


def _reduced(image: Image) -> NDArray[np.float32]:
    """Grey, ``[256, 256]``, under a Hann window, so that the edges of the frame do not take part."""
    small = cv2.cvtColor(cv2.resize(image, (_SMALL, _SMALL), interpolation=cv2.INTER_LINEAR), cv2.COLOR_BGR2GRAY)
    centred = small.astype(np.float32) - float(small.mean())
    return np.asarray(centred * cv2.createHanningWindow((_SMALL, _SMALL), cv2.CV_32F), np.float32)


def measure(image: Image, reference: Reference | None = None) -> Imaging:
    """Everything at once, for the report: about 5 ms on a 1080p frame, so once a second, not per part."""
    x, y, response = (None, None, None) if reference is None else shift_of(image, reference)
    samples = Samples().take(image)
    return Imaging(focus_of(image), float(samples.values.mean()), samples.share_above(SATURATED_ABOVE), x, y, response)
