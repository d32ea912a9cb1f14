"""What is exported: raw frame in, class scores and defect map out. Nothing else ever normalizes a frame."""

import torch
from torch import Tensor, nn

from inspection.models.network import InspectionNet, defect_map
from inspection.models.preprocess import Preprocess


class DeployGraph(nn.Module):
    """``forward(frame uint8 [N, H, W, 3] BGR) -> (scores float32 [N, K], defect_map float32 [N, h, w])``.

    Scores are a softmax: probabilities that sum to 1, in the order of the classes. ``good_index`` is the
    network's own unless given.
    """

    def __init__(self, net: InspectionNet, preprocess: Preprocess | None = None, good_index: int | None = None) -> None:
        super().__init__()
        spec = net.spec
        self.preprocess = preprocess or Preprocess(spec.height, spec.width, spec.mean, spec.std)
        self.net = net
        self.good_index = spec.good_index if good_index is None else good_index

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        return self.judge(self.preprocess.reduce(frame))

    def judge(self, reduced: Tensor) -> tuple[Tensor, Tensor]:
        """The same for a frame that `Preprocess.reduce` has seen."""
        logits, map_logits = self.net(self.preprocess.normalize(self.preprocess.fit(reduced)))
        return torch.softmax(logits.float(), dim=1), defect_map(map_logits, self.good_index)
