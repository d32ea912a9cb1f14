"""How fast each layer learns, and when: parameter groups, and their learning rates step by step.

Invariant: a rate is a function of the step alone, so a training that goes on after a kill learns as it would have.

A cycle goes up over its first fifth and down to nothing over the rest, both along a cosine, with beta1 the other way round
(one cycle; Smith and Topin, "Super-convergence", 2018). With a probe there are two: first the head alone on the features
as they came, then the whole network (linear probing, then fine-tuning; Kumar et al., ICLR 2022: features that a random head
has not spoilt). The deeper a layer the slower it learns (layer-wise decay; Howard and Ruder, ULMFiT, 2018; BEiT, 2021).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler

from inspection.models.network import InspectionNet

_RISING, _LOWEST_AT_FIRST, _LOWEST_AT_LAST = 0.2, 1 / 25, 1 / 25 / 1e4
_BETA_RANGE = (0.85, 0.95)
_LAYER_GROUPS = 12


@dataclass(frozen=True)
class Pace:
    """``learning_rate`` at the top of a cycle; each of `_LAYER_GROUPS` groups of layers learns ``layer_decay`` times as
    fast as the one above it; the first ``probe_steps`` of ``steps`` are the head's alone."""

    learning_rate: float
    weight_decay: float
    layer_decay: float
    probe_steps: int
    steps: int


def make_optimizer(net: InspectionNet, pace: Pace, *, fused: bool) -> tuple[AdamW, "Cycles"]:
    """AdamW over all parameters of ``net``, trainable at the moment or not, and its learning rates."""
    groups = [
        _group(layers, pace, scale=scale, probing=False) for scale, layers in _body_layers(net.features, pace.layer_decay)
    ]
    groups.append(_group(list(net.head.parameters()), pace, scale=1.0, probing=True))
    optimizer = AdamW([one for both in groups for one in both if one["params"]], lr=pace.learning_rate, fused=fused)
    return optimizer, Cycles(optimizer, pace)


def _group(parameters: Sequence[nn.Parameter], pace: Pace, *, scale: float, probing: bool) -> list[dict[str, Any]]:
    """Biases and normalization weights are not decayed."""
    common = {"top": pace.learning_rate * scale, "probing": probing}
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": pace.weight_decay, **common},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0, **common},
    ]


def _body_layers(body: nn.Module, decay: float) -> Iterable[tuple[float, list[nn.Parameter]]]:
    """Groups of layers with the share of the learning rate each has, from the picture up: modules with parameters of their
    own, in the order they were made, whatever a family calls them."""
    if decay == 1.0:
        yield 1.0, list(body.parameters())
        return
    layers = [own for module in body.modules() if (own := list(module.parameters(recurse=False)))]
    count = min(_LAYER_GROUPS, len(layers))
    for group in range(count):
        chosen = layers[group * len(layers) // count : (group + 1) * len(layers) // count]
        yield decay ** (count - group), [parameter for layer in chosen for parameter in layer]


class Cycles(LRScheduler):
    """See the module."""

    def __init__(self, optimizer: AdamW, pace: Pace) -> None:
        self._pace = pace
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Any]:
        """The rates of the step to come."""
        rates: list[float | Any] = []
        for group in self.optimizer.param_groups:
            rate, momentum = self._at(self.last_epoch, probing=group["probing"])
            group["betas"] = (momentum, group["betas"][1])
            rates.append(group["top"] * rate)
        return rates

    def _at(self, step: int, *, probing: bool) -> tuple[float, float]:
        """Share of the top, and beta1."""
        pace = self._pace
        if step >= pace.probe_steps:
            return _cycle((step - pace.probe_steps) / max(1, pace.steps - pace.probe_steps - 1))
        return _cycle(step / max(1, pace.probe_steps - 1)) if probing else (0.0, _BETA_RANGE[1])

    def state_dict(self) -> dict[str, Any]:
        """Where it is; what it is made of is not kept."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count, "_last_lr": self._last_lr}


def _cycle(passed: float) -> tuple[float, float]:
    """``passed`` in [0, 1] (beyond: as at 1) to the share of the top in [0, 1], and beta1."""
    slow, fast = _BETA_RANGE
    if passed < _RISING:
        height = _along(passed / _RISING)
        return _LOWEST_AT_FIRST + (1 - _LOWEST_AT_FIRST) * height, fast - (fast - slow) * height
    height = 1 - _along(min(1.0, (passed - _RISING) / (1 - _RISING)))
    return _LOWEST_AT_LAST + (1 - _LOWEST_AT_LAST) * height, fast - (fast - slow) * height


def _along(share: float) -> float:
    """A half cosine from 0 to 1."""
    return (1 - math.cos(math.pi * share)) / 2
