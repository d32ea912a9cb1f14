"""Decoded pictures, kept at the working size."""

from pathlib import Path

import numpy as np
import pytest
import torch

from inspection.contracts import Region
from inspection.errors import UsageError
from inspection.models.preprocess import Preprocess
from inspection.training.cache import decode_frame, working_pictures
from tests.training.pictures import parts


def test_training_sees_the_pixels_the_device_sees(tmp_path: Path) -> None:
    """The kept pictures are those of the exported resize, to half a gray level."""
    snapshot, files = parts(6)
    preprocess = Preprocess(24, 20, (0, 0, 0), (1, 1, 1))
    kept = working_pictures(snapshot.examples, files.__getitem__, preprocess, tmp_path)
    for example, image in zip(snapshot.examples, kept, strict=True):
        frame = torch.from_numpy(decode_frame(files[example.picture], None))[None]
        wanted = preprocess.resize(frame)[0].permute(1, 2, 0).numpy()
        assert np.abs(wanted - image).max() <= 0.51


def test_a_picture_is_decoded_once(tmp_path: Path) -> None:
    """A second call reads the file of the first and asks for no picture."""
    snapshot, files = parts(4)
    preprocess = Preprocess(16, 16, (0, 0, 0), (1, 1, 1))
    asked: list[str] = []

    def pictures(digest: str) -> bytes:
        asked.append(digest)
        return files[digest]

    first = working_pictures(snapshot.examples, pictures, preprocess, tmp_path)
    second = working_pictures(snapshot.examples, pictures, preprocess, tmp_path)
    assert asked == [e.picture for e in snapshot.examples]
    assert np.array_equal(first, second)


def test_a_failure_half_way_leaves_no_file_that_looks_complete(tmp_path: Path) -> None:
    """A missing picture stops the training, and the next one starts from nothing."""
    snapshot, files = parts(4)
    del files[snapshot.examples[2].picture]
    with pytest.raises(KeyError):
        working_pictures(snapshot.examples, files.__getitem__, Preprocess(16, 16, (0,) * 3, (1,) * 3), tmp_path)
    assert not list(tmp_path.glob("*.u8"))


def test_only_the_region_of_interest_is_seen(tmp_path: Path) -> None:
    """The product's region is cut out before anything else, as the agent does."""
    snapshot, files = parts(1)
    data = files[snapshot.examples[0].picture]
    whole = decode_frame(data, None)
    cut = decode_frame(data, Region(x=3, y=5, width=20, height=10))
    assert np.array_equal(cut, whole[5:15, 3:23])


def test_a_region_outside_the_picture_is_an_error_in_words() -> None:
    """A region that does not fit is never cut smaller silently."""
    snapshot, files = parts(1)
    with pytest.raises(UsageError, match="region of interest"):
        decode_frame(files[snapshot.examples[0].picture], Region(x=30, y=0, width=20, height=10))
