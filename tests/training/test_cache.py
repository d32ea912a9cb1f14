"""Decoded pictures, kept at the working size."""

from pathlib import Path

import numpy as np
import pytest
import torch

from inspection.contracts import Box, Region
from inspection.data.snapshot_record import Example, Split
from inspection.errors import UsageError
from inspection.models.preprocess import Preprocess
from inspection.training.cache import GOOD_PLACE, UNKNOWN_PLACE, Workshop, decode_frame, working_pictures
from tests.training.pictures import CLASSES, parts


def workshop(height: int, width: int, region: Region | None = None) -> Workshop:
    """Brings pictures of the rendered product to a size."""
    return Workshop(Preprocess(height, width, (0, 0, 0), (1, 1, 1)), CLASSES, "good", region)


def example(label: str, *boxes: Box) -> Example:
    """A part nobody has to decode."""
    return Example(picture="0" * 64, label=label, part="p", group="g", split=Split.TRAIN, boxes=list(boxes))


def test_boxes_say_where_a_class_lies() -> None:
    """A box in frame pixels becomes its class in working pixels; everything around it is good."""
    drawn = workshop(20, 10).places(example("scratch", Box(x=40, y=80, width=20, height=40, label="scratch")), 200, 100)
    assert (drawn[8:12, 4:6] == 1 + CLASSES.index("scratch")).all()
    assert (drawn == GOOD_PLACE).sum() == 200 - 8


def test_a_tiny_box_survives_shrinking() -> None:
    """A defect smaller than a working pixel still marks one."""
    drawn = workshop(8, 8).places(example("pit", Box(x=501, y=303, width=2, height=2, label="pit")), 800, 800)
    assert (drawn == 1 + CLASSES.index("pit")).sum() == 1


def test_a_box_outside_the_region_marks_nothing() -> None:
    """Boxes are in pixels of the whole frame; what the region leaves out is out of the training, too."""
    region = Region(x=100, y=100, width=50, height=50)
    box = Box(x=10, y=10, width=30, height=30, label="pit")
    assert (workshop(10, 10, region).places(example("pit", box), 50, 50) == GOOD_PLACE).all()


def test_a_defective_picture_without_boxes_is_unknown_and_a_good_one_is_good() -> None:
    """Nobody said where the defect lies: no location of that picture is taught."""
    assert (workshop(4, 4).places(example("pit"), 9, 9) == UNKNOWN_PLACE).all()
    assert (workshop(4, 4).places(example("good"), 9, 9) == GOOD_PLACE).all()


def test_training_sees_the_pixels_the_device_sees(tmp_path: Path) -> None:
    """The kept pictures are those of the exported resize, to half a gray level."""
    snapshot, files = parts(6)
    preprocess = Preprocess(24, 20, (0, 0, 0), (1, 1, 1))
    kept = working_pictures(snapshot.examples, files.__getitem__, workshop(24, 20), tmp_path).images
    for example, image in zip(snapshot.examples, kept, strict=True):
        frame = torch.from_numpy(decode_frame(files[example.picture], None))[None]
        wanted = preprocess.resize(frame)[0].permute(1, 2, 0).numpy()
        assert np.abs(wanted - image).max() <= 0.51


def test_a_picture_is_decoded_once(tmp_path: Path) -> None:
    """A second call reads the file of the first and asks for no picture."""
    snapshot, files = parts(4)
    asked: list[str] = []

    def pictures(digest: str) -> bytes:
        asked.append(digest)
        return files[digest]

    first = working_pictures(snapshot.examples, pictures, workshop(16, 16), tmp_path)
    second = working_pictures(snapshot.examples, pictures, workshop(16, 16), tmp_path)
    assert asked == [e.picture for e in snapshot.examples]
    assert np.array_equal(first.images, second.images)


def test_a_failure_half_way_leaves_no_file_that_looks_complete(tmp_path: Path) -> None:
    """A missing picture stops the training, and the next one starts from nothing."""
    snapshot, files = parts(4)
    del files[snapshot.examples[2].picture]
    with pytest.raises(KeyError):
        working_pictures(snapshot.examples, files.__getitem__, workshop(16, 16), tmp_path)
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
