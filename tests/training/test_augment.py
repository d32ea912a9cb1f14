"""Augmentation from a product's plan."""

import numpy as np
import pytest

from inspection.data.product import AugmentPlan
from inspection.errors import UsageError
from inspection.training.augment import Augmentation
from inspection.training.loading import balancing_weights, batch_size

NOTHING = AugmentPlan(flip_horizontal=False, flip_vertical=False, shift_scale=0, brightness_contrast=0, blur_noise=False)


def picture() -> np.ndarray:
    """A picture without symmetry."""
    return np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)


def alone(augment: Augmentation, draw: int) -> np.ndarray:
    """The augmented picture without its places."""
    return augment(picture(), np.zeros((24, 24), np.uint8), draw)[0]


def test_places_move_with_the_picture() -> None:
    """Whatever turns and flips do to a bright square, they do to its marked place."""
    augment = Augmentation(NOTHING.model_copy(update={"flip_horizontal": True, "flip_vertical": True, "rotate_90": True}),
                           24, 24, 0)  # fmt: skip
    image, places = np.zeros((24, 24, 3), np.uint8), np.zeros((24, 24), np.uint8)
    image[2:5, 15:22] = 255
    places[2:5, 15:22] = 3
    seen = [augment(image, places, draw) for draw in range(100)]
    assert all(np.array_equal(i[..., 0] == 255, p == 3) for i, p in seen)
    assert len({p.tobytes() for _, p in seen}) == 8


def test_the_same_seed_gives_the_same_pictures() -> None:
    """Twenty draws are equal for equal seeds, in whatever order they are made, and not for different ones."""
    plan = AugmentPlan(rotate_90=True, rotate_degrees=10, hue_saturation=0.1)
    orders = [(1, range(20)), (1, reversed(range(20))), (2, range(20))]
    runs = [(Augmentation(plan, 24, 24, seed), order) for seed, order in orders]
    first, same, other = (
        [image for _, image in sorted(((n, alone(one, n)) for n in order), key=lambda made: made[0])] for one, order in runs
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_an_empty_plan_changes_nothing() -> None:
    """Where orientation and colour may be the defect, everything can be switched off."""
    augment = Augmentation(NOTHING, 24, 24, 0)
    assert all(np.array_equal(alone(augment, draw), picture()) for draw in range(5))


def test_a_single_switch_does_only_what_it_says() -> None:
    """Horizontal flips alone give the picture or its mirror image, and both occur."""
    augment = Augmentation(NOTHING.model_copy(update={"flip_horizontal": True}), 24, 24, 0)
    seen = [alone(augment, draw) for draw in range(30)]
    mirrored = [np.array_equal(s, picture()[:, ::-1]) for s in seen]
    same = [np.array_equal(s, picture()) for s in seen]
    assert all(m or s for m, s in zip(mirrored, same, strict=True))
    assert any(mirrored)
    assert any(same)


def test_quarter_turns_of_a_rectangle_are_refused() -> None:
    """A turn that would change the working size is a usage error."""
    with pytest.raises(UsageError, match="square"):
        Augmentation(AugmentPlan(rotate_90=True), 24, 32, 0)


def test_rare_classes_are_shown_more_often_but_not_equally() -> None:
    """A class with a hundredth of the pictures gets a tenth of the share, not all of it and not a hundredth."""
    labels = np.repeat([0, 1], [900, 9])
    weights = balancing_weights(labels)
    assert weights[labels == 0].sum() / weights[labels == 1].sum() == pytest.approx(10)


@pytest.mark.parametrize(("pictures", "size"), [(20, 8), (500, 10), (5000, 32), (10**6, 32)])
def test_small_sets_take_small_batches(pictures: int, size: int) -> None:
    """Some fifty steps an epoch where there are pictures enough, never more than the plan's batch size."""
    assert batch_size(pictures, 32, 48) == size
