"""What is exported: raw frame in, class scores and defect map out. Nothing else ever normalizes a frame."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from inspection.models.network import InspectionNet, defect_map
from inspection.models.novelty import Novelty
from inspection.models.preprocess import Preprocess

MOST_SURE = 0.999
"""A cold start is never surer of a defect than this: a threshold of 1 then rejects nothing."""


class DeployGraph(nn.Module):
    """``forward(frame uint8 [N, H, W, 3] BGR) -> (scores float32 [N, K], defect_map float32 [N, h, w])``.

    Scores are a softmax: probabilities that sum to 1, in the order of the classes. ``good_index`` is the
    network's own unless given.
    """

    outputs: ClassVar[tuple[str, ...]] = ("scores", "defect_map")

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


class ColdStartGraph(DeployGraph):
    """The same contract before any defect is labelled: two classes, the good one and whatever good pictures do not show.

    The defect's score is the picture's novelty (at most `MOST_SURE`), its map the novelty map; the network's head is not
    asked.
    """

    def __init__(self, net: InspectionNet, novelty: Novelty, preprocess: Preprocess | None = None) -> None:
        super().__init__(net, preprocess)
        if net.spec.classes != 2:
            raise ValueError(
                f"a cold start knows good and not good, but the network was built for {net.spec.classes} classes"
            )
        self.novelty = novelty

    def judge(self, reduced: Tensor) -> tuple[Tensor, Tensor]:
        """See `DeployGraph.judge`."""
        maps = self.net.maps(self.preprocess.normalize(self.preprocess.fit(reduced)))
        novelty, novelty_map = (found.clamp_max(MOST_SURE) for found in self.novelty(maps))
        pair = [novelty, novelty]
        pair[self.good_index] = 1.0 - novelty
        return torch.stack(pair, dim=1), novelty_map


class GuardedGraph(nn.Module):
    """A classifier and, from the same features, ``novelty`` float32 ``[N]`` in [0, 1] as a third output.

    ``forward(frame uint8 [N, H, W, 3] BGR) -> (scores [N, K], defect_map [N, h, w], novelty [N])``; the first two are those
    of ``graph``.
    """

    outputs: ClassVar[tuple[str, ...]] = (*DeployGraph.outputs, "novelty")

    def __init__(self, graph: DeployGraph, novelty: Novelty) -> None:
        super().__init__()
        self.preprocess, self.net, self.novelty = graph.preprocess, graph.net, novelty
        self.good_index = graph.good_index

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        return self.judge(self.preprocess.reduce(frame))

    def judge(self, reduced: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same for a frame that `Preprocess.reduce` has seen."""
        maps = self.net.maps(self.preprocess.normalize(self.preprocess.fit(reduced)))
        logits, map_logits = self.net.head(maps)
        novelty, _ = self.novelty(maps)
        return torch.softmax(logits.float(), dim=1), defect_map(map_logits, self.good_index), novelty
