"""How far a picture lies from good ones, learnt from good pictures alone and computed from the backbone's own features.

Every location of the feature maps has a Gaussian of its own mean and of a covariance shared with its neighbours, the whole
picture has one more of its mean features; the most distant location and the whole picture add up to the novelty. (PaDiM,
Defard et al. 2021, with covariances shared and shrunk so that 25 pictures suffice; README.md has what measured worse.)

Invariants: no Lightning, no I/O; the backbone is only read, so a classifier's answers stay what they are; everything
exports to ONNX; the same pictures and seed give the same numbers; the novelty of a picture is the maximum of its map.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from inspection.errors import UsageError
from inspection.models.network import InspectionNet
from inspection.models.preprocess import Preprocess

LEVELS = 2
"""Feature maps that are looked at, the finest first: strides 8 and 16 in most backbones."""
WIDTH = 128
"""Features of a location at most: wider ones are turned by a random orthonormal projection (Kim et al. 2021)."""
ZONES = 7
"""Zones along a side at most, each with one covariance: 49 matrices of `WIDTH` x `WIDTH` are 3.2 MB."""
FOLDS = 10
LEAST_PARTS = 10
"""Good parts without which nothing is learnt; 25 and more are useful."""
_POOLED_SHARE = 0.5  # weight of the whole picture's distance beside that of its worst location (README.md)
_SHARED_LOCATIONS = 100  # a zone's covariance is mixed with as many locations of everywhere's
_LEAST_VARIANCE = 1e-3  # of the mean variance, added to every direction
_ALIKE = 1e-2  # variance below which pictures count as all the same: of standardized features, it is about 1
_LEAST_SPREAD = 1e-2  # of distances and mean features; less is rounding
_SILENT = 0.1  # of the channels' mean spread; what spreads less is not brought to unit variance


class _Standardize(nn.Module):
    """``[N, C, h, w]`` to zero mean and unit variance per channel, as good pictures have them.

    Channels that are all but silent (after a ReLU many are) stay so: blown up, a rare spark in one would drown the others.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("factor", torch.ones(channels, 1, 1))

    mean: Tensor
    factor: Tensor

    def learn(self, maps: Tensor) -> None:
        spread = maps.std((0, 2, 3))
        self.mean.copy_(maps.mean((0, 2, 3))[:, None, None])
        self.factor.copy_((1 / spread.clamp_min(_SILENT * float(spread.mean()) + 1e-12))[:, None, None])

    def forward(self, maps: Tensor) -> Tensor:
        return (maps - self.mean) * self.factor


@dataclass(frozen=True)
class _Gaussians:
    """What good pictures are like: ``mean [h, w, d]``, ``whitening [Z, d, d]`` by zone, and the same of pooled features.

    A whitening matrix times a deviation has the Mahalanobis distance as its length.
    """

    mean: Tensor
    whitening: Tensor
    pooled_mean: Tensor
    pooled_whitening: Tensor


class Novelty(nn.Module):
    """``forward(maps) -> (novelty [N], novelty_map [N, h, w])``, float32 in [0, 1], of an `InspectionNet`'s ``maps``.

    0.5 is what about a stated share of unseen good parts reach, each by its most novel frame (`learn`). The map is the
    novelty, shared out by distance: all of it at the most novel location, half of it half as far off. (A probability of
    each location would be 1 far around a strong defect.) ``channels`` of the network's maps and ``size`` of the finest in
    locations; without `learn` or a loaded state it knows nothing.
    """

    def __init__(self, channels: Sequence[int], size: tuple[int, int], seed: int = 0) -> None:
        super().__init__()
        self.levels = nn.ModuleList(_Standardize(c) for c in channels[:LEVELS])
        self.size = size
        self.block = math.ceil(max(size) / ZONES)
        self.grid = math.ceil(size[0] / self.block), math.ceil(size[1] / self.block)
        total = sum(channels[:LEVELS])
        width = min(total, WIDTH)
        self.projected = total > width
        buffers = {
            "mean": torch.zeros(*size, width),
            "whitening": torch.eye(width).repeat(self.grid[0] * self.grid[1], 1, 1),
            "pooled_mean": torch.zeros(width),
            "pooled_whitening": torch.eye(width),
            "usual": torch.ones(size),
            "weights": torch.tensor([1.0, 0.0, 0.0]),
        }
        if self.projected:
            random = torch.randn(total, width, generator=torch.Generator().manual_seed(seed))
            buffers["projection"] = torch.linalg.qr(random).Q
        for name, value in buffers.items():
            self.register_buffer(name, value.contiguous())

    mean: Tensor
    whitening: Tensor
    pooled_mean: Tensor
    pooled_whitening: Tensor
    usual: Tensor
    """Distance that a good part's location has, ``[h, w]``."""
    weights: Tensor
    """Of the largest distance over the usual, of the whole picture's distance, and 1: they add up to the log-odds."""
    projection: Tensor

    def embed(self, maps: Sequence[Tensor]) -> Tensor:
        """Feature maps ``[N, C_i, h_i, w_i]`` to ``[N, h, w, d]``: standardized, averaged over 3 x 3, at one size."""
        fitted = []
        for level, one in zip(self._levels(), maps, strict=False):  # coarser maps are not looked at
            smooth = functional.avg_pool2d(level(one.float()), 3, stride=1, padding=1, count_include_pad=False)
            if smooth.shape[-2:] != self.size:
                smooth = functional.interpolate(smooth, size=self.size, mode="bilinear", align_corners=False)
            fitted.append(smooth)
        embedded = torch.cat(fitted, dim=1).permute(0, 2, 3, 1)
        return embedded @ self.projection if self.projected else embedded

    def _levels(self) -> list[_Standardize]:
        return [level for level in self.levels if isinstance(level, _Standardize)]

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """See the class."""
        own = _Gaussians(self.mean, self.whitening, self.pooled_mean, self.pooled_whitening)
        local, pooled = self._distances(self.embed(maps), own)
        relative = local / self.usual
        peak = relative.amax((1, 2))
        of_location, of_picture, constant = self.weights
        novelty = torch.sigmoid(of_location * peak + of_picture * pooled + constant)
        return novelty, (novelty / peak.clamp_min(1e-6))[:, None, None] * relative

    def _distances(self, embedded: Tensor, good: _Gaussians) -> tuple[Tensor, Tensor]:
        """Mahalanobis distances of each location ``[N, h, w]`` and of the mean features ``[N]`` of ``[N, h, w, d]``."""
        white = self._zoned(embedded - good.mean) @ good.whitening.mT
        local = self._unzoned((white * white).sum(-1)).sqrt()
        pooled = (embedded.mean((1, 2)) - good.pooled_mean) @ good.pooled_whitening.mT
        return local, (pooled * pooled).sum(-1).sqrt()

    def _zoned(self, x: Tensor) -> Tensor:
        """``[N, h, w, d]`` to ``[N, Z, block * block, d]``; zones that reach over the edge are filled with zeros."""
        (rows, columns), b = self.grid, self.block
        below, right = rows * b - self.size[0], columns * b - self.size[1]
        if below or right:
            x = functional.pad(x, (0, 0, 0, right, 0, below))
        tiles = x.reshape(-1, rows, b, columns, b, x.shape[-1]).transpose(2, 3)
        return tiles.reshape(-1, rows * columns, b * b, x.shape[-1])

    def _unzoned(self, x: Tensor) -> Tensor:
        """``[N, Z, block * block]`` back to ``[N, h, w]``."""
        (rows, columns), b = self.grid, self.block
        tiles = x.reshape(-1, rows, columns, b, b).transpose(2, 3)
        return tiles.reshape(-1, rows * b, columns * b)[:, : self.size[0], : self.size[1]]

    def learn(self, maps: Sequence[Tensor], parts: Sequence[str], share: float = 0.01, times: float = 1.0) -> None:
        """Learn from the feature maps ``[N, C_i, h_i, w_i]`` of good frames; ``parts`` names the part on each.

        0.5 becomes the novelty that a share of about ``share`` of good parts not learnt from reach, a part being as novel
        as its most novel frame (tile or picture). A tenth of the parts is held out at a time; the largest distance of each
        part is fitted by a Gumbel distribution, the limit law of maxima (Gumbel 1935), and the log-odds rise by 1 where its
        tail falls by a factor of e. ``times``: a part has so many times as many frames as are given of it here; the largest
        of more follows the same law, further up (of independent frames; alike ones reach 0.5 less often). All frames are
        held at once: about 20 h w d bytes each. Raises UsageError for fewer than `LEAST_PARTS` parts.
        """
        if len(set(parts)) < LEAST_PARTS:
            raise UsageError(
                f"good pictures of {len(set(parts))} parts say too little of what is usual: give at least {LEAST_PARTS}"
            )
        for level, one in zip(self._levels(), maps, strict=False):
            level.learn(one.float())
        embedded = self.embed(maps)
        local, pooled = self._held_out(embedded, parts)
        self.usual.copy_(local.mean(0).clamp_min(1.0))  # about the root of d, but for pictures all alike
        self.weights.copy_(_calibrated((local / self.usual).amax((1, 2)), pooled, parts, share, times))
        for name, value in vars(self._gaussians(embedded)).items():
            getattr(self, name).copy_(value)

    def _held_out(self, embedded: Tensor, parts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """`_distances` of every picture from what is learnt of other parts."""
        fold_of = {part: i % FOLDS for i, part in enumerate(sorted(set(parts)))}
        fold = torch.tensor([fold_of[part] for part in parts])
        local, pooled = embedded.new_empty(embedded.shape[:3]), embedded.new_empty(len(embedded))
        for k in range(FOLDS):
            local[fold == k], pooled[fold == k] = self._distances(embedded[fold == k], self._gaussians(embedded[fold != k]))
        return local, pooled

    def _gaussians(self, embedded: Tensor) -> _Gaussians:
        mean = embedded.mean(0)
        off = self._zoned(embedded - mean).transpose(0, 1).flatten(1, 2)  # [Z, N * block * block, d]
        sums = (off.mT @ off).double()
        inside = self._zoned(torch.ones_like(mean[None, ..., :1])).sum((0, 2, 3)).double() * len(embedded)
        everywhere = sums.sum(0) / inside.sum()
        zones = (sums + _SHARED_LOCATIONS * everywhere) / (inside + _SHARED_LOCATIONS)[:, None, None]
        pooled = embedded.mean((1, 2))
        return _Gaussians(mean, _whitening(zones), pooled.mean(0), _pooled_whitening(pooled))


def _whitening(covariance: Tensor) -> Tensor:
    """``[..., d, d]`` float64 to float32 ``W`` with ``W covariance W^T`` = 1, after `_LEAST_VARIANCE` was added."""
    eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype)
    least = _LEAST_VARIANCE * covariance.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(_ALIKE)
    root = torch.linalg.cholesky(covariance + least[..., None, None] * eye)
    whitening: Tensor = torch.linalg.solve_triangular(root, eye.expand_as(root), upper=False)
    return whitening.float()


def _pooled_whitening(pooled: Tensor) -> Tensor:
    """The same of mean features ``[N, d]``, often fewer than directions: shrunk (Ledoit and Wolf 2004)."""
    from sklearn.covariance import ledoit_wolf

    scale = pooled.std(0).clamp_min(_LEAST_SPREAD)
    off = (pooled - pooled.mean(0)) / scale
    shrunk, _ = ledoit_wolf(off.double().numpy(), assume_centered=True)
    return _whitening(torch.from_numpy(shrunk)) / scale


def _calibrated(peak: Tensor, pooled: Tensor, parts: Sequence[str], share: float, times: float) -> Tensor:
    """`Novelty.weights` from held-out good frames' largest local and pooled distances ``[N]`` (see `Novelty.learn`)."""
    from scipy import stats

    middles, spreads = zip(*map(_middle_and_spread, (peak, pooled)), strict=True)
    factors = np.array([1.0, _POOLED_SHARE]) / spreads
    distances = factors[0] * (peak.double().numpy() - middles[0]) + factors[1] * (pooled.double().numpy() - middles[1])
    largest: dict[str, np.float64] = {}
    for part, distance in zip(parts, distances, strict=True):
        largest[part] = max(distance, largest.get(part, distance))
    worst = np.array(list(largest.values()))
    place, scale = stats.gumbel_r.fit(worst) if np.ptp(worst) > _LEAST_SPREAD else (worst[0], 1.0)
    even = stats.gumbel_r.isf(share, place + scale * math.log(times), scale) + float(factors @ middles)
    return torch.tensor([*factors / scale, -even / scale], dtype=torch.float32)


def _middle_and_spread(distances: Tensor) -> tuple[float, float]:
    """Median, and from there to where a tenth lies above."""
    middle, high = np.quantile(distances.double().numpy(), [0.5, 0.9])
    return float(middle), float(max(high - middle, _LEAST_SPREAD))


def learn_novelty(
    net: InspectionNet,
    batches: Iterable[Tensor],
    parts: Sequence[str],
    *,
    share: float = 0.01,
    times: float = 1.0,
    seed: int = 0,
) -> Novelty:
    """`Novelty` of ``net``'s features, learnt from good pictures, or tiles of them.

    ``batches``: uint8 ``[n, H, W, 3]`` BGR each, of any size; ``parts``: the part on each of their pictures; ``share`` and
    ``times`` as for `Novelty.learn`. The network, on whatever device, is left in evaluation mode; what is learnt is on the
    CPU. UsageError as `Novelty.learn`, and when the numbers of pictures and parts differ.
    """
    spec, device = net.eval().spec, next(net.parameters()).device
    preprocess = Preprocess(spec.height, spec.width, spec.mean, spec.std).to(device)
    with torch.inference_mode():
        rows = [[m.cpu() for m in net.maps(preprocess(batch.to(device)))[:LEVELS]] for batch in batches]
        maps = [torch.cat(level) for level in zip(*rows, strict=True)]
        found = len(maps[0]) if maps else 0
        if found != len(parts):
            raise UsageError(f"there are {found} pictures of {len(parts)} parts: name the part on each picture")
    if not maps:
        raise UsageError(f"there are no good pictures to learn from: give at least {LEAST_PARTS}")
    height, width = maps[0].shape[-2:]
    novelty = Novelty([m.shape[1] for m in maps], (height, width), seed)
    with torch.inference_mode():
        novelty.learn(maps, parts, share, times)
    return novelty.eval()
