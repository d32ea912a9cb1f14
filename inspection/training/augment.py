"""Changes that keep a picture's class, from a product's `AugmentPlan`.

Invariant: what a draw of a picture looks like follows from the seed and the draw's number alone.
"""

import random
from typing import Any

import albumentations as A  # noqa: N812  # the name every albumentations text uses
import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.data.product import AugmentPlan
from inspection.errors import UsageError

Image = NDArray[np.uint8]


class Augmentation:
    """``(picture uint8 [h, w, 3], places uint8 [h, w], draw)`` -> both, changed alike, at random.

    Raises UsageError on a plan that cannot keep the working size.
    """

    def __init__(self, plan: AugmentPlan, height: int, width: int, seed: int) -> None:
        if plan.rotate_90 and height != width:
            raise UsageError(f"rotate_90 needs a square working size, not {height}x{width}: switch it off, or be square")
        self._compose = A.Compose(_steps(plan))
        self._seed = seed

    def __call__(self, image: Image, places: Image, *draw: int) -> tuple[Image, Image]:
        """See the class."""
        # One stream for all steps: albumentations' own ``seed`` gives each the *same* one (2.0.8), both flips or neither.
        seed = (self._seed, *draw)
        self._compose.set_random_state(np.random.default_rng(seed), random.Random("/".join(map(str, seed))))  # noqa: S311
        changed = self._compose(image=image, mask=places)
        return changed["image"], changed["mask"]


def _steps(plan: AugmentPlan) -> list[Any]:
    steps: list[Any] = []
    if plan.flip_horizontal:
        steps.append(A.HorizontalFlip(p=0.5))
    if plan.flip_vertical:
        steps.append(A.VerticalFlip(p=0.5))
    if plan.rotate_90:
        steps.append(A.RandomRotate90(p=1.0))
    if plan.shift_scale:
        share = plan.shift_scale
        steps.append(
            A.Affine(
                scale=(1 - share, 1 + share),
                translate_percent=(-share, share),
                border_mode=cv2.BORDER_REFLECT_101,
                p=0.7,
            )
        )
    if plan.rotate_degrees:
        limit = plan.rotate_degrees
        steps.append(A.Rotate(limit=(-limit, limit), border_mode=cv2.BORDER_REFLECT_101, p=0.7))
    if plan.hue_saturation:
        hue, saturation = round(180 * plan.hue_saturation), round(255 * plan.hue_saturation)
        steps.append(A.HueSaturationValue((-hue, hue), (-saturation, saturation), (0, 0), p=0.7))
    if plan.brightness_contrast:
        steps.append(A.RandomBrightnessContrast(plan.brightness_contrast, plan.brightness_contrast, p=0.7))
    if plan.blur_noise:  # weak: a scratch one pixel wide must survive it
        blur = A.GaussianBlur(blur_limit=3, sigma_limit=(0.2, 0.8))
        steps.append(A.OneOf([blur, A.GaussNoise(std_range=(0.01, 0.03), noise_scale_factor=0.5)], p=0.2))
    return steps
