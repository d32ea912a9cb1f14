"""Looking before training: what augmentation would make of a product's pictures, or of a folder's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspection.contracts import sha256_hex
from inspection.data.product import Product
from inspection.data.snapshot_record import Example, Split
from inspection.errors import UsageError
from inspection.stages.try_out import material_of, product_of_images
from inspection.store.session import Store
from inspection.training.preview import chosen, sheet


def sheet_of_product(store: Store, options: Mapping[str, Any], out: Path) -> int:
    """Write the sheet of a product's labelled pictures, or of a snapshot's; returns how many it shows. UsageError."""
    material = material_of(store, options)
    product = material.product
    examples = chosen(material.of(Split.TRAIN), product.classes)
    _write(product, examples, material.picture, out)
    return len(examples)


def sheet_of_images(images: Path, good: str | None, out: Path) -> int:
    """Write the sheet of a folder of pictures, with the plan a new product has; returns how many it shows. UsageError."""
    product, found = product_of_images(images, good)
    items = {sha256_hex(item.path.read_bytes()): item for item in found}
    examples = [
        Example(picture=d, label=i.label, part=i.part, group=i.group, split=Split.TRAIN, boxes=list(i.boxes))
        for d, i in items.items()
    ]
    some = chosen(examples, product.classes)
    _write(product, some, lambda digest: items[digest].path.read_bytes(), out)
    return len(some)


def _write(product: Product, examples: list[Example], pictures: Any, out: Path) -> None:
    if out.suffix.lower() not in {".png", ".jpg", ".pdf", ".svg"}:
        raise UsageError(f"{out} is no name of a picture: end it in .png, .jpg, .pdf or .svg")
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet(product, examples, pictures).savefig(out)
