"""Decoded pictures, kept at the working size."""

from pathlib import Path

import numpy as np
import pytest
import torch

from inspection.contracts import WHOLE, Box, Framing, Region, Tiling
from inspection.data.pictures import decode_bgr, encode_png
from inspection.data.snapshot_record import Example, Split
from inspection.errors import PictureError, UsageError
from inspection.models.preprocess import Preprocess
from inspection.training.cache import (
    GOOD_PLACE,
    UNCLEAR,
    UNKNOWN_PLACE,
    Workshop,
    decode_tiles,
    working_pictures,
)
from tests.training.pictures import CLASSES, parts


def workshop(height: int, width: int, framing: Framing = WHOLE) -> Workshop:
    """Brings pictures of the rendered product to a size."""
    return Workshop(Preprocess(height, width, (0, 0, 0), (1, 1, 1)), CLASSES, "good", framing)


def frame(width: int, height: int) -> Region:
    """All of a picture, as one tile."""
    return Region(x=0, y=0, width=width, height=height)


def example(label: str, *boxes: Box) -> Example:
    """A part nobody has to decode."""
    return Example(picture="0" * 64, label=label, part="p", group="g", split=Split.TRAIN, boxes=list(boxes))


def test_boxes_say_where_a_class_lies() -> None:
    """A box in frame pixels becomes its class in working pixels; everything around it is good."""
    drawn = workshop(20, 10).places(
        example("scratch", Box(x=40, y=80, width=20, height=40, label="scratch")), frame(100, 200)
    )
    assert (drawn[8:12, 4:6] == 1 + CLASSES.index("scratch")).all()
    assert (drawn == GOOD_PLACE).sum() == 200 - 8


def test_a_tiny_box_survives_shrinking() -> None:
    """A defect smaller than a working pixel still marks one."""
    drawn = workshop(8, 8).places(example("pit", Box(x=501, y=303, width=2, height=2, label="pit")), frame(800, 800))
    assert (drawn == 1 + CLASSES.index("pit")).sum() == 1


OUTSIDE = Box(x=10, y=10, width=30, height=30, label="pit")


def test_a_box_outside_the_region_marks_nothing() -> None:
    """Boxes are in pixels of the whole frame; what the region leaves out is out of the training, too."""
    region = Region(x=100, y=100, width=50, height=50)
    inside = Box(x=120, y=105, width=10, height=5, label="pit")
    drawn = workshop(10, 10, Framing(region)).places(example("pit", OUTSIDE, inside), region)
    assert (drawn[1:2, 4:6] == 1 + CLASSES.index("pit")).all()
    assert (drawn == GOOD_PLACE).sum() == 100 - 2


def test_a_defective_picture_with_all_its_boxes_outside_the_region_is_one_without_boxes() -> None:
    """Nobody has shown where in the region the defect lies: no location and no tile of it is taught as good."""
    region = Region(x=100, y=100, width=40, height=40)
    edge = Box(x=90, y=100, width=10, height=5, label="pit")  # it ends where the region begins
    assert (workshop(10, 10, Framing(region)).places(example("pit", OUTSIDE, edge), region) == UNKNOWN_PLACE).all()
    made = workshop(22, 22, Framing(region, GRID))
    for tile in (Region(x=x, y=y, width=22, height=22) for y in (100, 118) for x in (100, 118)):
        assert made.label(example("pit", OUTSIDE, edge), tile) == UNCLEAR
        assert (made.places(example("pit", OUTSIDE), tile) == UNKNOWN_PLACE).all()


def test_a_defective_picture_without_boxes_is_unknown_and_a_good_one_is_good() -> None:
    """Nobody said where the defect lies: no location of that picture is taught."""
    assert (workshop(4, 4).places(example("pit"), frame(9, 9)) == UNKNOWN_PLACE).all()
    assert (workshop(4, 4).places(example("good"), frame(9, 9)) == GOOD_PLACE).all()


def test_boxes_left_on_a_good_picture_mark_nothing() -> None:
    """A model's false alarm that somebody answered with "good" and did not rub out: the part has no defect there."""
    left = example("good", Box(x=2, y=2, width=6, height=6, label="pit"), Box(x=9, y=9, width=3, height=3, label="dent"))
    assert (workshop(22, 22).places(left, frame(22, 22)) == GOOD_PLACE).all()
    assert tile_labels(left) == tile_labels(example("good"))


def test_training_sees_the_pixels_the_device_sees(tmp_path: Path) -> None:
    """The kept pictures are those of the exported resize, to half a gray level."""
    snapshot, files = parts(6)
    preprocess = Preprocess(24, 20, (0, 0, 0), (1, 1, 1))
    kept = working_pictures(snapshot.examples, files.__getitem__, workshop(24, 20), tmp_path).images
    for example, image in zip(snapshot.examples, kept, strict=True):
        ((_, pixels),) = decode_tiles(files[example.picture], WHOLE)
        wanted = preprocess.resize(torch.from_numpy(pixels)[None])[0].permute(1, 2, 0).numpy()
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
    ((_, whole),) = decode_tiles(data, WHOLE)
    ((place, cut),) = decode_tiles(data, Framing(Region(x=3, y=5, width=20, height=10)))
    assert (place.x, place.y) == (3, 5)
    assert np.array_equal(cut, whole[5:15, 3:23])


def test_a_region_outside_the_picture_is_an_error_in_words() -> None:
    """A region that does not fit is never cut smaller silently."""
    snapshot, files = parts(1)
    with pytest.raises(UsageError, match="region of interest"):
        decode_tiles(files[snapshot.examples[0].picture], Framing(Region(x=30, y=0, width=20, height=10)))


def test_an_error_about_a_picture_names_it(tmp_path: Path) -> None:
    """Picture, part and station, so that somebody can look at it: where it does not fit, and where it is damaged."""
    snapshot, files = parts(3)
    third = snapshot.examples[2].model_copy(update={"station": "cam-2"})
    shown = [*snapshot.examples[:2], third]
    named = f"picture {third.picture[:12]} of part p2 at station cam-2: "
    wide = decode_bgr(files[third.picture])[:, :20]
    for spoilt, kind in ((encode_png(wide), UsageError), (b"no picture", PictureError)):
        with pytest.raises(kind, match=named):
            working_pictures(
                shown, (files | {third.picture: spoilt}).__getitem__, workshop(16, 16, Framing(PLACE)), tmp_path
            )


PLACE = Region(x=10, y=10, width=30, height=30)
GRID = Tiling(rows=2, columns=2, overlap=4)  # of 40 px: tiles of 22 px, from 0 and from 18


def test_tiles_are_kept_as_a_device_cuts_them(tmp_path: Path) -> None:
    """Each at its own size: nothing is shrunk where tile and working size agree."""
    snapshot, files = parts(3)
    kept = working_pictures(snapshot.examples, files.__getitem__, workshop(22, 22, Framing(tiling=GRID)), tmp_path)
    assert kept.images.shape == (12, 22, 22, 3)
    ((_, whole),) = decode_tiles(files[snapshot.examples[1].picture], WHOLE)
    assert np.array_equal(kept.images[4:8], [whole[y : y + 22, x : x + 22] for y in (0, 18) for x in (0, 18)])


def tile_labels(picture: Example) -> list[int]:
    """Of the four tiles of a picture of 40 px."""
    made = workshop(22, 22, Framing(tiling=GRID))
    return [made.label(picture, Region(x=x, y=y, width=22, height=22)) for y in (0, 18) for x in (0, 18)]


def test_a_tile_is_of_the_class_it_shows() -> None:
    """The largest box's that is at least half in it, good where no box reaches, unclear where only an edge of one does."""
    good, pit, scratch = range(3)
    corner = Box(x=2, y=2, width=6, height=6, label="pit")
    assert tile_labels(example("pit", corner)) == [pit, good, good, good]
    across = Box(x=2, y=30, width=24, height=4, label="scratch")  # 20 of its 24 px in one tile, 8 in the other
    assert tile_labels(example("pit", corner, across)) == [pit, good, scratch, UNCLEAR]
    both = example("pit", corner, Box(x=10, y=10, width=9, height=9, label="scratch"))
    assert tile_labels(both) == [scratch, UNCLEAR, UNCLEAR, UNCLEAR]
    assert tile_labels(example("good")) == [good] * 4
    assert tile_labels(example("pit")) == [UNCLEAR] * 4


def test_a_defect_of_a_class_too_rare_to_learn_is_never_shown_as_good() -> None:
    """Its box teaches no location, and no tile it reaches into by itself; a known box over it stands."""
    made = workshop(22, 22, Framing(tiling=GRID))
    rare = Box(x=2, y=2, width=6, height=6, label="blister")
    assert tile_labels(example("pit", rare)) == [UNCLEAR, 0, 0, 0]
    drawn = made.places(example("pit", rare, Box(x=6, y=6, width=4, height=4, label="pit")), frame(22, 22))
    assert (drawn[2:6, 2:6] == UNKNOWN_PLACE).all()
    assert (drawn[6:10, 6:10] == 1 + CLASSES.index("pit")).all()
    assert (drawn == GOOD_PLACE).sum() == 22 * 22 - 36 - 16 + 4


def test_places_move_with_the_tile() -> None:
    """A box's pixels, seen from the tile's corner."""
    made = workshop(22, 22, Framing(tiling=GRID))
    drawn = made.places(
        example("pit", Box(x=20, y=30, width=4, height=6, label="pit")), Region(x=18, y=18, width=22, height=22)
    )
    assert (drawn[12:18, 2:6] == 1 + CLASSES.index("pit")).all()
    assert (drawn == GOOD_PLACE).sum() == 22 * 22 - 24
