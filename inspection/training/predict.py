"""Class scores of pictures, through the very graph that is exported, by the tiles that a device would cut."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray

from inspection.contracts import WHOLE, Framed, tile_count
from inspection.data.snapshot_record import Example
from inspection.models.deploy import DeployGraph
from inspection.models.network import InspectionNet
from inspection.models.tiles import worst_tile
from inspection.training.cache import Pictures, decode_example
from inspection.training.record import Trained

MOST_BYTES = 64 * 2**20  # of raw frames at a time: 32 of a camera of 20 megapixels are 2 GB


def predict(
    trained: Trained | InspectionNet | DeployGraph,
    examples: Sequence[Example],
    pictures: Pictures,
    *,
    framed: Framed = WHOLE,
    batch_size: int = 32,
) -> NDArray[np.float32]:
    """Scores float32 ``[N, K]`` in the order of ``examples``, rows sum to 1: those of a picture's worst tile, where
    ``framed`` (the product) has several. ``batch_size``: frames at a time, fewer of large ones. UsageError and PictureError
    as `decode_example`."""
    graph = _graph(trained)
    device = next(graph.parameters()).device
    rows = [np.zeros((0, graph.net.spec.classes), np.float32)]
    with torch.inference_mode():
        for batch in _batches(examples, pictures, framed, batch_size):
            scores, _ = graph(torch.from_numpy(batch).to(device))
            rows.append(scores.cpu().numpy())
    return worst_tile(np.concatenate(rows), tile_count(framed), graph.good_index)


def _graph(trained: Trained | InspectionNet | DeployGraph) -> DeployGraph:
    graph = trained.deploy_graph() if isinstance(trained, Trained) else trained
    graph = graph if isinstance(graph, DeployGraph) else DeployGraph(graph)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return graph.to(device).eval()


def _batches(examples: Sequence[Example], pictures: Pictures, framed: Framed, size: int) -> Iterator[NDArray[np.uint8]]:
    """Neighbours of one size go together: uint8 ``[n, H, W, 3]``, n <= ``size``, and no more than `MOST_BYTES` if n > 1."""
    frames = (frame for e in examples for _, frame in decode_example(pictures(e.picture), e, framed))
    for _, alike in groupby(frames, key=lambda f: f.shape):
        batch: list[NDArray[np.uint8]] = []
        for frame in alike:
            batch.append(frame)
            if len(batch) == size or (len(batch) + 1) * frame.nbytes > MOST_BYTES:
                yield np.stack(batch)
                batch = []
        if batch:
            yield np.stack(batch)
