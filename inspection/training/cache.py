"""Decoded pictures at the network's working size, made once per training.

Invariant: the pixels are those of `Preprocess.resize`, rounded to uint8, so an epoch neither decodes nor resizes and
still sees what the device sees.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from inspection.contracts import Region
from inspection.data.pictures import decode_bgr
from inspection.data.snapshot_record import Example
from inspection.errors import UsageError
from inspection.models.preprocess import Preprocess

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


def working_pictures(
    examples: Sequence[Example], pictures: Pictures, preprocess: Preprocess, workdir: Path, region: Region | None = None
) -> NDArray[np.uint8]:
    """uint8 ``[N, h, w, 3]`` BGR, memory-mapped read-only from a file in ``workdir`` that is used again if it is there."""
    shape = (len(examples), preprocess.height, preprocess.width, 3)
    key = f"{preprocess.height}x{preprocess.width} {region} " + " ".join(e.picture for e in examples)
    path = workdir / f"pictures-{hashlib.sha256(key.encode()).hexdigest()[:16]}.u8"
    if not path.exists():
        workdir.mkdir(parents=True, exist_ok=True)
        _write(path, examples, pictures, preprocess, region)
    return np.memmap(path, dtype=np.uint8, mode="r", shape=shape)


def _write(
    path: Path, examples: Sequence[Example], pictures: Pictures, preprocess: Preprocess, region: Region | None
) -> None:
    """Write all pictures to a temporary file, then give it its name: a name means a complete file."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as out, torch.inference_mode():
        for example in examples:
            frame = torch.from_numpy(decode_frame(pictures(example.picture), region))
            resized = preprocess.resize(frame[None])[0].round().clamp(0, 255)
            out.write(resized.byte().permute(1, 2, 0).contiguous().numpy().tobytes())
    temporary.replace(path)
