"""What augmentation makes of a product's pictures, as one sheet for people: would each still be of its class?

Invariant: made by the very augmentation a training uses, on pictures at the network's working size.
"""

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from inspection.data.product import AugmentPlan, Product
from inspection.data.snapshot_record import Example
from inspection.models import catalogue
from inspection.models.preprocess import Preprocess
from inspection.training.augment import Augmentation
from inspection.training.cache import GOOD_PLACE, UNKNOWN_PLACE, Pictures, Workshop

VARIANTS = 7
_PER_CLASS = 2
_INCHES = 1.5


def chosen(
    examples: Sequence[Example], classes: Sequence[str], fit: Callable[[Example], bool] = lambda _: True
) -> list[Example]:
    """The first ``fit`` pictures of each class, those with boxes before others, in the order of ``classes``."""
    of_class = (sorted((e for e in examples if e.label == name), key=lambda e: not e.boxes) for name in classes)
    return [e for found in of_class for e in islice(filter(fit, found), _PER_CLASS)]


def sheet(product: Product, examples: Sequence[Example], pictures: Pictures, variants: int = VARIANTS) -> Figure:
    """A row per example: as it is, then ``variants`` draws of its augmentation, with the boxes that move along."""
    plan = product.train
    mean, std = catalogue.IMAGENET_MEAN, catalogue.IMAGENET_STD  # a sheet shows pictures before they are normalized
    workshop = Workshop(Preprocess(plan.height, plan.width, mean, std), product.classes, product.good_class, product)
    augment = Augmentation(plan.augment, plan.height, plan.width, plan.seed)
    figure = Figure(figsize=(_INCHES * (variants + 1), _INCHES * len(examples) + 0.8), layout="constrained")
    axes = figure.subplots(len(examples), variants + 1, squeeze=False)
    for number, (row, example) in enumerate(zip(axes, examples, strict=True)):
        image, places = _shown(workshop, pictures(example.picture), example)
        draws = [augment(image, places, number * variants + n) for n in range(variants)]
        for axis, (drawn, moved) in zip(row, [(image, places), *draws], strict=True):
            axis.imshow(drawn[..., ::-1])
            _outline(axis, moved)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(example.label)
    axes[0, 0].set_title("as it is")
    axes[0, 1].set_title("as the network is shown it", loc="left")
    figure.supxlabel(in_words(plan.augment), fontsize="small")
    return figure


def _shown(workshop: Workshop, data: bytes, example: Example) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The picture; of several tiles the first of the picture's class, or the first."""
    tiles = list(workshop.tiles(data, example))
    own = workshop.classes.index(example.label)
    image, places, _ = next((tile for tile in tiles if tile[2] == own), tiles[0])
    return image, places


def _outline(axis: object, places: NDArray[np.uint8]) -> None:
    boxed = (places != GOOD_PLACE) & (places != UNKNOWN_PLACE)
    if boxed.any():
        axis.contour(boxed, levels=[0.5], colors="yellow", linewidths=0.8)  # type: ignore[attr-defined]  # an Axes


def in_words(plan: AugmentPlan) -> str:
    """What is on, and what is off."""
    switches = {
        "flip left-right": plan.flip_horizontal,
        "flip up-down": plan.flip_vertical,
        "quarter turns": plan.rotate_90,
        f"rotate up to {plan.rotate_degrees:g} degrees": plan.rotate_degrees,
        f"shift and scale up to {plan.shift_scale:.0%}": plan.shift_scale,
        f"brightness and contrast up to {plan.brightness_contrast:.0%}": plan.brightness_contrast,
        f"hue and saturation up to {plan.hue_saturation:.0%}": plan.hue_saturation,
        "a little blur or noise": plan.blur_noise,
    }
    off = [name.partition(" up to ")[0] for name, on in switches.items() if not on]
    on = [name for name, value in switches.items() if value]
    return f"on: {', '.join(on) or 'nothing'}\noff: {', '.join(off) or 'nothing'}"
