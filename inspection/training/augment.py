"""Changes that keep a picture's class, from a product's `AugmentPlan`.

Invariant: seeded; without worker processes the same seed gives the same pictures.
"""

from collections.abc import Callable

import albumentations as A  # noqa: N812  # the name every albumentations text uses
import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.data.product import AugmentPlan
from inspection.errors import UsageError

Augment = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def augmentation(plan: AugmentPlan, height: int, width: int, seed: int) -> Augment:
    """uint8 ``[height, width, 3]`` -> the same shape, changed at random. Raises UsageError on an impossible plan."""
    if plan.rotate_90 and height != width:
        raise UsageError(f"rotate_90 needs a square working size, not {height}x{width}: switch it off or use a square")
    compose = A.Compose(_steps(plan), seed=seed)

    def augment(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        changed: NDArray[np.uint8] = compose(image=image)["image"]
        return changed

    return augment


def _steps(plan: AugmentPlan) -> list[A.BasicTransform]:
    steps: list[A.BasicTransform] = []
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
    if plan.brightness_contrast:
        steps.append(A.RandomBrightnessContrast(plan.brightness_contrast, plan.brightness_contrast, p=0.7))
    if plan.blur_noise:  # weak: a scratch one pixel wide must survive it
        blur = A.GaussianBlur(blur_limit=3, sigma_limit=(0.2, 0.8))
        steps.append(A.OneOf([blur, A.GaussNoise(std_range=(0.01, 0.03), noise_scale_factor=0.5)], p=0.2))
    return steps
