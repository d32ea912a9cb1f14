"""What several stages read: product, snapshot, pictures, and the frames a model is shown."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self, overload

import numpy as np
from numpy.typing import NDArray

from inspection.contracts import tile_count
from inspection.data.product import Product
from inspection.data.products import load_product
from inspection.data.snapshot_record import Example, Snapshot, Split
from inspection.data.snapshots import load_snapshot
from inspection.errors import UsageError
from inspection.stages.candidate import Candidate
from inspection.store.session import Store
from inspection.training.cache import decode_example

Say = Callable[[str], None]
"""Where a stage tells what it is doing, in words."""


class Frames(Sequence[NDArray[np.uint8]]):
    """The uint8 ``[H, W, 3]`` BGR frames a model is shown of some examples: of the region of interest, each tile after the
    other. Decoded when they are asked for, a picture at a time: those of a large camera do not fit into memory."""

    def __init__(
        self,
        examples: Sequence[Example],
        picture: Callable[[str], bytes],
        product: Product,
        places: Sequence[int] | None = None,
    ) -> None:
        self._examples, self._picture, self._product = examples, picture, product
        self._tiles = tile_count(product)
        self._places = range(len(examples) * self._tiles) if places is None else places
        self._open: tuple[int, list[NDArray[np.uint8]]] = (-1, [])

    def sample(self, count: int, seed: int) -> Self:
        """``count`` of them, or all where there are fewer, by a seed."""
        chosen = random.Random(seed).sample(self._places, min(count, len(self)))  # noqa: S311 - a sample, not a secret
        return type(self)(self._examples, self._picture, self._product, chosen)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, place: slice) -> list[NDArray[np.uint8]]: ...
    def __getitem__(self, place: int | slice) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        number, tile = divmod(self._places[place], self._tiles)
        if number != self._open[0]:
            example = self._examples[number]
            tiles = decode_example(self._picture(example.picture), example, self._product)
            self._open = (number, [frame for _, frame in tiles])
        return self._open[1][tile]


@dataclass(frozen=True)
class Material:
    """A product and one snapshot of its labels."""

    product: Product
    snapshot: Snapshot
    store: Store

    @classmethod
    def load(cls, store: Store, product: str, snapshot: str) -> "Material":
        """Read both. Raises UsageError."""
        with store.begin(read_only=True) as session:
            definition = load_product(session, product)
        found = load_snapshot(store, snapshot)
        if found.product != product:
            raise UsageError(f"snapshot {snapshot[:12]} is one of product {found.product!r}, not of {product!r}")
        return cls(definition, found, store)

    @classmethod
    def behind(cls, store: Store, candidate: Candidate) -> "Material":
        """A candidate's snapshot, and its product as it is today but for what its teacher was trained with: classes,
        region, tiling and training plan. Raises UsageError."""
        found, then = cls.load(store, candidate.product, candidate.snapshot), candidate.definition
        if then is None:
            return found
        kept = {name: getattr(then, name) for name in ("good_class", "classes", "region", "tiling", "train")}
        return replace(found, product=found.product.model_copy(update=kept))

    def picture(self, sha256: str) -> bytes:
        """A picture's file bytes; MissingPictureError when they are gone."""
        return self.store.blobs.get(f"pictures/{sha256}")

    def frames(self, examples: Sequence[Example]) -> Frames:
        """What a model is shown of the examples."""
        return Frames(examples, self.picture, self.product)

    def check_sides(self) -> None:
        """UsageError where a side has no picture: it would be found after hours of training."""
        if empty := [side.value for side in Split if not self.of(side)]:
            raise UsageError(
                f"nothing of {self.product.name!r} is on the side{'s' if len(empty) > 1 else ''} {', '.join(empty)}: label "
                "more parts, or import some without a split of their own"
            )

    @property
    def tiles(self) -> int:
        """How many of them each picture has."""
        return tile_count(self.product)

    def of(self, split: Split) -> list[Example]:
        """Examples of one side."""
        return self.snapshot.of(split)
