"""Is this frame fit to be judged? Invariant: a missing, black, saturated, blurred, displaced or frozen frame, or one of
another size, never passes; what is not configured (focus, position) is not guessed."""

from collections import deque

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from edge_agent.camera.imaging import SATURATED_ABOVE, Reference, Samples, focus_of, shift_of
from edge_agent.pictures import Image

BLACK_LEVEL = 8
"""A frame whose brightest samples are at or below this (of 255) shows nothing: lamp or lens cap."""
_BRIGHT_SHARE = 1e-3  # so many samples may be brighter in a black frame: hot pixels of a warm sensor
_REMEMBERED = 16
_SURE = 0.1  # a correlation below this says that the pictures have nothing in common, not where they lie


class GuardLimits(BaseModel):
    """Bounds of one camera's frames. ``min_focus_share`` and ``max_shift_pixels`` need a reference picture; as many
    ``frozen_frames`` as are remembered can be recognized."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    frozen_frames: int = Field(default=2, ge=2, le=_REMEMBERED)
    max_saturated_share: float = Field(default=0.9, gt=0, le=1)
    min_focus_share: float = Field(default=0.5, ge=0, le=1)
    max_shift_pixels: float | None = Field(default=None, gt=0)


def look(image: Image) -> str | None:
    """Why one frame by itself cannot be judged, or None."""
    return _unlike_a_picture(image) or _black(Samples().take(image))


def _unlike_a_picture(image: Image) -> str | None:
    if image.size > 0 and image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8:
        return None
    return f"frame of shape {image.shape} {image.dtype} is not a colour picture; check the camera's pixel format"


def _black(samples: Samples) -> str | None:
    if samples.share_above(BLACK_LEVEL) > _BRIGHT_SHARE:
        return None
    return "frame is black; check the lamp, the lens cap and the exposure"


class StreamGuard:
    """Watches one stream. The first frame fixes the size unless a reference does."""

    def __init__(self, limits: GuardLimits | None = None, reference: Reference | None = None) -> None:
        self._limits = limits or GuardLimits()
        self._reference = reference
        self._size = None if reference is None else (reference.height, reference.width)
        self._samples = Samples()
        self._seen: deque[int] = deque(maxlen=_REMEMBERED)

    def check(self, image: Image) -> str | None:
        """Why this frame cannot be judged, or None."""
        fault = _unlike_a_picture(image) or self._fault_of(image)
        if fault is not None or self._reference is None:
            return fault
        return self._blurred(image, self._reference) or self._displaced(image, self._reference)

    def _fault_of(self, image: Image) -> str | None:
        samples = self._samples.take(image)
        # Black first: a capture card without a signal gives black frames of any size, and the first frame fixes the size.
        return _black(samples) or self._wrong_size(image) or self._frozen(samples) or self._too_bright(samples)

    def _wrong_size(self, image: Image) -> str | None:
        found = (image.shape[0], image.shape[1])
        self._size = self._size or found
        if found == self._size:
            return None
        return f"frame is {found[1]} x {found[0]}, expected {self._size[1]} x {self._size[0]}; check the camera's settings"

    def _frozen(self, samples: Samples) -> str | None:
        """A repeated buffer, not a new exposure (a real sensor always has noise); not only the last frame again: drivers
        that hang hand out their few buffers in turn."""
        value = samples.fingerprint()
        again = self._seen.count(value) + 1
        self._seen.append(value)
        if again < self._limits.frozen_frames:
            return None
        return f"camera is frozen: the same frame for the {again}. time; check its cable and power"

    def _too_bright(self, samples: Samples) -> str | None:
        share = samples.share_above(SATURATED_ABOVE)
        if share <= self._limits.max_saturated_share:
            return None
        return f"frame is saturated ({share:.0%} of it is white); check exposure, lamp and stray light"

    def _blurred(self, image: Image, reference: Reference) -> str | None:
        if self._limits.min_focus_share == 0:
            return None
        share = focus_of(image) / reference.focus if reference.focus > 0 else 1.0
        if share >= self._limits.min_focus_share:
            return None
        return f"frame is out of focus ({share:.0%} of the reference's sharpness); check lens, distance and dirt"

    def _displaced(self, image: Image, reference: Reference) -> str | None:
        limit = self._limits.max_shift_pixels
        if limit is None:
            return None
        x, y, response = shift_of(image, reference)
        if response < _SURE:
            return "frame shows nothing of the reference picture; check what stands before the camera"
        if max(abs(x), abs(y)) <= limit:
            return None
        return f"part or camera is displaced by {x:+.0f}, {y:+.0f} pixels; check the fixture and the camera's mount"
