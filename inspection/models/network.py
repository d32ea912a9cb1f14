"""The plain network: a timm backbone whose one linear head gives both the class scores and the defect map.

Invariants: no Lightning, no I/O; the class logits and the map logits come from the same weights (class activation
mapping, Zhou et al. 2016), so a map never contradicts the verdict it explains; everything exports to ONNX.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

HEAD_WIDTH = 128


@dataclass(frozen=True)
class NetSpec:
    """What is needed to build the same network again.

    ``backbone`` as `catalogue.build` takes it; sizes in pixels; ``good_index`` is the good class.
    """

    backbone: str
    classes: int
    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    good_index: int = 0


class MapHead(nn.Module):
    """Fuses feature maps at the resolution of the first and classifies every location with one linear layer.

    The picture's logits are the map's, pooled by a smooth maximum: a defect at a single location is not diluted by all
    the good ones, and training the map trains the scores (README.md has what mean and maximum did instead).
    """

    def __init__(self, channels: Sequence[int], classes: int, good_index: int = 0, width: int = HEAD_WIDTH) -> None:
        super().__init__()
        self.good_index = good_index
        self.laterals = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1, bias=False), nn.BatchNorm2d(width)) for c in channels
        )
        self.classifier = nn.Linear(width, classes)

    def fuse(self, features: Sequence[Tensor]) -> Tensor:
        """Feature maps ``[N, C_i, h_i, w_i]`` to one ``[N, width, h_0, w_0]``."""
        size = features[0].shape[-2:]
        fused = self.laterals[0](features[0])
        for lateral, feature in zip(self.laterals[1:], features[1:], strict=True):
            fused = fused + functional.interpolate(lateral(feature), size=size, mode="nearest")
        return functional.relu(fused)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Feature maps to ``(logits [N, K], map_logits [N, K, h_0, w_0])``."""
        weight = self.classifier.weight[:, :, None, None]
        map_logits = functional.conv2d(self.fuse(features), weight, self.classifier.bias)
        return pool(map_logits, self.good_index), map_logits


def pool(map_logits: Tensor, good_index: int) -> Tensor:
    """``[N, K, h, w]`` to ``[N, K]``: each class's odds against good, averaged over the locations, as logits (good: 0).

    The log-mean-exp of Pinheiro and Collobert (2015), taken of the margins over the good class: a location votes by how
    much more of a defect than of a good surface it is.
    """
    margins = map_logits.float() - map_logits[:, good_index : good_index + 1].float()
    locations = map_logits.shape[-2] * map_logits.shape[-1]
    pooled: Tensor = torch.logsumexp(margins.flatten(2), dim=2) - math.log(locations)
    return pooled


class InspectionNet(nn.Module):
    """``forward(x float [N, 3, H, W], normalized RGB) -> (logits [N, K], map_logits [N, K, h, w])``.

    ``features`` returns a list of maps; ``channels_last_output`` says that its maps are ``[N, h, w, C]`` (Swin).
    """

    def __init__(
        self, features: nn.Module, channels: Sequence[int], spec: NetSpec, *, channels_last_output: bool = False
    ) -> None:
        super().__init__()
        self.features = features
        self.head = MapHead(channels, spec.classes, spec.good_index)
        self.spec = spec
        self.channels_last_output = channels_last_output

    def maps(self, x: Tensor) -> list[Tensor]:
        """The backbone's feature maps ``[N, C_i, h_i, w_i]``, the finest first."""
        maps: list[Tensor] = self.features(x)
        return [m.permute(0, 3, 1, 2) for m in maps] if self.channels_last_output else maps

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        logits, map_logits = self.head(self.maps(x))
        return logits, map_logits


def defect_map(map_logits: Tensor, good_index: int) -> Tensor:
    """Map logits ``[N, K, h, w]`` to the probability ``[N, h, w]`` float32 in [0, 1] that a location is not good."""
    return 1.0 - torch.softmax(map_logits.float(), dim=1)[:, good_index]
