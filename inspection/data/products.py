"""Products and stations in the store. A product's record is replaced as a whole; what it was trained on names it."""

import difflib
from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from inspection.contracts import ANY_DEFECT, Mode
from inspection.data.cron import faults_of
from inspection.data.product import Product
from inspection.errors import UsageError
from inspection.store.tables import DeviceRow, ProductRow, StationRow, utc_now

FIRST_AUDIT_SHARE = 0.02


def save_product(session: Session, product: Product) -> None:
    """Keep a product's definition, in place of an earlier one. Raises UsageError when it contradicts itself."""
    _check(product)
    row = session.get(ProductRow, product.name)
    body = product.model_dump(mode="json")
    if row is None:
        session.add(ProductRow(name=product.name, body=body))
    else:
        row.body, row.updated_at = body, utc_now()
    session.flush()


def load_product(session: Session, name: str) -> Product:
    """The product of that name. Raises UsageError with the nearest names."""
    row = session.get(ProductRow, name)
    if row is None:
        known = session.scalars(select(ProductRow.name).order_by(ProductRow.name)).all()
        raise UsageError(f"there is no product {name!r}; {nearest(name, known)}")
    return Product.model_validate(row.body)


def list_products(session: Session) -> list[Product]:
    """All products, by name."""
    return [Product.model_validate(row.body) for row in session.scalars(select(ProductRow).order_by(ProductRow.name))]


def add_station(
    session: Session, name: str, product: str, *, mode: str | None = None, audit_share: float | None = None
) -> StationRow:
    """Add a station, or change of an existing one what is given: product, mode, audit share (of OK pictures uploaded).

    A new station collects, and uploads 2 % of what passes, until somebody says otherwise. Raises UsageError when the
    product is unknown.
    """
    load_product(session, product)
    row = session.get(StationRow, name)
    if row is None:
        row = StationRow(name=name, mode=Mode.COLLECT.value, audit_share=FIRST_AUDIT_SHARE)
        session.add(row)
    row.product = product
    row.mode = row.mode if mode is None else mode
    row.audit_share = row.audit_share if audit_share is None else audit_share
    session.flush()
    return row


def retire_device(session: Session, name: str) -> str:
    """Forget a device that is no longer there, and its token; what it judged stays. Returns its station.

    Until then every rollout through the station waits for it. Raises UsageError when it is unknown.
    """
    row = session.get(DeviceRow, name)
    if row is None:
        known = session.scalars(select(DeviceRow.name).order_by(DeviceRow.name)).all()
        raise UsageError(f"there is no device {name!r}; {nearest(name, known)}")
    session.delete(row)
    return row.station


def list_stations(session: Session, product: str) -> list[StationRow]:
    """The stations of a product, by name."""
    return list(session.scalars(select(StationRow).where(StationRow.product == product).order_by(StationRow.name)))


def nearest(name: str, known: Iterable[str]) -> str:
    """Half a sentence that helps with a mistyped name: the nearest of ``known``, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=3)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(names)}" if names else "none is known yet"


def _check(product: Product) -> None:
    classes = product.classes
    wrong = None
    if len(set(classes)) != len(classes):
        wrong = f"a class is named twice in {classes}"
    elif product.good_class not in classes:
        wrong = f"the good class {product.good_class!r} is not one of {classes}"
    elif ANY_DEFECT in classes or not all(name.strip() for name in classes):
        wrong = f"{ANY_DEFECT!r} and the empty name cannot be classes: {classes}"
    elif faults := faults_of(product.schedule):
        wrong = "; ".join(faults)
    if wrong:
        raise UsageError(f"product {product.name!r}: {wrong}")
