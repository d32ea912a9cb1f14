"""Looking before training: what augmentation would make of a product's pictures, or of a folder's."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspection.contracts import sha256_hex
from inspection.data.pictures import decode_bgr
from inspection.data.product import Product
from inspection.data.snapshot_record import Example, Split
from inspection.errors import PictureError, UsageError
from inspection.stages.try_out import material_of, product_of_images
from inspection.store.session import Store
from inspection.training.preview import chosen, sheet

log = logging.getLogger(__name__)


def sheet_of_product(store: Store, options: Mapping[str, Any], out: Path) -> int:
    """Write the sheet of a product's labelled pictures, or of a snapshot's; returns how many it shows. UsageError."""
    material = material_of(store, options)
    product = material.product
    examples = chosen(material.of(Split.TRAIN), product.classes)
    _write(product, examples, material.picture, out)
    return len(examples)


def sheet_of_images(images: Path, good: str, out: Path) -> int:
    """Write the sheet of a folder of pictures, with the plan a new product has; returns how many it shows. UsageError.

    Good pictures alone will do; of a picture that cannot be decoded the next of its class is shown.
    """
    product, found = product_of_images(images, good, good_alone=True)
    items = {sha256_hex(item.path.read_bytes()): item for item in found}
    examples = [
        Example(picture=d, label=i.label, part=i.part, group=i.group, split=Split.TRAIN, boxes=list(i.boxes))
        for d, i in items.items()
    ]
    some = chosen(examples, product.classes, lambda e: _decodable(items[e.picture].path))
    if not some:
        raise UsageError(f"no picture in {images} can be decoded")
    _write(product, some, lambda digest: items[digest].path.read_bytes(), out)
    return len(some)


def _decodable(path: Path) -> bool:
    """Whether it can be shown; said where not."""
    try:
        decode_bgr(path.read_bytes())
    except PictureError as error:
        log.warning("%s is left out: %s", path, error)
        return False
    return True


def _write(product: Product, examples: list[Example], pictures: Any, out: Path) -> None:
    if out.suffix.lower() not in {".png", ".jpg", ".pdf", ".svg"}:
        raise UsageError(f"{out} is no name of a picture: end it in .png, .jpg, .pdf or .svg")
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet(product, examples, pictures).savefig(out)
