"""Products and stations."""

import pytest
from pydantic import ValidationError

from inspection.data.product import Product, SchedulePlan, StudentPlan, TrainPlan, unknown_fields
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
from inspection.store.tables import DeviceRow, ProductRow
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
        {"schedule": SchedulePlan(retrain="every day")},
    ],
)
def test_a_product_that_contradicts_itself_is_refused(store: Store, changes: dict[str, object]) -> None:
    """Classes are distinct, named, and include the good one."""
    with pytest.raises(UsageError, match="'lid'"), store.begin() as session:
        save_product(session, PRODUCT.model_copy(update=changes))


def test_a_seed_that_no_generator_takes_is_refused() -> None:
    """When it is written down, not in the midst of a training."""
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        TrainPlan(seed=-1)


def test_a_bad_schedule_that_is_kept_already_can_still_be_read(store: Store) -> None:
    """It is refused when it is saved; an older row with it must not stop the other products from being served."""
    bad = PRODUCT.model_copy(update={"name": "old", "schedule": SchedulePlan(watch="every now and then")})
    with store.begin() as session:
        session.add(ProductRow(name="old", body=bad.model_dump(mode="json")))
    with store.begin(read_only=True) as session:
        assert [product.name for product in list_products(session)] == ["lid", "old"]


def test_unknown_fields_are_named_at_any_depth(store: Store) -> None:
    """With the place they are at and what is known there; a document without any names none."""
    body = PRODUCT.model_dump(mode="json")
    body["shedule"] = {"watch": "* * * * *"}
    body["train"]["augment"]["flip"] = True
    found = dict(unknown_fields(Product.model_validate(body)))
    assert set(found) == {"shedule", "train.augment.flip"}
    assert "schedule" in found["shedule"]
    assert "flip_vertical" in found["train.augment.flip"]
    assert list(unknown_fields(PRODUCT)) == []


def test_a_new_station_collects_and_a_known_one_keeps_what_is_not_given(store: Store) -> None:
    """Adding it again, for its enrolment command say, takes no line out of its mode."""
    with store.begin() as session:
        new = add_station(session, "s1", "lid")
        assert (new.mode, new.audit_share) == ("collect", 0.02)
        add_station(session, "s1", "lid", mode="judge", audit_share=0.0)
        again = add_station(session, "s1", "lid")
        assert (again.mode, again.audit_share) == ("judge", 0.0)
        assert add_station(session, "s1", "lid", audit_share=0.5).mode == "judge"


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


@pytest.mark.parametrize(
    ("body", "source"),
    [
        ({}, "hub"),
        ({"student": {"epochs": 3}}, "hub"),
        ({"student": StudentPlan(epochs=3)}, "hub"),
        ({"student": {"pretrained": "none"}}, "none"),
        ({"student": StudentPlan(pretrained="none")}, "none"),
        ({"train": {"pretrained": "none"}}, "none"),
        ({"train": TrainPlan(pretrained="/srv/w.pth"), "student": {}}, "none"),
    ],
)
def test_a_student_begins_where_its_teacher_does_unless_told_otherwise(body: dict[str, object], source: str) -> None:
    """Learnt weights are most of what a student needs; who has no hub says so of the teacher, and is not asked twice."""
    limits = {"escape_rate": 0.1, "overkill_rate": 0.1}
    made = Product.model_validate({"name": "lid", "good_class": "ok", "classes": ["ok", "dent"], "limits": limits, **body})
    assert made.student.pretrained == source
    assert made.student.epochs in {3, StudentPlan().epochs}
    assert Product.model_validate(made.model_dump(mode="json")) == made


@pytest.mark.parametrize("body", [{"train": "resnet18"}, {"student": None}, {"train": ["resnet18"], "student": 3}])
def test_a_plan_that_is_none_is_told_as_one(body: dict[str, object]) -> None:
    """By the field's name, like any other slip."""
    limits = {"escape_rate": 0.1, "overkill_rate": 0.1}
    with pytest.raises(ValidationError, match=next(iter(body))):
        Product.model_validate({"name": "lid", "good_class": "ok", "classes": ["ok", "dent"], "limits": limits, **body})
