"""Changes that keep a picture's class, from a product's `AugmentPlan`.

Invariant: seeded; with the same seed and the same number of worker processes come the same pictures.
"""

from typing import Any

import albumentations as A  # noqa: N812  # the name every albumentations text uses
import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.data.product import AugmentPlan
from inspection.errors import UsageError

Image = NDArray[np.uint8]


class Augmentation:
    """``(picture uint8 [h, w, 3], places uint8 [h, w])`` -> both, changed alike, at random.

    Raises UsageError on a plan that cannot keep the working size.
    """

    def __init__(self, plan: AugmentPlan, height: int, width: int, seed: int) -> None:
        if plan.rotate_90 and height != width:
            raise UsageError(f"rotate_90 needs a square working size, not {height}x{width}: switch it off, or be square")
        self._steps = _steps(plan)
        self._compose = A.Compose(self._steps)
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Start all random streams anew.

        Albumentations' own ``seed`` gives every step the *same* stream (2.0.8): both flips, or neither. Not so here.
        """
        self._compose.set_random_seed(seed)
        for step, own in zip(_leaves(self._steps), np.random.SeedSequence(seed).generate_state(64), strict=False):
            step.set_random_seed(int(own))

    def __call__(self, image: Image, places: Image) -> tuple[Image, Image]:
        """See the class."""
        changed = self._compose(image=image, mask=places)
        return changed["image"], changed["mask"]


def _leaves(steps: list[Any]) -> list[Any]:
    """All steps, those inside a choice included."""
    return [leaf for step in steps for leaf in (step, *_leaves(list(getattr(step, "transforms", []))))]


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
    if plan.brightness_contrast:
        steps.append(A.RandomBrightnessContrast(plan.brightness_contrast, plan.brightness_contrast, p=0.7))
    if plan.blur_noise:  # weak: a scratch one pixel wide must survive it
        blur = A.GaussianBlur(blur_limit=3, sigma_limit=(0.2, 0.8))
        steps.append(A.OneOf([blur, A.GaussNoise(std_range=(0.01, 0.03), noise_scale_factor=0.5)], p=0.2))
    return steps
