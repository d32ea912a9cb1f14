"""Decoded pictures at the network's working size, made once per training.

Invariant: the pixels are those of `Preprocess.resize`, rounded to uint8, so an epoch neither decodes nor resizes and
still sees what the device sees.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from inspection.contracts import Region, canonical_json, sha256_hex
from inspection.data.pictures import decode_bgr
from inspection.data.snapshot_record import Example
from inspection.errors import UsageError
from inspection.models.preprocess import HALVINGS, Preprocess

Pictures = Callable[[str], bytes]
"""From a picture's sha256 to its file bytes."""


def decode_frame(data: bytes, region: Region | None) -> NDArray[np.uint8]:
    """File bytes to the uint8 ``[H, W, 3]`` BGR frame the network is given: the region of interest, if there is one."""
    frame = decode_bgr(data)
    if region is None:
        return frame
    cut = frame[region.y : region.y + region.height, region.x : region.x + region.width]
    if cut.shape[:2] != (region.height, region.width):
        raise UsageError(
            f"a picture of {frame.shape[1]}x{frame.shape[0]} px does not hold the region of interest "
            f"{region.width}x{region.height} at ({region.x}, {region.y}): correct the product's region"
        )
    return np.ascontiguousarray(cut)


@dataclass(frozen=True)
class Working:
    """``images`` uint8 ``[N, h, w, 3]`` BGR; ``places`` uint8 ``[N, h, w]``: which class lies where.

    In ``places`` a pixel is `GOOD_PLACE`, 1 + class index inside a box, or `UNKNOWN_PLACE` all over a defective picture
    that nobody drew a box on.
    """

    images: NDArray[np.uint8]
    places: NDArray[np.uint8]


GOOD_PLACE, UNKNOWN_PLACE = 0, 255


@dataclass(frozen=True)
class Workshop:
    """How pictures are brought to the working size: the network's preprocessing, the product's region and classes."""

    preprocess: Preprocess
    classes: Sequence[str]
    good_class: str
    region: Region | None = None

    def key(self, examples: Sequence[Example]) -> str:
        """A name for the result: the same for the same pictures, boxes, size and region."""
        size = [self.preprocess.height, self.preprocess.width]
        what = [size, HALVINGS, list(self.classes), self.good_class, self.region and self.region.model_dump(mode="json")]
        shown = [[e.picture, e.label, [b.model_dump(mode="json") for b in e.boxes]] for e in examples]
        return sha256_hex(canonical_json([what, shown]))[:16]

    def picture(self, data: bytes, example: Example) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """File bytes to ``(image [h, w, 3], places [h, w])``, both uint8."""
        frame = torch.from_numpy(decode_frame(data, self.region))
        resized = self.preprocess.resize(frame[None])[0].round().clamp(0, 255)
        image = resized.byte().permute(1, 2, 0).contiguous().numpy()
        return image, self.places(example, frame.shape[0], frame.shape[1])

    def places(self, example: Example, frame_height: int, frame_width: int) -> NDArray[np.uint8]:
        """Draw the example's boxes; a box is never lost by shrinking, it keeps at least a pixel."""
        height, width = self.preprocess.height, self.preprocess.width
        unknown = example.label != self.good_class and not example.boxes
        drawn = np.full((height, width), UNKNOWN_PLACE if unknown else GOOD_PLACE, np.uint8)
        left, top = (self.region.x, self.region.y) if self.region is not None else (0, 0)
        for box in example.boxes:
            if box.label not in self.classes or box.label == self.good_class:
                continue
            rows = _span(box.y - top, box.height, height / frame_height)
            columns = _span(box.x - left, box.width, width / frame_width)
            drawn[rows, columns] = 1 + self.classes.index(box.label)
        return drawn


def _span(start: float, length: float, scale: float) -> slice:
    """A box's side in working pixels: clipped at 0 (the array clips the far end)."""
    first = max(0, math.floor(start * scale))
    return slice(first, max(0, math.ceil((start + length) * scale)))


def working_pictures(examples: Sequence[Example], pictures: Pictures, workshop: Workshop, workdir: Path) -> Working:
    """All examples at the working size, memory-mapped from files in ``workdir`` that are used again if they are there."""
    height, width = workshop.preprocess.height, workshop.preprocess.width
    shape = (len(examples), height, width)
    path = workdir / f"pictures-{workshop.key(examples)}.u8"
    if not path.exists():
        workdir.mkdir(parents=True, exist_ok=True)
        _write(path, examples, pictures, workshop)
    images = np.memmap(path, dtype=np.uint8, mode="r", shape=(*shape, 3))
    return Working(images, np.memmap(path.with_suffix(".places"), dtype=np.uint8, mode="r", shape=shape))


def _write(path: Path, examples: Sequence[Example], pictures: Pictures, workshop: Workshop) -> None:
    """Write temporary files, then name them, the pictures last: their name means that both are complete."""
    images, places = path.with_suffix(".u8.tmp"), path.with_suffix(".places.tmp")
    with images.open("wb") as image_file, places.open("wb") as place_file, torch.inference_mode():
        for example in examples:
            image, drawn = workshop.picture(pictures(example.picture), example)
            image_file.write(image.tobytes())
            place_file.write(drawn.tobytes())
    places.replace(path.with_suffix(".places"))
    images.replace(path)
