"""Bring a folder of labelled pictures into the store, creating its product the first time."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from inspection.contracts import Limits
from inspection.data.importers import ImportReport, classes_of, import_items, other_endings, read_directory
from inspection.data.product import Product
from inspection.data.products import list_products, load_product, save_product
from inspection.errors import UsageError
from inspection.settings import Settings
from inspection.store.session import Store

FIRST_LIMITS = Limits(escape_rate=0.01, overkill_rate=0.05)


@dataclass(frozen=True)
class BroughtIn:
    """What an import did. ``other_endings``: files in the folders that are no pictures by their ending, by ending."""

    product: str
    report: ImportReport
    other_endings: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        return {"product": self.product, **asdict(self.report), "other_endings": self.other_endings}

    def in_words(self) -> str:
        """For people; refused pictures are named, and what was not looked at is counted."""
        found = self.report
        lines = [f"{self.product}: {found.new} new pictures, {found.known} known, {found.labels} new labels"]
        lines += [f"  refused ({code}): {name}" for name, code in found.refused]
        lines += [f"  group on several sides: {group}" for group in found.mixed_groups]
        if others := sum(self.other_endings.values()):
            endings = ", ".join(f"{ending or 'none'} {count}" for ending, count in self.other_endings.items())
            files = "file with another ending was" if others == 1 else "files with other endings were"
            lines.append(f"  {others} {files} not looked at: {endings}")
        return "\n".join(lines)


def import_directory(
    settings: Settings,
    store: Store,
    directory: Path,
    product: str,
    good: str,
    progress: Callable[[int, int], None] | None = None,
) -> BroughtIn:
    """Import ``directory``; a product nobody defined yet is made of its classes, with careful limits.

    Raises UsageError when the product has another good class, or lacks one of the directory's classes.
    """
    items = read_directory(directory, good)
    _define(store, product, classes_of(items, good))
    report = import_items(
        store,
        product,
        items,
        max_bytes=settings.max_picture_bytes,
        max_pixels=settings.max_picture_pixels,
        progress=progress,
    )
    return BroughtIn(product, report, other_endings(directory))


def _define(store: Store, name: str, classes: list[str]) -> None:
    with store.begin() as session:
        if name not in {known.name for known in list_products(session)}:
            save_product(session, Product(name=name, good_class=classes[0], classes=classes, limits=FIRST_LIMITS))
            return
        known = load_product(session, name)
    if known.good_class != classes[0]:
        raise UsageError(f"the good class of {name!r} is {known.good_class!r}, not {classes[0]!r}: give --good accordingly")
    if lacking := sorted(set(classes) - set(known.classes)):
        raise UsageError(
            f"product {name!r} does not know {', '.join(lacking)}: add them with `inspection product set`, or rename them"
        )
