"""How fast each layer learns, and the average of weights: by hand, for every family."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities.seed import isolate_rng

from inspection.models import catalogue
from inspection.models.families import FAMILIES
from inspection.training.engine import Compute, fit
from inspection.training.fit import load_data
from inspection.training.loading import STEPS_FROM_LABELS
from inspection.training.module import Classifier, Tuning
from inspection.training.schedule import Pace, make_optimizer
from tests.training.pictures import parts, product

SMALL = {"lenet5", "alexnet"}  # with fewer layers than groups


@pytest.mark.parametrize("name", [members[0].name for members in FAMILIES.values()])
def test_layers_learn_the_faster_the_nearer_they_are_to_the_head(name: str) -> None:
    """Whatever a family calls them: twelve rates (or one a layer), each 0.8 of the next, no parameter twice or left out."""
    net = catalogue.build(name, 3, pretrained="none", height=64, width=64)
    pace = Pace(learning_rate=1.0, weight_decay=0.0, layer_decay=0.8, probe_steps=0, steps=10)
    optimizer, _ = make_optimizer(net, pace, fused=False)
    top = {parameter: group["top"] for group in optimizer.param_groups for parameter in group["params"]}
    assert top.keys() == set(net.parameters())
    rates = [top[parameter] for parameter in net.features.parameters()]
    assert rates == sorted(rates)
    distinct = sorted(set(rates))
    assert len(distinct) == 12 or name in SMALL
    assert distinct == pytest.approx([0.8 ** (len(distinct) - n) for n in range(len(distinct))])
    assert {top[parameter] for parameter in net.head.parameters()} == {1.0}


@pytest.mark.parametrize("name", [members[0].name for members in FAMILIES.values()])
def test_the_order_of_layers_is_that_in_which_they_see_a_picture(name: str) -> None:
    """The tenth that sees it first learns no faster than any of the tenth that sees it last."""
    net = catalogue.build(name, 3, pretrained="none", height=64, width=64).eval()
    pace = Pace(learning_rate=1.0, weight_decay=0.0, layer_decay=0.8, probe_steps=0, steps=10)
    optimizer, _ = make_optimizer(net, pace, fused=False)
    top = {parameter: group["top"] for group in optimizer.param_groups for parameter in group["params"]}
    seen: list[float] = []
    for module in net.features.modules():
        if own := list(module.parameters(recurse=False)):
            module.register_forward_hook(lambda *_, rate=top[own[0]]: seen.append(rate))
    with torch.no_grad():
        net(torch.zeros(1, 3, 64, 64))
    tenth = -(-len(seen) // 10)
    assert max(seen[:tenth]) < min(seen[-tenth:])


class Recording(Classifier):
    """Keeps the weights after each step, and the number of the step."""

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """As ever."""
        super().optimizer_step(*arguments, **options)
        self.seen = [*getattr(self, "seen", []), (self.global_step, self.net.head.classifier.weight.detach().clone())]


def test_the_average_is_that_of_the_weights_of_all_steps(tmp_path: Path) -> None:
    """Exponential, over about ``average_share`` of the steps, faster at first; what is judged and kept is the average."""
    snapshot, files = parts(32)
    net = catalogue.build("test_resnet", 3, pretrained="none", height=32, width=32)
    data = load_data(snapshot, product(), net, files.__getitem__, tmp_path, Compute(), STEPS_FROM_LABELS)
    with isolate_rng():
        torch.manual_seed(5)
        average = net.head.classifier.weight.detach().clone()
        module = Recording(net, Tuning(4e-3, 0.02, average_share=0.5))
        kept = fit(
            module, data, epochs=3, patience=3, precision="32", compute=Compute(), bookmark=tmp_path / "b", keep_last=True
        )
    assert len(module.seen) == 3 * len(data.train_dataloader(data.draws()))
    for step, weights in module.seen:
        share = min(1 - 1 / (0.5 * len(module.seen)), (1 + step) / (10 + step))
        average = share * average + (1 - share) * weights
    assert torch.allclose(kept.best_state["head.classifier.weight"], average, atol=1e-6)
    assert not torch.allclose(module.seen[-1][1], average, atol=1e-4)
