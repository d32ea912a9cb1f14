"""Pictures as they arrive: are they what they say, and what do they look like.

Invariants: nothing is decoded before its magic bytes, length and header size were checked; every picture becomes
uint8 BGR the same way (16 bit: upper byte; gray: repeated; alpha: dropped; EXIF orientation: applied, as browsers do).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.contracts import sha256_hex
from inspection.data import picture_headers
from inspection.data.descriptors import describe, phash
from inspection.errors import PictureError

__all__ = ["PictureInfo", "check_picture", "decode_bgr", "encode_png", "phash"]

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class PictureInfo:
    """What is known of an accepted picture. Sizes in pixels as decoded; ``descriptor``: `inspection.data.descriptors`."""

    sha256: str
    length: int
    media_type: str
    width: int
    height: int
    phash: str
    descriptor: bytes


def check_picture(data: bytes, *, max_bytes: int, max_pixels: int) -> PictureInfo:
    """Accept a PNG, JPEG, BMP or TIFF file, or raise PictureError.

    Codes: ``empty``, ``too_large`` (bytes), ``not_a_picture`` (magic bytes), ``too_many_pixels`` (by its header, before
    anything is decoded), ``truncated``, ``cannot_decode``. Damage inside a JPEG's compressed data is not detectable: the
    format carries no checksum.
    """
    if not data:
        raise PictureError("the file is empty", "empty")
    if len(data) > max_bytes:
        raise PictureError(f"{len(data)} bytes are more than the {max_bytes} allowed", "too_large")
    header = picture_headers.read(data)
    if header.width * header.height > max_pixels:
        size = f"{header.width} x {header.height}"
        raise PictureError(f"{size} pixels are more than the {max_pixels} allowed", "too_many_pixels")
    picture_headers.check_complete(data, header)
    image = decode_bgr(data)
    if sorted(image.shape[:2]) != sorted((header.height, header.width)):
        raise PictureError(f"the header says {header.width} x {header.height}, decoded {image.shape}", "cannot_decode")
    return PictureInfo(
        sha256=sha256_hex(data),
        length=len(data),
        media_type=header.media_type,
        width=image.shape[1],
        height=image.shape[0],
        phash=phash(image),
        descriptor=describe(image),
    )


def decode_bgr(data: bytes) -> Image:
    """Decode a picture file to uint8 ``[height, width, 3]`` in BGR. Raises PictureError ``cannot_decode``.

    For bytes that `check_picture` has accepted; by itself it does not protect from huge pictures.
    """
    decode: Callable[..., Any] = cv2.imdecode
    try:
        image = decode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise PictureError(f"the picture cannot be decoded: {error}", "cannot_decode") from error
    if image is not None and image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)  # OpenCV itself scales PNG and TIFF differently
    if image is None or image.dtype != np.uint8:
        raise PictureError("the picture cannot be decoded: its content is damaged or of an unusual kind", "cannot_decode")
    return np.asarray(image, np.uint8)


def encode_png(image: Image) -> bytes:
    """A uint8 ``[H, W, 3]`` BGR picture as a PNG file: nothing is lost. Raises PictureError ``cannot_encode``."""
    done, data = cv2.imencode(".png", image)
    if not done:
        raise PictureError(f"an array of shape {image.shape} could not be written as PNG", "cannot_encode")
    return bytes(data)
