"""Frames and defect maps to what a browser shows. Pure; nothing here runs before somebody looks.

Invariants: a picture is made small before it is encoded; a map's colours mean the same in every picture (they are its
values, not stretched to its peak); what is no picture gives None, never an error.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.pictures import Image
from inspection.contracts import Recipe, Verdict

LONGEST_SIDE = 1280
_QUALITY = 85
_MAP_SIDE = 256
_FAINT, _FULL = 0.08, 0.6  # map values that begin to show, and that show most
_MOST_OPAQUE = 190.0


def displayable(image: NDArray[np.generic] | None) -> Image | None:
    """A frame as uint8 ``[H, W, 3]`` BGR, also one that could not be judged; None when there is nothing to show."""
    if image is None or image.size == 0 or image.ndim not in (2, 3):
        return None
    if image.ndim == 3 and image.shape[2] not in (1, 3, 4):
        return None
    eight = image if image.dtype == np.uint8 else _eight_bits(image)
    if eight is None:
        return None
    flat = eight if eight.ndim == 3 else eight[..., None]
    return np.asarray(flat[..., :3] if flat.shape[2] >= 3 else np.repeat(flat, 3, axis=2), np.uint8)


def _eight_bits(image: NDArray[np.generic]) -> NDArray[np.uint8] | None:
    if image.dtype == np.uint16:
        return (image.view(np.uint16) >> 8).astype(np.uint8)
    return None


def shrunk(image: Image, longest: int = LONGEST_SIDE) -> Image:
    """The same picture with no side longer than ``longest`` pixels; not copied when it fits."""
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def jpeg(image: NDArray[np.generic] | None) -> bytes | None:
    """A frame as a JPEG of at most `LONGEST_SIDE` pixels, or None when there is nothing to show."""
    shown = displayable(image)
    return None if shown is None else _encoded(".jpg", shrunk(shown), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])


def heat(defect_map: NDArray[np.float32] | None) -> bytes | None:
    """A map in [0, 1] as a PNG to lay over its region: clear where nothing is, dark red to bright yellow with the value."""
    if defect_map is None or defect_map.size == 0 or defect_map.ndim != 2:
        return None
    height, width = defect_map.shape
    scale = _MAP_SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    fine = np.clip(cv2.resize(defect_map, size, interpolation=cv2.INTER_LINEAR), 0.0, 1.0)
    colours = cv2.applyColorMap(np.asarray(110 + fine * 145, np.uint8), cv2.COLORMAP_INFERNO)
    opaque = np.clip((fine - _FAINT) / (_FULL - _FAINT), 0.0, 1.0) * _MOST_OPAQUE
    return _encoded(".png", np.dstack([colours, opaque.astype(np.uint8)]), [cv2.IMWRITE_PNG_COMPRESSION, 1])


def _encoded(kind: str, image: NDArray[np.uint8], how: list[int]) -> bytes | None:
    done, data = cv2.imencode(kind, image, how)
    return data.tobytes() if done else None


def boxes(verdict: Verdict) -> list[dict[str, object]]:
    """Regions in pixels of the whole frame, rounded, strongest first."""
    return [
        {
            "x": round(box.x, 1),
            "y": round(box.y, 1),
            "width": round(box.width, 1),
            "height": round(box.height, 1),
            "label": box.label,
            "score": round(box.score, 3),
        }
        for box in verdict.regions
    ]


def mapped_area(image: NDArray[np.generic], recipe: Recipe | None) -> list[int] | None:
    """Left, top, width, height of what the defect map covers, in pixels of the frame; None without the recipe."""
    if recipe is None:
        return None
    if recipe.region is None:
        return [0, 0, int(image.shape[1]), int(image.shape[0])]
    return [recipe.region.x, recipe.region.y, recipe.region.width, recipe.region.height]
