"""LeNet-5 and AlexNet, which timm does not have, in timm's registry: they are built, loaded and listed like all the others.

Invariants: what timm asks of a network (``feature_info``, a record of its weights) and nothing more; AlexNet's tensors keep
torchvision's names, so a file of torchvision's weights loads as it is. Importing this module registers both names.
"""

from typing import Any

import torch
import torchvision
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

default_cfgs = generate_default_cfgs(  # timm's registry looks for this name
    {
        "lenet5.untrained": {
            "input_size": (3, 32, 32),
            "num_classes": 1000,
            "first_conv": "features.0",
            "classifier": "classifier.2",
            **_IMAGENET,
        },
        "alexnet.tv_in1k": {
            "url": torchvision.models.AlexNet_Weights.IMAGENET1K_V1.url,
            "input_size": (3, 224, 224),
            "num_classes": 1000,
            "first_conv": "features.0",
            "classifier": "classifier.6",
            "license": "bsd-3-clause",
            "origin_url": "https://github.com/pytorch/vision",
            **_IMAGENET,
        },
    }
)


class LeNet5(nn.Module):
    """LeNet-5 (LeCun, Bottou, Bengio and Haffner 1998), slid over a picture of any size as in the paper's section VII.

    ``forward(x float [N, in_chans, H, W]) -> logits [N, num_classes]``; H and W at least 4. Kernels, widths, tanh and mean
    pooling are the paper's. Not so: colours instead of gray; padded convolutions, so that the last layer's locations lie
    every 4 px; C3 sees all of S2 (the paper's table of connections saved work); pooling has no weights of its own; tanh is
    not scaled; a linear output instead of radial basis functions; F6 sees the mean over C5's locations, each of 32 x 32 px.
    """

    def __init__(self, num_classes: int = 1000, in_chans: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_chans, 6, 5, padding=2),  # C1
            nn.Tanh(),
            nn.AvgPool2d(2),  # S2
            nn.Conv2d(6, 16, 5, padding=2),  # C3
            nn.Tanh(),
            nn.AvgPool2d(2),  # S4
            nn.Conv2d(16, 120, 5, padding=2),  # C5
            nn.Tanh(),
        )
        self.classifier = nn.Sequential(nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, num_classes))  # F6, output
        # C5 alone: its locations see all that the paper's classifier sees, and finer maps of 6 and 16 channels cost much.
        self.feature_info = [{"num_chs": 120, "reduction": 4, "module": "features.7"}]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        logits: Tensor = self.classifier(self.features(x).mean(dim=(2, 3)))
        return logits


class AlexNet(nn.Module):
    """torchvision's AlexNet (Krizhevsky 2014, "One weird trick"), and the places of its feature maps.

    ``forward(x float [N, 3, H, W]) -> logits [N, num_classes]``; H and W at least 63. Raises ValueError for other than
    three colours. Its convolutions crop the edge: 224 px give maps of 55, 27, 13 and 6 locations a side.
    """

    def __init__(self, num_classes: int = 1000, in_chans: int = 3) -> None:
        super().__init__()
        if in_chans != 3:
            raise ValueError(f"AlexNet takes pictures of three colours, not of {in_chans}")
        plain = torchvision.models.alexnet(num_classes=num_classes)
        self.features, self.avgpool, self.classifier = plain.features, plain.avgpool, plain.classifier
        self.feature_info = [
            {"num_chs": 64, "reduction": 4, "module": "features.1"},
            {"num_chs": 192, "reduction": 8, "module": "features.4"},
            {"num_chs": 256, "reduction": 16, "module": "features.11"},
            {"num_chs": 256, "reduction": 32, "module": "features.12"},
        ]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        logits: Tensor = self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
        return logits


def lenet5(pretrained: bool = False, **arguments: Any) -> Any:
    """LeNet-5, as timm's ``create_model`` calls it; nobody publishes weights of it for colour pictures."""
    return _build(LeNet5, "lenet5", pretrained, levels=1, **arguments)


def alexnet(pretrained: bool = False, **arguments: Any) -> Any:
    """AlexNet, as timm's ``create_model`` calls it, with torchvision's weights."""
    return _build(AlexNet, "alexnet", pretrained, levels=4, **arguments)


def _build(network: type[nn.Module], name: str, pretrained: bool, levels: int, **arguments: Any) -> Any:
    features = {"out_indices": tuple(range(levels)), "flatten_sequential": True}
    return build_model_with_cfg(network, name, pretrained, feature_cfg=features, **arguments)


for _entry in (lenet5, alexnet):  # not as a decorator: timm ships no types
    register_model(_entry)
