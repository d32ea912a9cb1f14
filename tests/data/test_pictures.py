"""What counts as a picture, and how every kind of picture is decoded."""

import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.data.pictures import check_picture, decode_bgr, phash
from inspection.errors import PictureError
from tests.data.conftest import LIMITS, encode, texture

SUFFIXES = [".png", ".jpg", ".bmp", ".tiff"]
OUTCOMES = {
    "not_a_picture",
    "too_large",
    "too_many_pixels",
    "truncated",
    "cannot_decode",
    "empty",
    "image/jpeg",
    "image/bmp",
}
PICTURES = {suffix: encode(texture(1), suffix) for suffix in SUFFIXES}


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bomb(width: int, height: int) -> bytes:
    """A PNG that is small on disk and claims any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 10_000_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def code_of(data: bytes, **limits: int) -> str:
    with pytest.raises(PictureError) as caught:
        check_picture(data, **{**LIMITS, **limits})
    return caught.value.code


def outcome(data: bytes) -> str:
    try:
        return check_picture(data, **LIMITS).media_type
    except PictureError as error:
        return error.code


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_four_kinds_are_accepted_with_their_size(suffix: str) -> None:
    """PNG, JPEG, BMP and TIFF are pictures."""
    info = check_picture(encode(texture(1)[:50], suffix), **LIMITS)
    assert (info.width, info.height, info.media_type) == (96, 50, f"image/{'jpeg' if suffix == '.jpg' else suffix[1:]}")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 0.99])
def test_a_file_cut_short_is_refused(suffix: str, share: float) -> None:
    """Wherever a transfer broke off, the rest is not taken for a picture."""
    data = PICTURES[suffix]
    assert code_of(data[: int(len(data) * share)]) in {"truncated", "not_a_picture", "cannot_decode"}


def test_a_jpeg_without_its_last_bytes_is_truncated() -> None:
    """OpenCV would decode it and fill the rest with gray."""
    assert code_of(PICTURES[".jpg"][:-2]) == "truncated"


def test_a_flipped_byte_in_a_png_is_noticed() -> None:
    """The checksums that PNG carries are looked at."""
    data = bytearray(PICTURES[".png"])
    data[len(data) // 2] ^= 1
    assert code_of(bytes(data)) == "cannot_decode"


@pytest.mark.parametrize("size", [(60_000, 60_000), (2_000_000_000, 1), (100_000, 11)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    """Three gigapixels in a few kilobytes cost next to no memory."""
    bomb = png_bomb(*size)
    tracemalloc.start()
    code = code_of(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (code, peak < 1_000_000) == ("too_many_pixels", True)


def test_bytes_and_pixels_have_separate_limits() -> None:
    """Each limit has its own code."""
    data = PICTURES[".bmp"]
    assert code_of(data, max_bytes=len(data) - 1) == "too_large"
    assert code_of(data, max_pixels=96 * 96 - 1) == "too_many_pixels"
    assert check_picture(data, max_bytes=len(data), max_pixels=96 * 96).width == 96


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty"),
        (b"GIF89a" + bytes(100), "not_a_picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_a_picture"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"\xff\xd8\xff\xd9", "cannot_decode"),
        (b"BM" + bytes(60), "cannot_decode"),
        (b"II*\0\xff\xff\xff\x7f", "truncated"),
        (png_bomb(0, 5), "cannot_decode"),
        (b"\xff\xd8" + b"\xff\x01" * 400_000, "cannot_decode"),
        (b"\xff\xd8\xff\xda\x00\x02" + b"\xff" * 900_000 + b"\x00", "truncated"),
        (b"II*\0\x08\0\0\0\x02\0" + struct.pack("<HHII", 273, 4, 1, 0) * 2, "cannot_decode"),
    ],
)
def test_what_is_no_picture_is_refused_with_its_reason(data: bytes, code: str) -> None:
    """Empty files, other formats and bare headers are told apart; files made to keep a parser busy do not."""
    begun = time.process_time()
    assert code_of(data) == code
    assert time.process_time() - begun < 5


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*"]))
def test_no_bytes_make_it_fail_in_another_way(tail: bytes, head: bytes) -> None:
    """Whatever arrives, the answer is a picture or a PictureError."""
    assert outcome(head + tail) in OUTCOMES


@given(st.integers(0, len(PICTURES[".jpg"]) - 1), st.integers(1, 255))
def test_a_flipped_byte_in_a_jpeg_never_breaks_the_check(where: int, flip: int) -> None:
    """JPEG has no checksum: a damaged file is refused or decodes to a picture, nothing else."""
    data = bytearray(PICTURES[".jpg"])
    data[where] ^= flip
    assert outcome(bytes(data)) in OUTCOMES


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_become_the_upper_byte(suffix: str, channels: int) -> None:
    """The scale of a picture is never guessed from its content."""
    deep = np.random.default_rng(0).integers(0, 65536, (40, 30, channels)).astype(np.uint16)
    expected = np.broadcast_to((deep >> 8).astype(np.uint8), (40, 30, 3))
    assert np.array_equal(decode_bgr(encode(deep, suffix)), expected)


def test_gray_is_repeated_and_alpha_dropped() -> None:
    """Every picture is three channels of BGR."""
    gray, bgr = texture(1)[..., 0], texture(2)
    assert np.array_equal(decode_bgr(encode(gray)), np.repeat(gray[..., None], 3, axis=2))
    transparent = np.dstack([bgr, np.zeros(bgr.shape[:2], np.uint8)])
    assert np.array_equal(decode_bgr(encode(transparent)), bgr)


def test_phash_is_64_bits_that_survive_a_change_of_format() -> None:
    """Sixteen hexadecimal digits, nearly equal for a JPEG copy and far for another picture."""
    first, copy, other = (int(phash(i), 16) for i in (texture(1), decode_bgr(encode(texture(1), ".jpg")), texture(2)))
    assert len(phash(texture(1))) == 16
    assert (first ^ copy).bit_count() <= 6 < (first ^ other).bit_count()


@pytest.mark.real_data
def test_real_pictures_are_accepted(real_data: Path) -> None:
    """JPEG and PNG files of cameras and scanners pass, with the size OpenCV finds."""
    for folder in ("xsdd", "elpv", "deeppcb_boards"):
        files = sorted(p for p in (real_data / folder).rglob("*") if p.suffix in {".png", ".jpg"})[::80]
        assert files
        for file in files:
            info = check_picture(file.read_bytes(), max_bytes=10_000_000, max_pixels=10_000_000)
            assert (info.height, info.width) == cv2.imread(str(file)).shape[:2]
