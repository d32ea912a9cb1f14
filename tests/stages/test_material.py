"""What stages read of a product and a snapshot."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.contracts import Tiling
from inspection.data.snapshot_record import Split
from inspection.errors import UsageError
from inspection.stages.material import Frames, Material
from inspection.training.cache import decode_tiles
from tests.training.pictures import parts, product

GRID = Tiling(rows=2, columns=2, overlap=4)
SNAPSHOT, FILES = parts(6, side=60)
PLAN = product().model_copy(update={"tiling": GRID})


def frames(asked: list[str] | None = None) -> Frames:
    """Of all six pictures; notes which are read."""

    def picture(digest: str) -> bytes:
        if asked is not None:
            asked.append(digest)
        return FILES[digest]

    return Frames(SNAPSHOT.examples, picture, PLAN)


def test_frames_are_all_tiles_in_order_and_each_picture_is_read_once() -> None:
    """One picture is open at a time."""
    asked: list[str] = []
    shown = list(frames(asked))
    expected = [frame for e in SNAPSHOT.examples for _, frame in decode_tiles(FILES[e.picture], PLAN)]
    assert len(shown) == len(frames()) == 24
    assert all(np.array_equal(one, other) for one, other in zip(shown, expected, strict=True))
    assert asked == [e.picture for e in SNAPSHOT.examples]


@given(st.integers(1, 30), st.integers(0, 9))
def test_a_sample_is_the_same_by_its_seed_and_holds_no_frame_twice(count: int, seed: int) -> None:
    """Of tiles, not of pictures: what is calibrated on does not grow with the grid."""
    one, other = frames().sample(count, seed), frames().sample(count, seed)
    assert len(one) == min(count, 24)
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert len({frame.tobytes() for frame in one}) == len(one)


def test_a_side_without_pictures_is_told_before_anything_is_trained() -> None:
    """By name, with what helps."""
    learnt = SNAPSHOT.model_copy(update={"examples": SNAPSHOT.of(Split.TRAIN)})
    material = Material(PLAN, learnt, None)  # type: ignore[arg-type]  # nothing is read
    with pytest.raises(UsageError, match="is on the sides validation, golden: label more parts"):
        material.check_sides()


def test_places_count_from_the_end_and_slices_are_lists() -> None:
    """As of any sequence."""
    some = frames()
    assert np.array_equal(some[-1], some[23])
    assert [f.tobytes() for f in some[2:6]] == [some[i].tobytes() for i in range(2, 6)]
