"""What a picture looks like in few bytes, to find copies of it. Pixels in, bytes out; comparing is `near_duplicates`'.

Invariant: both descriptions ignore brightness and contrast, file format and scale.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
DESCRIPTOR_SIDE = 24
DESCRIPTOR_VERSION = 1


def phash(image: Image) -> str:
    """64-bit perceptual hash of ``[H, W, 3]`` uint8 BGR as 16 hexadecimal digits.

    Signs of the 8x8 lowest DCT coefficients of the 32x32 gray picture about their median, without the mean
    (C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010).
    """
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
    low = np.asarray(cv2.dct(small.astype(np.float32)), np.float32)[:8, :8].ravel()
    bits = low > np.median(low[1:])
    return np.packbits(bits).tobytes().hex()


def residual(image: Image, side: int) -> NDArray[np.float32]:
    """High-pass residual of the gray picture at ``side`` x ``side``, flat, zero mean, unit length (or all zero).

    The picture minus its Gaussian blur (sigma one twelfth of the side): uneven light and overall shape of the part,
    which all pictures of a product share, weigh little; its own texture and defects weigh much.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(gray, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    flat = np.asarray(small - cv2.GaussianBlur(small, (0, 0), side / 12), np.float32).ravel()
    flat -= flat.mean()
    length = float(np.linalg.norm(flat))
    return flat / length if length > 1e-3 * flat.size else np.zeros_like(flat)


def describe(image: Image) -> bytes:
    """The residual at 24 x 24 as int8, 576 bytes: the dot product of two is about their correlation times 127^2 * scale."""
    flat = residual(image, DESCRIPTOR_SIDE)
    peak = float(np.abs(flat).max())
    scaled = np.zeros_like(flat) if peak == 0 else np.round(flat / peak * 127)
    return scaled.astype(np.int8).tobytes()
