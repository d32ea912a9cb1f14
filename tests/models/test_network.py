"""The head: one set of weights for scores and map."""

import torch

from inspection.models import catalogue
from inspection.models.deploy import DeployGraph
from inspection.models.network import MapHead, defect_map, pool


def test_where_all_locations_are_alike_the_picture_says_the_same() -> None:
    """Scores and map come from the same weights: where all locations are alike, both say the same."""
    head = MapHead([6, 10], 3).eval()
    logits, map_logits = head([torch.ones(2, 6, 4, 4), torch.ones(2, 10, 2, 2)])
    margins = map_logits - map_logits[:, :1]
    assert torch.allclose(margins, logits[:, :, None, None].expand_as(margins), atol=1e-5)


def test_a_strong_defect_at_one_location_decides_for_the_whole_picture() -> None:
    """One location among a thousand outweighs all the good ones, and a picture without it stays good."""
    map_logits = torch.zeros(2, 2, 32, 32)
    map_logits[:, 0] = 2.0
    map_logits[1, 1, 5, 5] = 14.0
    good, defective = torch.softmax(pool(map_logits, 0), dim=1)
    assert good[0] > 0.85
    assert defective[1] > 0.9


def test_the_defect_map_is_a_probability_and_leaves_the_good_class_out() -> None:
    """A location that is surely good has 0, one that is surely not has 1."""
    logits = torch.zeros(1, 3, 1, 2)
    logits[0, 1, 0, 0] = 50.0
    logits[0, 2, 0, 1] = 50.0
    found = defect_map(logits, good_index=1)
    assert found.dtype == torch.float32
    assert torch.allclose(found, torch.tensor([[[0.0, 1.0]]]), atol=1e-6)


def test_the_deploy_graph_gives_probabilities_for_any_frame() -> None:
    """Raw frames of any size become scores that sum to one and a map in [0, 1]."""
    graph = DeployGraph(catalogue.build("test_resnet", 4, pretrained="none", height=64, width=64), good_index=2).eval()
    with torch.inference_mode():
        scores, found = graph(torch.randint(0, 256, (3, 41, 150, 3), dtype=torch.uint8))
    assert torch.allclose(scores.sum(1), torch.ones(3), atol=1e-6)
    assert found.shape == (3, 8, 8)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
