"""From the raw frame to the network's input, as part of the graph.

Invariant: torch and ONNX Runtime give the same numbers for any frame size, so training, scoring and the device see the
same picture. The resize runs in float32: on uint8 the two round differently (README.md has the figures).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Preprocess(nn.Module):
    """uint8 ``[N, H, W, 3]`` BGR -> float32 ``[N, 3, height, width]`` RGB, normalized.

    Bilinear with antialiasing (a triangle filter as wide as the shrink factor; plain bilinear where it enlarges);
    the aspect ratio is not kept. ``mean`` and ``std`` are per RGB channel on a scale of [0, 1].
    """

    def __init__(self, height: int, width: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.height, self.width = height, width
        factor = 1.0 / (255.0 * torch.tensor(std))
        # Row r reads column 2 - r: BGR becomes RGB, is scaled and shifted, all in one 1x1 convolution.
        self.register_buffer("weight", torch.diag(factor).flip(1).view(3, 3, 1, 1), persistent=False)
        self.register_buffer("bias", -torch.tensor(mean) / torch.tensor(std), persistent=False)

    weight: Tensor
    bias: Tensor

    def resize(self, frame: Tensor) -> Tensor:
        """uint8 ``[N, H, W, 3]`` -> float32 ``[N, 3, height, width]`` in [0, 255], channel order untouched."""
        planes = frame.permute(0, 3, 1, 2).float()
        return functional.interpolate(
            planes, size=(self.height, self.width), mode="bilinear", antialias=True, align_corners=False
        )

    def normalize(self, planes: Tensor) -> Tensor:
        """BGR ``[N, 3, h, w]`` in [0, 255] (float32 or uint8) -> normalized RGB float32."""
        with torch.autocast(planes.device.type, enabled=False):
            return functional.conv2d(planes.float(), self.weight, self.bias)

    def forward(self, frame: Tensor) -> Tensor:
        """See the class."""
        return self.normalize(self.resize(frame))
