"""Products and stations."""

import pytest

from inspection.contracts import Tiling
from inspection.data.products import (
    add_station,
    list_products,
    list_stations,
    load_product,
    retire_device,
    save_product,
)
from inspection.errors import UsageError
from inspection.store.session import Store
from inspection.store.tables import DeviceRow
from tests.data.conftest import PRODUCT


def test_a_product_comes_back_as_it_was_saved(store: Store) -> None:
    """Unknown fields of a newer program included; saving again replaces it."""
    changed = PRODUCT.model_copy(update={"classes": ["ok", "dent"], "made_up_later": 1})
    with store.begin() as session:
        save_product(session, changed)
    with store.begin(read_only=True) as session:
        kept = load_product(session, "lid")
        assert kept.canonical() == changed.canonical()
        assert [p.name for p in list_products(session)] == ["lid"]


def test_a_mistyped_product_is_met_with_the_nearest(store: Store) -> None:
    """The error helps to find the right name."""
    with pytest.raises(UsageError, match="did you mean lid"), store.begin() as session:
        load_product(session, "lip")


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ["ok", "ok"]},
        {"good_class": "fine"},
        {"classes": ["ok", "*"]},
        {"classes": ["ok", " "]},
        {"tiling": Tiling(rows=2, columns=2)},
    ],
)
def test_a_product_that_contradicts_itself_is_refused(store: Store, changes: dict[str, object]) -> None:
    """Classes are distinct, named, and include the good one; what training cannot do is not promised."""
    with pytest.raises(UsageError, match="'lid'"), store.begin() as session:
        save_product(session, PRODUCT.model_copy(update=changes))


def test_stations_belong_to_a_known_product(store: Store) -> None:
    """Adding one twice changes it; an unknown product is refused."""
    with store.begin() as session:
        add_station(session, "s1", "lid")
        add_station(session, "s1", "lid", mode="shadow", audit_share=0.5)
        assert [(s.name, s.mode, s.audit_share) for s in list_stations(session, "lid")] == [("s1", "shadow", 0.5)]
    with pytest.raises(UsageError), store.begin() as session:
        add_station(session, "s2", "box")


def test_a_retired_device_is_forgotten(store: Store) -> None:
    """Its token is void with it; a mistyped name helps."""
    with store.begin() as session:
        save_product(session, PRODUCT)
        add_station(session, "s1", "lid")
        session.flush()
        session.add(DeviceRow(name="cam-1", station="s1", token_sha256="0" * 64))
        session.flush()
        with pytest.raises(UsageError, match="did you mean cam-1"):
            retire_device(session, "cam-2")
        assert retire_device(session, "cam-1") == "s1"
        session.flush()
        assert session.get(DeviceRow, "cam-1") is None
