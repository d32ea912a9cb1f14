"""Tiles are judged alike, however they lie in memory and in however large batches they go."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edge_agent.bundle import open_bundle
from edge_agent.judge import cut
from edge_agent.runtime import Inference, OnnxRuntime
from inspection.contracts import Tiling, tiles_of
from tests.edge_agent.helpers import Image, bundle, picture, recipe

GRID = Tiling(rows=2, columns=3)


def runtime(threads: int) -> OnnxRuntime:
    """The tiny model."""
    opened = open_bundle(bundle())
    return OnnxRuntime(opened.model, opened.manifest, threads=threads)


def tiles(image: Image) -> list[Image]:
    """Views of a frame: no rows lie one after another."""
    return cut(image, tiles_of(*image.shape[:2], recipe().model_copy(update={"tiling": GRID})))


def one_by_one(some: list[Image]) -> Inference:
    """Each by itself, in memory of its own."""
    alone = runtime(1)
    answers = [alone.infer([tile.copy()]) for tile in some]
    return Inference(np.concatenate([a.scores for a in answers]), np.concatenate([a.defect_maps for a in answers]))


@pytest.mark.parametrize("threads", [1, 2, 4, 8])
def test_batches_of_any_size_answer_as_one_by_one(threads: int) -> None:
    """Six tiles: one at a time, in pairs, with a rest, in one batch; twice, for the memory stays."""
    judged = runtime(threads)
    for seed in (1, 2):
        some = tiles(picture(seed, scratch=220, dent=240, size=(96, 192)))
        expected, found = one_by_one(some), judged.infer(some)
        assert len({tuple(row) for row in found.scores.round(3).tolist()}) > 1  # else any order would do
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)
        np.testing.assert_allclose(found.defect_maps, expected.defect_maps, rtol=1e-6)


def test_frames_of_another_size_find_their_room() -> None:
    """A recipe with another grid comes into force while the session stays."""
    judged = runtime(2)
    for size in ((96, 192), (48, 96), (120, 240)):
        some = tiles(picture(3, scratch=250, size=size))
        np.testing.assert_allclose(judged.infer(some).scores, one_by_one(some).scores, rtol=1e-6)


def test_two_threads_do_not_share_their_room() -> None:
    """A known part is shown again while the line goes on."""
    judged = runtime(1)
    frames = [tiles(picture(seed, scratch=40 * seed, size=(96, 192))) for seed in range(1, 7)]
    expected = [one_by_one(some).scores for some in frames]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            for found, known in zip(pool.map(judged.infer, frames), expected, strict=True):
                np.testing.assert_allclose(found.scores, known, rtol=1e-6)
