"""Decoded pictures at the network's working size, made once per training.

Invariant: the pixels are those of `Preprocess.resize`, rounded to uint8, so an epoch neither decodes nor resizes and
still sees what the device sees: whole frames, or their tiles.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from inspection.contracts import WHOLE, Box, Framed, Region, canonical_json, sha256_hex, tile_count, tiles_of
from inspection.data.pictures import decode_bgr
from inspection.data.snapshot_record import Example
from inspection.errors import PictureError, UsageError
from inspection.models.preprocess import HALVINGS, Preprocess

Pictures = Callable[[str], bytes]
"""From a picture's sha256 to its file bytes."""


def decode_tiles(data: bytes, framed: Framed) -> list[tuple[Region, NDArray[np.uint8]]]:
    """File bytes to what the network is given: the tiles of the region of interest, uint8 ``[h, w, 3]`` BGR, each with its
    place in the frame. UsageError when the region does not lie in the picture."""
    frame = decode_bgr(data)
    try:
        tiles = tiles_of(frame.shape[0], frame.shape[1], framed)
    except ValueError as error:
        raise UsageError(f"a picture does not fit the product: {error}") from error
    return [(t, np.ascontiguousarray(frame[t.y : t.y + t.height, t.x : t.x + t.width])) for t in tiles]


def decode_example(data: bytes, example: Example, framed: Framed) -> list[tuple[Region, NDArray[np.uint8]]]:
    """`decode_tiles` of an example's picture. Raises UsageError and PictureError, which name picture, part and station."""
    station = f" at station {example.station}" if example.station else ""
    name = f"picture {example.picture[:12]} of part {example.part}{station}"
    try:
        return decode_tiles(data, framed)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
    except PictureError as error:
        raise PictureError(f"{name}: {error}", error.code) from error


@dataclass(frozen=True)
class Working:
    """Tiles of N pictures, T of each, in order. ``images`` uint8 ``[N * T, h, w, 3]`` BGR; ``places`` uint8
    ``[N * T, h, w]``: which class lies where; ``labels`` int64 ``[N * T]``: the class each tile shows by itself.

    In ``places`` a pixel is `GOOD_PLACE`, 1 + class index inside a box, or `UNKNOWN_PLACE`: in a box of a class the network
    does not learn, and all over a defective picture without a box that reaches into the region of interest. A label is
    `UNCLEAR` there too, unless the tile is the whole picture, and where a tile shows less than half of every box of a known
    class that reaches into it.
    """

    images: NDArray[np.uint8]
    places: NDArray[np.uint8]
    labels: NDArray[np.int64]
    path: Path

    @classmethod
    def open(cls, path: Path, shape: tuple[int, int, int]) -> Self:
        """What `working_pictures` has written. ``shape``: of the places."""
        images = np.memmap(path, dtype=np.uint8, mode="r", shape=(*shape, 3))
        places = np.memmap(path.with_suffix(".places"), dtype=np.uint8, mode="r", shape=shape)
        return cls(images, places, np.load(path.with_suffix(".npy")), path)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the files; it is not sent their content."""
        return self.open, (self.path, self.places.shape)


GOOD_PLACE, UNKNOWN_PLACE = 0, 255
UNCLEAR = -1
_SEEN = 0.5  # of a box's area: with less of it in a tile nobody could name the defect
_RULES = 2  # by which places and labels are drawn: what was kept by others is not used again


@dataclass(frozen=True)
class Workshop:
    """How pictures are brought to the working size: the network's preprocessing, the product's framing and classes."""

    preprocess: Preprocess
    classes: Sequence[str]
    good_class: str
    framed: Framed = WHOLE

    def key(self, examples: Sequence[Example]) -> str:
        """A name for the result: the same for the same pictures, boxes, size and framing."""
        size, region, tiling = [self.preprocess.height, self.preprocess.width], self.framed.region, self.framed.tiling
        framing = [region and region.model_dump(mode="json"), tiling.model_dump(mode="json")]
        shown = [[e.picture, e.label, [b.model_dump(mode="json") for b in e.boxes]] for e in examples]
        drawn_by = [_RULES, size, HALVINGS, list(self.classes), self.good_class, framing, shown]
        return sha256_hex(canonical_json(drawn_by))[:16]

    def tiles(self, data: bytes, example: Example) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8], int]]:
        """File bytes to ``(image [h, w, 3], places [h, w], label)`` of each tile; see `Working`, `decode_example`."""
        for tile, frame in decode_example(data, example, self.framed):
            resized = self.preprocess.resize(torch.from_numpy(frame)[None])[0].round().clamp(0, 255)
            image = resized.byte().permute(1, 2, 0).contiguous().numpy()
            yield image, self.places(example, tile), self.label(example, tile)

    def places(self, example: Example, tile: Region) -> NDArray[np.uint8]:
        """Draw the example's boxes as they lie in a tile; a box is never lost by shrinking, it keeps at least a pixel."""
        height, width = self.preprocess.height, self.preprocess.width
        drawn = np.full((height, width), UNKNOWN_PLACE if self._hidden(example) else GOOD_PLACE, np.uint8)
        for box in sorted(self._defects(example), key=self._known):
            rows = _span(box.y - tile.y, box.height, height / tile.height)
            columns = _span(box.x - tile.x, box.width, width / tile.width)
            drawn[rows, columns] = 1 + self.classes.index(box.label) if self._known(box) else UNKNOWN_PLACE
        return drawn

    def label(self, example: Example, tile: Region) -> int:
        """Index of the class a tile shows: the picture's if that is good or has one tile only; else the largest box's."""
        if example.label == self.good_class or tile_count(self.framed) == 1:
            return self.classes.index(example.label)
        if self._hidden(example):
            return UNCLEAR
        within = [(box, _area_within(box, tile)) for box in self._defects(example)]
        known = [(box, area) for box, area in within if self._known(box)]
        clear = [(area, box.label) for box, area in known if area >= _SEEN * box.width * box.height]
        if clear:
            return self.classes.index(max(clear)[1])
        return UNCLEAR if any(area > 0 for _, area in within) else self.classes.index(self.good_class)

    def _defects(self, example: Example) -> list[Box]:
        """None on a good picture: boxes left on one are a model's that somebody has answered with "good"."""
        return [b for b in example.boxes if self.good_class not in (b.label, example.label)]

    def _hidden(self, example: Example) -> bool:
        """Whether it is defective and nobody has shown where in the region of interest."""
        region = self.framed.region
        within = (region is None or _area_within(box, region) > 0 for box in self._defects(example))
        return example.label != self.good_class and not any(within)

    def _known(self, box: Box) -> bool:
        """Whether its class is one the network learns; some are too rare to be."""
        return box.label in self.classes


def _span(start: float, length: float, scale: float) -> slice:
    """A box's side in working pixels: clipped at 0 (the array clips the far end)."""
    first = max(0, math.floor(start * scale))
    return slice(first, max(0, math.ceil((start + length) * scale)))


def _area_within(box: Box, tile: Region) -> float:
    """Square pixels of a box that lie in a tile."""
    width = min(box.x + box.width, tile.x + tile.width) - max(box.x, tile.x)
    height = min(box.y + box.height, tile.y + tile.height) - max(box.y, tile.y)
    return max(0.0, width) * max(0.0, height)


def working_pictures(examples: Sequence[Example], pictures: Pictures, workshop: Workshop, workdir: Path) -> Working:
    """All examples at the working size, memory-mapped from files in ``workdir`` that are used again if they are there."""
    shape = (len(examples) * tile_count(workshop.framed), workshop.preprocess.height, workshop.preprocess.width)
    path = workdir / f"pictures-{workshop.key(examples)}.u8"
    if not path.exists():
        workdir.mkdir(parents=True, exist_ok=True)
        _write(path, examples, pictures, workshop)
    return Working.open(path, shape)


def clear_pictures(below: Path) -> None:
    """Delete what `working_pictures` wrote anywhere below a folder: nothing reads it once its training is over."""
    for path in below.rglob("pictures-*"):
        path.unlink(missing_ok=True)


def _write(path: Path, examples: Sequence[Example], pictures: Pictures, workshop: Workshop) -> None:
    """Write temporary files, then name them, the pictures last: their name means that all are complete."""
    images, places, labels = path.with_suffix(".u8.tmp"), path.with_suffix(".places.tmp"), []
    with images.open("wb") as image_file, places.open("wb") as place_file, torch.inference_mode():
        for example in examples:
            for image, drawn, label in workshop.tiles(pictures(example.picture), example):
                image_file.write(image.tobytes())
                place_file.write(drawn.tobytes())
                labels.append(label)
    np.save(path.with_suffix(".npy"), np.asarray(labels, np.int64))
    places.replace(path.with_suffix(".places"))
    images.replace(path)
