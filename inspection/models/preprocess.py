"""From the raw frame to the network's input, as part of the graph.

Invariant: torch and ONNX Runtime give the same numbers for any frame size, so training, scoring and the device see the
same picture. A frame at least twice too large is halved first, in uint8 and exactly alike; the last step runs in float32,
since there the two round uint8 differently (README.md has the figures).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

HALVINGS = 3
"""How often a side is halved at most: 1/8, so that the float32 step never sees more than it must of a 4K frame."""


def halved(frame: Tensor, dim: int, target: int) -> Tensor:
    """uint8 of any shape -> the same, ``dim`` halved while it is at least twice ``target``, at most `HALVINGS` times.

    Each value is the mean of two neighbours, rounded half to even; an odd last one is left out.
    """
    lines = frame.transpose(0, dim)
    for _ in range(HALVINGS):
        pairs = len(lines) // 2
        if pairs < target:
            break
        both = lines[: 2 * pairs : 2].to(torch.int16) + lines[1 : 2 * pairs : 2]
        floor = both >> 1
        lines = (floor + (both & floor & 1)).byte()
    return lines.transpose(0, dim)


class Preprocess(nn.Module):
    """uint8 ``[N, H, W, 3]`` BGR -> float32 ``[N, 3, height, width]`` RGB, normalized.

    Sides that are at least twice too long are `halved`, rows first; then bilinear with antialiasing (a triangle filter as
    wide as the shrink factor; plain bilinear where it enlarges). The aspect ratio is not kept. ``mean`` and ``std`` are per
    RGB channel on a scale of [0, 1].
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

    def reduce(self, frame: Tensor) -> Tensor:
        """uint8 ``[N, H, W, 3]`` -> uint8 ``[N, H', W', 3]``; a side less than 16 times too long is less than twice so."""
        return halved(halved(frame, 1, self.height), 2, self.width)

    def fit(self, reduced: Tensor) -> Tensor:
        """uint8 ``[N, H', W', 3]`` -> float32 ``[N, 3, height, width]`` in [0, 255], channel order untouched."""
        planes = reduced.permute(0, 3, 1, 2).float()
        return functional.interpolate(
            planes, size=(self.height, self.width), mode="bilinear", antialias=True, align_corners=False
        )

    def resize(self, frame: Tensor) -> Tensor:
        """`reduce`, then `fit`."""
        return self.fit(self.reduce(frame))

    def normalize(self, planes: Tensor) -> Tensor:
        """BGR ``[N, 3, h, w]`` in [0, 255] (float32 or uint8) -> normalized RGB float32."""
        with torch.autocast(planes.device.type, enabled=False):
            return functional.conv2d(planes.float(), self.weight, self.bias)

    def see(self, planes: Tensor) -> Tensor:
        """uint8 BGR planes ``[N, 3, h, w]`` of any size -> what the network is given, resized where they must be."""
        if planes.shape[-2:] != (self.height, self.width):
            planes = self.resize(planes.permute(0, 2, 3, 1))
        return self.normalize(planes)

    def forward(self, frame: Tensor) -> Tensor:
        """See the class."""
        return self.normalize(self.resize(frame))
