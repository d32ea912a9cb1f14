"""The loss on the map's locations."""

import pytest
import torch

from inspection.training.cache import GOOD_PLACE, UNKNOWN_PLACE
from inspection.training.module import place_loss

GOOD = 1
CLASSES = 3


def logits_for(classes: torch.Tensor) -> torch.Tensor:
    """Map logits that are sure of ``classes [N, h, w]``."""
    return 40.0 * torch.nn.functional.one_hot(classes, CLASSES).permute(0, 3, 1, 2).float()


def test_a_map_that_is_right_everywhere_costs_nothing() -> None:
    """A box of two pixels claims the one location it lies in, for its own class."""
    places = torch.full((1, 8, 8), GOOD_PLACE, dtype=torch.uint8)
    places[0, 5, 2:4] = 1 + 2
    right = torch.full((1, 4, 4), GOOD)
    right[0, 2, 1] = 2
    assert place_loss(logits_for(right), places, GOOD).item() == pytest.approx(0, abs=1e-6)
    blind = torch.full((1, 4, 4), GOOD)
    assert place_loss(logits_for(blind), places, GOOD).item() == pytest.approx(20, abs=1e-3)


def test_unknown_places_teach_nothing() -> None:
    """A defective picture without boxes has no gradient on its map."""
    places = torch.full((1, 8, 8), UNKNOWN_PLACE, dtype=torch.uint8)
    logits = torch.randn(1, CLASSES, 4, 4, requires_grad=True)
    place_loss(logits, places, GOOD).backward()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_a_small_defect_weighs_as_much_as_the_good_rest() -> None:
    """Missing the defect costs the same on a map sixteen times as large."""
    costs = []
    for side in (8, 32):
        places = torch.full((1, side, side), GOOD_PLACE, dtype=torch.uint8)
        places[0, 0, 0] = 1
        costs.append(place_loss(logits_for(torch.full((1, side, side), GOOD)), places, GOOD).item())
    assert costs[0] == pytest.approx(costs[1], rel=1e-4)
