"""What several stages read: product, snapshot, pictures, and the frames a model is shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inspection.contracts import tile_count
from inspection.data.product import Product
from inspection.data.products import load_product
from inspection.data.snapshot_record import Example, Snapshot, Split
from inspection.data.snapshots import load_snapshot
from inspection.errors import UsageError
from inspection.store.session import Store
from inspection.training.cache import decode_tiles

Say = Callable[[str], None]
"""Where a stage tells what it is doing, in words."""


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

    def picture(self, sha256: str) -> bytes:
        """A picture's file bytes; MissingPictureError when they are gone."""
        return self.store.blobs.get(f"pictures/{sha256}")

    def frames(self, examples: Sequence[Example]) -> list[NDArray[np.uint8]]:
        """The uint8 ``[H, W, 3]`` BGR frames a model is shown: region of interest, each of its tiles after the other."""
        return [frame for e in examples for _, frame in decode_tiles(self.picture(e.picture), self.product)]

    @property
    def tiles(self) -> int:
        """How many of them each picture has."""
        return tile_count(self.product)

    def of(self, split: Split) -> list[Example]:
        """Examples of one side."""
        return self.snapshot.of(split)
