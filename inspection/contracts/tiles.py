"""Which rectangles of a frame a model is shown: a grid over the region of interest. Pure; device and training share it."""

from dataclasses import dataclass
from typing import Protocol

from inspection.contracts.recipe import Region, Tiling


class Framed(Protocol):
    """What says so: a `Recipe`, or the product it was made for."""

    @property
    def region(self) -> Region | None:
        """The region of interest; None: the whole frame."""

    @property
    def tiling(self) -> Tiling:
        """The grid over it."""


_ONE_TILE = Tiling()


@dataclass(frozen=True)
class Framing:
    """A `Framed` of its own; by default the whole frame is one tile."""

    region: Region | None = None
    tiling: Tiling = _ONE_TILE


WHOLE = Framing()


def tile_count(framed: Framed) -> int:
    """How many tiles each frame has."""
    return framed.tiling.rows * framed.tiling.columns


def _starts(length: int, count: int, overlap: int) -> tuple[int, list[int]]:
    """Size and starts of ``count`` equal spans that cover ``length`` and overlap by at least ``overlap``."""
    size = min(length, -(-(length + (count - 1) * overlap) // count))
    if count == 1:
        return size, [0]
    return size, [round(i * (length - size) / (count - 1)) for i in range(count)]


def tiles_of(height: int, width: int, framed: Framed) -> list[Region]:
    """The rectangles that are inspected, all of one size, in pixels of the frame, row by row.

    ValueError when the region of interest does not lie in the frame: a recipe for another camera must not pass.
    """
    area = framed.region or Region(x=0, y=0, width=width, height=height)
    if area.x + area.width > width or area.y + area.height > height:
        raise ValueError(
            f"the region of interest, {area.width} x {area.height} at ({area.x}, {area.y}), does not lie in the frame of "
            f"{width} x {height}; wrong region or camera"
        )
    tile_height, ys = _starts(area.height, framed.tiling.rows, framed.tiling.overlap)
    tile_width, xs = _starts(area.width, framed.tiling.columns, framed.tiling.overlap)
    return [Region(x=area.x + x, y=area.y + y, width=tile_width, height=tile_height) for y in ys for x in xs]
