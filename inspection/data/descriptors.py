"""What a picture looks like in few bytes, kept with its row so that copies are found without decoding anything again.

A descriptor is the SHA-256 of the decoded pixels (32 bytes) followed by a gray thumbnail (64 x 64 uint8, row by row).
"""

import hashlib

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
THUMBNAIL_SIDE = 64
PIXEL_DIGEST_BYTES = 32
DESCRIPTOR_BYTES = PIXEL_DIGEST_BYTES + THUMBNAIL_SIDE**2


def phash(image: Image) -> str:
    """64-bit perceptual hash of ``[H, W, 3]`` uint8 BGR as 16 hexadecimal digits; for people and look-ups.

    Signs of the 8x8 lowest DCT coefficients of the 32x32 gray picture about their median (C. Zauner, "Implementation and
    Benchmarking of Perceptual Image Hash Functions", 2010). Parts of one product share most of it: it does not find copies.
    """
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
    low = np.asarray(cv2.dct(small.astype(np.float32)), np.float32)[:8, :8].ravel()
    bits = low > np.median(low[1:])
    return np.packbits(bits).tobytes().hex()


def describe(image: Image) -> bytes:
    """The descriptor of ``[H, W, 3]`` uint8 BGR."""
    height, width = image.shape[:2]
    pixels = hashlib.sha256(f"{width}x{height}:".encode() + np.ascontiguousarray(image).tobytes()).digest()
    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    thumbnail = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), side, interpolation=cv2.INTER_AREA)
    return pixels + thumbnail.tobytes()
