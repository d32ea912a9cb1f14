"""Picture files to frames and back. Invariant: a file is refused by its magic bytes and header before it is decoded."""

import struct

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import DeviceError, PictureError

Image = NDArray[np.uint8]
"""``[height, width, 3]`` BGR."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height from the first start-of-frame segment (ITU T.81, B.2.2)."""
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _JPEG_SIZE_MARKERS:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise PictureError("JPEG without a readable size; the file is damaged")


def _size(data: bytes) -> tuple[int, int]:
    if data.startswith(_PNG) and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg_size(data)
    if data.startswith(b"BM") and len(data) >= 26:
        width, height = struct.unpack("<ii", data[18:26])
        return abs(width), abs(height)
    raise PictureError("not a PNG, JPEG or BMP file; convert it, or check the camera's file format")


def decode(data: bytes, *, max_bytes: int, max_pixels: int) -> Image:
    """File bytes to a BGR frame ``uint8 [H, W, 3]``; PictureError on anything doubtful (wrong magic, bomb, truncated)."""
    if not data:
        raise PictureError("empty file; the writer must write elsewhere and rename when done")
    if len(data) > max_bytes:
        raise PictureError(f"file is larger than the limit of {max_bytes} bytes")
    width, height = _size(data)
    if width <= 0 or height <= 0 or width * height > max_pixels:
        raise PictureError(f"picture of {width} x {height} pixels is beyond the limit of {max_pixels} pixels")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise PictureError(f"picture cannot be decoded: {error}") from error
    if image is None:
        raise PictureError("picture cannot be decoded: damaged or truncated")
    return np.asarray(image, dtype=np.uint8)


def encode_png(image: Image) -> bytes:
    """Lossless PNG of a frame, fastest useful compression. DeviceError when OpenCV cannot."""
    done, buffer = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise DeviceError(f"a frame of shape {image.shape} could not be encoded as PNG")
    return buffer.tobytes()
