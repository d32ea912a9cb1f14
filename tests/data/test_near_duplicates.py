"""Copies are found, look-alikes are not."""

import csv
import random
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspection.data.descriptors import describe
from inspection.data.near_duplicates import Copy, Described, equal_pixels, find_copies
from inspection.data.pictures import decode_bgr
from tests.data.conftest import Image, encode, texture

CHANGES: dict[str, Callable[[Image], Image]] = {
    "jpeg 75": lambda i: decode_bgr(encode(i, ".jpg", 75)),
    "jpeg 50": lambda i: decode_bgr(encode(i, ".jpg", 50)),
    "half size": lambda i: np.asarray(cv2.resize(i, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8),
    "larger": lambda i: np.asarray(cv2.resize(i, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC), np.uint8),
    "brighter": lambda i: np.clip(i.astype(int) + 25, 0, 255).astype(np.uint8),
    "darker": lambda i: (i * 0.7).astype(np.uint8),
    "same pixels": lambda i: i.copy(),
}


def described(images: dict[str, Image], groups: dict[str, str] | None = None) -> list[Described]:
    return [Described(name, (groups or {}).get(name, name), describe(image)) for name, image in images.items()]


def pairs(copies: list[Copy]) -> list[tuple[str, str]]:
    return [(copy.first, copy.second) for copy in copies]


def fixture_parts(count: int, defects: bool = True) -> dict[str, Image]:
    """Good parts on a fixture: one layout, small shifts, uneven light, sensor noise, and a spot on some."""
    rng = np.random.default_rng(7)
    layout = texture(1, 256).astype(np.float32)
    _, across = np.mgrid[-1:1:256j, -1:1:256j]
    parts = {}
    for number in range(count):
        shift = np.asarray([[1, 0, rng.normal(0, 0.5)], [0, 1, rng.normal(0, 0.5)]], np.float32)
        moved = cv2.warpAffine(layout, shift, (256, 256), borderMode=cv2.BORDER_REPLICATE)
        lit = moved * (1 + rng.normal(0, 0.03) + rng.normal(0, 0.03) * across)[..., None]
        if defects and number % 5 == 0:
            cv2.circle(lit, tuple(int(v) for v in rng.integers(30, 220, 2)), 5, (0, 0, 0), -1)
        parts[f"part{number:03}"] = np.clip(lit + rng.normal(0, 3, lit.shape), 0, 255).astype(np.uint8)
    return parts


@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_is_found_among_pictures_of_other_parts(change: str) -> None:
    """Re-encoded, rescaled, brighter or darker: one pair, and no other."""
    images = {f"{number:02}": texture(number) for number in range(40)}
    images["copy"] = CHANGES[change](images["07"])
    assert pairs(find_copies(described(images))) == [("07", "copy")]


@pytest.mark.parametrize("axis", [0, 1])
def test_a_copy_that_is_shifted_by_a_pixel_of_256_is_found(axis: int) -> None:
    """A second frame of the same part, for example; larger shifts are what parts on a fixture differ by."""
    images = {f"{number:02}": texture(number, 256) for number in range(40)}
    images["shifted"] = np.roll(images["07"], 1, axis=axis)
    assert pairs(find_copies(described(images))) == [("07", "shifted")]


def test_pictures_of_equal_pixels_are_paired_whatever_their_groups() -> None:
    """Three files of one picture make three pairs; a re-encoded one makes none."""
    images = {"a": texture(1), "b": texture(1), "c": texture(1), "d": CHANGES["jpeg 75"](texture(1)), "e": texture(2)}
    assert equal_pixels(described(images, dict.fromkeys("abcde", "g"))) == [("a", "b"), ("a", "c"), ("b", "c")]


def test_good_parts_on_a_fixture_are_not_copies_of_each_other() -> None:
    """A product whose parts all look alike keeps its pictures: under one in a thousand pairs is suspected."""
    parts = fixture_parts(150)
    found = find_copies(described(parts))
    assert len(found) < 150 * 149 / 2 / 1000


def test_a_re_encoded_fixture_part_is_still_found() -> None:
    """Even there a copy stands out."""
    parts = fixture_parts(150)
    parts["zcopy"] = decode_bgr(encode(parts["part007"], ".jpg", 90))
    assert ("part007", "zcopy") in pairs(find_copies(described(parts)))


def test_the_same_background_with_a_defect_is_no_copy() -> None:
    """What tells the pictures apart is a spot, and it is enough."""
    images = {f"{number:02}": texture(number) for number in range(40)}
    spotted = images["07"].copy()
    cv2.circle(spotted, (48, 48), 5, (0, 0, 0), -1)
    images["spotted"] = spotted
    assert find_copies(described(images)) == []


def test_pictures_of_one_group_are_not_compared() -> None:
    """A group is on one side anyway."""
    images = {f"{number:02}": texture(number) for number in range(20)} | {"copy": texture(7)}
    assert find_copies(described(images, {"07": "g", "copy": "g"})) == []


def test_two_pictures_alone_are_copies_only_with_equal_pixels() -> None:
    """There is no population to compare with: formats may differ, pixels may not."""
    assert find_copies(described({"a": texture(1), "b": texture(2)})) == []
    same = {"a": texture(1), "b": decode_bgr(encode(texture(1), ".bmp"))}
    assert find_copies(described(same)) == [Copy("a", "b", 1.0)]


def test_blank_pictures_are_compared_by_their_pixels() -> None:
    """A picture without contrast says nothing; only equal pixels count."""
    blank = {f"{level}": np.full((64, 64, 3), level, np.uint8) for level in range(100, 120)}
    blank["again"] = blank["110"].copy()
    assert pairs(find_copies(described(blank))) == [("110", "again")]


def test_the_order_of_the_pictures_does_not_matter() -> None:
    """The answer is a function of the set."""
    images = {f"{number:02}": texture(number) for number in range(30)} | {"copy": CHANGES["jpeg 75"](texture(3))}
    everything = described(images)
    shuffled = random.Random(0).sample(everything, len(everything))
    assert find_copies(shuffled) == find_copies(everything) != []


def test_nothing_has_no_copies() -> None:
    """An empty set is answered, not refused."""
    assert find_copies([]) == []


@pytest.mark.real_data
def test_the_nine_known_duplicates_of_a_real_set_are_found(real_data: Path) -> None:
    """X-SDD holds nine pairs of equal pictures, and no others are suspected."""
    with (real_data / "xsdd" / "labels.csv").open() as lines:
        paths = [row["path"] for row in csv.DictReader(lines)]
    images = {path: decode_bgr((real_data / "xsdd" / path).read_bytes()) for path in paths}
    found = find_copies(described(images))
    assert (len(found), {copy.similarity for copy in found}) == (9, {1.0})
