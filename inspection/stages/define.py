"""What a product's definition is asked before it is kept: what contradicts itself is refused, what only points at
something that is not there (yet) is told.

Unknown fields are kept wherever a document is read, since a newer program may have written them. Here a person wrote it,
and an unknown field is a slip, unless the kept definition has it already.
"""

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy.orm import Session

from inspection.data.product import Product, StudentPlan, TrainPlan, unknown_fields
from inspection.data.products import list_products, list_stations, nearest, save_product
from inspection.errors import UsageError
from inspection.store.session import Store


@dataclass(frozen=True)
class Defined:
    """A product as it is kept now, and what its definition names that is not there."""

    product: Product
    warnings: list[str] = field(default_factory=list)

    def in_words(self) -> str:
        """One line for people."""
        classes = len(self.product.classes)
        return f"product {self.product.name}: {classes} classes, good class {self.product.good_class}"


def define_product(store: Store, document: bytes, source: str) -> Defined:
    """Keep the definition in ``document`` (JSON; ``source`` says in errors where it is from) in place of an earlier one.

    Raises UsageError when it is none, names fields or backbones nobody knows, or contradicts itself.
    """
    try:
        product = Product.parse(document)
    except ValidationError as error:
        raise UsageError(f"{source} does not define a product: {error}") from error
    with store.begin(read_only=True) as session:
        before = next((known for known in list_products(session) if known.name == product.name), None)
    _check_fields(product, before)
    unchecked = _check_backbones(product, before)
    with store.begin() as session:
        save_product(session, product)
        return Defined(product, [*unchecked, *_missing_stations(session, product), *_missing_weights(product)])


def _check_fields(product: Product, before: Product | None) -> None:
    kept = {name for name, _ in unknown_fields(before)} if before else set()
    strange = [f"{name} ({_hint(name, known)})" for name, known in unknown_fields(product) if name not in kept]
    if strange:
        raise UsageError(f"product {product.name!r} has no field {'; '.join(strange)}: correct or remove it")


def _hint(name: str, known: list[str]) -> str:
    return nearest(name.rpartition(".")[2], known)


def _check_backbones(product: Product, before: Product | None) -> list[str]:
    """Only a name that is neither usual nor kept already is looked up: timm takes seconds to load, and torch with it."""
    usual = {TrainPlan().backbone, StudentPlan().backbone}
    usual |= {before.train.backbone, before.student.backbone} if before else set()
    new = [name for name in (product.train.backbone, product.student.backbone) if name not in usual]
    if not new:
        return []
    try:
        from inspection.models.catalogue import parse_backbone
    except ModuleNotFoundError as error:
        return [f"{' and '.join(new)} could not be looked up: {error.name} is not installed here"]
    for name in new:
        parse_backbone(name)
    return []


def _missing_stations(session: Session, product: Product) -> list[str]:
    there = {station.name for station in list_stations(session, product.name)}
    return [
        f"rollout.first_group names {name}, which is no station of {product.name} yet, and no rollout starts without it: "
        f"`inspection product add-station {name} --product {product.name}` adds it; or correct the name"
        for name in product.rollout.first_group
        if name not in there
    ]


def _missing_weights(product: Product) -> list[str]:
    found = []
    for place, named in (("train", product.train.pretrained), ("student", product.student.pretrained)):
        if named in {"hub", "none"}:
            continue
        if not Path(named).is_absolute():
            found.append(f"{place}.pretrained {named!r} is no whole path, and flows run in another folder: write it out")
        elif not Path(named).is_file():
            found.append(f'{place}.pretrained: there is no file {named} on this machine; or give "hub" or "none"')
    return found
