"""Copies among pictures of one product: the same pixels, re-encoded, rescaled, brighter or darker. Pure.

Parts of one product look alike, so a fixed threshold on any general similarity calls every good part a copy of every
other (64-bit perceptual hashes within 10 bits: 191,000 pairs of the DeepPCB crops). Four questions are asked instead,
three of them against the population at hand:

1. Are they alike in what *differs* between pictures of this product? Cosine of the thumbnails at 32 x 32 after whitening
   (mean and covariance of the population, ridge `_RIDGE`, more for few pictures, whose covariance says little).
2. Are they by that far more alike than either is to its tenth nearest neighbour? (D. Lowe's ratio test, IJCV 2004,
   section 7.1; the tenth instead of the second, so that a handful of copies does not hide each other.)
3. Is there no spot that only one of them has? Largest difference of the 64 x 64 thumbnails after matching brightness and
   contrast, averaged over 3 x 3: a defect on the same background is not a copy.
4. Is that spot far smaller than between each and its tenth nearest neighbour? On a fixture, where good parts differ by
   noise and a little play alone, it is not, and heavily re-encoded copies there are missed rather than good parts refused.

Invariant: equal pixels are always found; the answer depends only on the pictures given, not on their order.

Not found: mirrored and turned copies (many parts are symmetric, and would all be copies of each other), and copies that are
shifted by more than a 256th of the picture's side (parts on a fixture differ by that).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.data.descriptors import PIXEL_DIGEST_BYTES, THUMBNAIL_SIDE

Floats = NDArray[np.float32]

_RIDGE = 0.01  # of the whitening, in squared standard deviations of a thumbnail, times 1 + values / pictures
_LEAST_COSINE = 0.5
_NEIGHBOUR = 10
_MOST_RATIO = 0.5
_MOST_SPOT_RATIO = 0.2
_MOST_SPOT = 0.6  # largest local difference, in standard deviations of the thumbnail ...
_MOST_SPOT_GRAY = 7.0  # ... or in gray levels, for pictures of little contrast
_LEAST_CONTRAST = 1.0  # gray levels; below it a thumbnail says nothing
_LEAST_POPULATION = 3  # of two pictures the mean lies half-way: their cosine is always -1
_BLOCK = 1000  # rows compared at once: 1000 x n float32


@dataclass(frozen=True)
class Described:
    """A picture, its group (pictures of one group are never compared) and its descriptor."""

    picture: str
    group: str
    descriptor: bytes


@dataclass(frozen=True, order=True)
class Copy:
    """Two copies in different groups, ``first < second``; ``similarity`` is at most 1, which equal pixels have."""

    first: str
    second: str
    similarity: float


def find_copies(pictures: Sequence[Described]) -> list[Copy]:
    """All pairs of copies across groups, sorted. Quadratic in time (seconds for 10,000 pictures), not in memory."""
    ordered = sorted(pictures, key=lambda p: p.picture)
    found = {(c.first, c.second): c for c in _look_alikes(ordered)}
    found |= {(c.first, c.second): c for c in _same_pixels(ordered)}
    return sorted(found.values())


def equal_pixels(pictures: Sequence[Described]) -> list[tuple[str, str]]:
    """All pairs of pictures with the same pixels, whatever their groups, each and all sorted."""
    return sorted((a.picture, b.picture) for a, b in _pairs_of_equal_pixels(sorted(pictures, key=lambda p: p.picture)))


def _same_pixels(pictures: Sequence[Described]) -> Iterator[Copy]:
    pairs = _pairs_of_equal_pixels(pictures)
    yield from (Copy(a.picture, b.picture, 1.0) for a, b in pairs if a.group != b.group)


def _pairs_of_equal_pixels(pictures: Sequence[Described]) -> Iterator[tuple[Described, Described]]:
    by_pixels: dict[bytes, list[Described]] = defaultdict(list)
    for picture in pictures:
        by_pixels[picture.descriptor[:PIXEL_DIGEST_BYTES]].append(picture)
    for same in by_pixels.values():
        yield from combinations(same, 2)


def _look_alikes(pictures: Sequence[Described]) -> Iterator[Copy]:
    thumbnails = _thumbnails(pictures)
    telling = np.flatnonzero(thumbnails.std(axis=(1, 2)) >= _LEAST_CONTRAST)
    if len(telling) < _LEAST_POPULATION:
        return
    usable = thumbnails[telling]
    standard = _standardize(usable)
    groups = np.unique([pictures[i].group for i in telling], return_inverse=True)[1]
    spots = _spots_beside(standard)
    for row, column, cosine in _candidates(_whiten(_half(standard)), groups):
        spot = _spot(standard[row], standard[column])
        gray = spot * float(max(usable[row].std(), usable[column].std()))
        same = spot < _MOST_SPOT or gray < _MOST_SPOT_GRAY
        if same and spot < _MOST_SPOT_RATIO * min(spots[row], spots[column]):
            yield Copy(pictures[telling[row]].picture, pictures[telling[column]].picture, round(min(cosine, 1.0), 4))


def _thumbnails(pictures: Sequence[Described]) -> Floats:
    flat = b"".join(p.descriptor[PIXEL_DIGEST_BYTES:] for p in pictures)
    return np.frombuffer(flat, np.uint8).reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE).astype(np.float32)


def _standardize(thumbnails: Floats) -> Floats:
    mean = thumbnails.mean(axis=(1, 2), keepdims=True)
    spread = np.maximum(thumbnails.std(axis=(1, 2), keepdims=True), _LEAST_CONTRAST)
    return np.asarray((thumbnails - mean) / spread, np.float32)


def _half(thumbnails: Floats) -> Floats:
    side = THUMBNAIL_SIDE // 2
    return np.asarray(thumbnails.reshape(-1, side, 2, side, 2).mean(axis=(2, 4)).reshape(-1, side * side), np.float32)


def _whiten(rows: Floats) -> Floats:
    """Rows ``[n, d]`` in the population's own units, each of unit length (or zero, when it is the mean)."""
    centred = rows - rows.mean(axis=0)
    count, values = rows.shape
    ridge = _RIDGE * (1 + values / count)
    root = np.linalg.cholesky(np.cov(centred.T) + ridge * np.eye(values))
    white = np.linalg.solve(root, centred.T).T
    return np.asarray(white / np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-6), np.float32)


def _blocks(rows: Floats) -> Iterator[tuple[int, Floats]]:
    """(first row, its and the next rows' products with all rows), a row's product with itself below all others."""
    for start in range(0, len(rows), _BLOCK):
        products = rows[start : start + _BLOCK] @ rows.T
        own = np.arange(len(products))
        products[own, start + own] = -np.inf
        yield start, products


def _candidates(white: Floats, groups: NDArray[np.intp]) -> Iterator[tuple[int, int, float]]:
    """(row, column, cosine) with row < column, of different groups, that pass questions 1 and 2."""
    found: list[tuple[int, int, float]] = []
    neighbour = np.empty(len(white), np.float32)
    nth = min(_NEIGHBOUR, len(white) - 1)
    for start, cosines in _blocks(white):
        neighbour[start : start + _BLOCK] = np.partition(cosines, -nth, axis=1)[:, -nth]
        hits = np.argwhere(cosines > _LEAST_COSINE)
        found += [(start + int(i), int(j), float(cosines[i, j])) for i, j in hits if start + i < j]
    for row, column, cosine in found:
        nearest = max(neighbour[row], neighbour[column])
        if groups[row] != groups[column] and 1 - cosine < _MOST_RATIO * (1 - nearest):
            yield row, column, cosine


def _spots_beside(standard: Floats) -> list[float]:
    """The spot between each thumbnail and its tenth nearest neighbour by plain correlation."""
    nth = min(_NEIGHBOUR, len(standard) - 1)
    beside: list[int] = []
    for _, products in _blocks(_half(standard)):
        beside += np.argpartition(products, -nth, axis=1)[:, -nth].tolist()
    return [_spot(standard[row], standard[other]) for row, other in enumerate(beside)]


def _spot(first: Floats, second: Floats) -> float:
    return float(np.abs(cv2.blur(first - second, (3, 3))).max())
