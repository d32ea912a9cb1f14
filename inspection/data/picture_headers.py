"""Headers of PNG, JPEG, BMP and TIFF files: size before decoding, completeness before trust. Plain bytes in, facts out.

OpenCV decodes a file cut short without complaint and allocates whatever a header asks for, so neither is left to it.
Sources: PNG (ISO/IEC 15948) chunks, JPEG (ITU-T T.81) markers, BMP headers as Windows documents them, TIFF 6.0.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from inspection.errors import PictureError

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
_JPEG_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # linear also in a file of nothing but 0xFF
_JPEG_FILL = re.compile(rb"\xff*")
_TIFF_FIELD = {1: "B", 3: "H", 4: "I"}
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_TIFF_PLACES = ((273, 279), (324, 325))  # offsets and byte counts of strips, of tiles
_TIFF_WANTED = {_TIFF_WIDTH, _TIFF_HEIGHT, *(tag for pair in _TIFF_PLACES for tag in pair)}
_TIFF_MOST_VALUES = 1_000_000
_JPEG_MOST_SEGMENTS = 100_000


@dataclass(frozen=True)
class Header:
    """Kind and size (pixels, before any EXIF rotation) as the file's header states them."""

    media_type: str
    width: int
    height: int


def read(data: bytes) -> Header:
    """Read the header. Raises PictureError ``not_a_picture``, ``truncated`` or ``cannot_decode`` (no sensible size)."""
    try:
        header = _read(data)
    except (struct.error, IndexError) as error:
        raise PictureError("the file ends inside its header", "truncated") from error
    if header.width <= 0 or header.height <= 0:
        raise PictureError(f"the header says {header.width} x {header.height} pixels", "cannot_decode")
    return header


def check_complete(data: bytes, header: Header) -> None:
    """Raises PictureError ``truncated`` when the file ends early, ``cannot_decode`` when a checksum is wrong."""
    try:
        _COMPLETE[header.media_type](data)
    except (struct.error, IndexError) as error:
        raise PictureError("the file ends before its picture does", "truncated") from error


def _read(data: bytes) -> Header:
    if data.startswith(_PNG):
        length, kind, width, height = struct.unpack_from(">I4sII", data, 8)
        if kind != b"IHDR" or length != 13:
            raise PictureError("the PNG file does not begin with its header", "cannot_decode")
        return Header("image/png", width, height)
    if data.startswith(b"\xff\xd8\xff"):
        return Header("image/jpeg", *_jpeg_size(data))
    if data.startswith(b"BM"):
        width, height = _bmp_size(data)
        return Header("image/bmp", width, abs(height))
    if data[:4] in (b"II*\0", b"MM\0*"):
        fields = _tiff_fields(data)
        return Header("image/tiff", _first(fields, _TIFF_WIDTH), _first(fields, _TIFF_HEIGHT))
    raise PictureError(f"it begins with {data[:8].hex()}: not a PNG, JPEG, BMP or TIFF file", "not_a_picture")


def _png_complete(data: bytes) -> None:
    at = len(_PNG)
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        (stated,) = struct.unpack_from(">I", data, at + 8 + length)
        if zlib.crc32(memoryview(data)[at + 4 : at + 8 + length]) != stated:
            raise PictureError(f"the checksum of the {kind!r} chunk at byte {at} is wrong", "cannot_decode")
        if kind == b"IEND":
            return
        at += 12 + length


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """(marker, offset of its content) from the start to the end marker; IndexError when the file ends early."""
    at = 2
    for _ in range(_JPEG_MOST_SEGMENTS):
        if data[at] != 0xFF:
            raise PictureError(f"there is no JPEG marker at byte {at}", "cannot_decode")
        at = _JPEG_FILL.match(data, at).end()  # type: ignore[union-attr]  # it matches anywhere
        marker, at = data[at], at + 1
        yield marker, at
        if marker == 0xD9:
            return
        if marker not in _JPEG_ALONE:
            at += struct.unpack_from(">H", data, at)[0]
        if marker == 0xDA:
            behind = _JPEG_AFTER_SCAN.search(data, at)
            if behind is None:
                raise PictureError("the JPEG file has no end marker: it was cut short", "truncated")
            at = behind.start()
    raise PictureError(f"the JPEG file has more than {_JPEG_MOST_SEGMENTS} segments", "cannot_decode")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    for marker, at in _jpeg_segments(data):
        if marker in _JPEG_SOF:
            height, width = struct.unpack_from(">HH", data, at + 3)
            return width, height
    raise PictureError("the JPEG file has no frame header", "cannot_decode")


def _jpeg_complete(data: bytes) -> None:
    if 0xDA not in {marker for marker, _ in _jpeg_segments(data)}:  # to the end: it must be complete
        raise PictureError("the JPEG file holds no picture data", "truncated")


def _bmp_size(data: bytes) -> tuple[int, int]:
    (header_length,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_length == 12 else "<ii", data, 18)
    return width, height


def _bmp_complete(data: bytes) -> None:
    (start,) = struct.unpack_from("<I", data, 10)
    (header_length,) = struct.unpack_from("<I", data, 14)
    compression = 0
    if header_length == 12:
        (bits,) = struct.unpack_from("<H", data, 24)
    else:
        bits, compression = struct.unpack_from("<HI", data, 28)
    width, height = _bmp_size(data)
    if compression in (0, 3) and len(data) < start + (width * bits + 31) // 32 * 4 * abs(height):
        raise PictureError("the BMP file is shorter than its rows", "truncated")


def _tiff_fields(data: bytes) -> dict[int, list[int]]:
    """The wanted integer fields of the first directory: tag -> values."""
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    fields: dict[int, list[int]] = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
        if tag not in _TIFF_WANTED or kind not in _TIFF_FIELD:
            continue
        if tag in fields:
            raise PictureError(f"the TIFF file has field {tag} twice", "cannot_decode")
        if number > _TIFF_MOST_VALUES:
            raise PictureError(f"the TIFF file's field {tag} claims {number} values", "cannot_decode")
        form = f"{order}{number}{_TIFF_FIELD[kind]}"
        inline = struct.calcsize(form) <= 4
        where = entry + 8 if inline else struct.unpack_from(order + "I", data, entry + 8)[0]
        fields[tag] = list(struct.unpack_from(form, data, where))
    return fields


def _first(fields: dict[int, list[int]], tag: int) -> int:
    return fields.get(tag, [0])[0]


def _tiff_complete(data: bytes) -> None:
    fields = _tiff_fields(data)
    ends = [
        offset + length
        for offsets, lengths in _TIFF_PLACES
        for offset, length in zip(fields.get(offsets, []), fields.get(lengths, []), strict=False)
    ]
    if not ends or max(ends) > len(data):
        raise PictureError("the TIFF file is shorter than its strips", "truncated")


_COMPLETE = {
    "image/png": _png_complete,
    "image/jpeg": _jpeg_complete,
    "image/bmp": _bmp_complete,
    "image/tiff": _tiff_complete,
}
