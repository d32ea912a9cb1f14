"""No class of the champion's is forgotten unless somebody said so."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspection.contracts import Limits
from inspection.data.intake import accept_picture
from inspection.data.labels import Answer, record_answers, retract_picture
from inspection.data.product import Product, RetrainPlan
from inspection.data.products import save_product
from inspection.data.snapshot_record import Split
from inspection.data.snapshots import build_snapshot
from inspection.errors import IntegrityError
from inspection.settings import load_settings
from inspection.stages.heritage import check_losses
from inspection.stages.material import Material
from inspection.stages.teach import teach
from inspection.store.session import Store
from inspection.store.tables import PromotionRow, utc_now
from tests.store.places import Place

PRODUCT = Product(
    name="lid", good_class="ok", classes=["ok", "dent", "crack"], limits=Limits(escape_rate=0.1, overkill_rate=0.1)
)


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    """Twenty parts of each class, labelled, and a champion made from them."""
    with place.open() as opened:
        with opened.begin() as session:
            save_product(session, PRODUCT)
        for number, name in enumerate(name for name in PRODUCT.classes for _ in range(20)):
            _label(opened, _take_in(opened, number), name)
        promote(opened, build_snapshot(opened, "lid").digest, serial=1)
        yield opened


def promote(store: Store, snapshot: str, *, serial: int) -> None:
    """A champion made from that snapshot."""
    with store.begin() as session:
        session.add(
            PromotionRow(
                product="lid", serial=serial, role="champion", model_version="1", run_id="run", snapshot=snapshot,
                bundle="b" * 64, recipe="c" * 64, fencing_token=1, who="test", why="why",
            )
        )  # fmt: skip


def _take_in(store: Store, number: int) -> str:
    noise = np.random.default_rng(number).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    data = cv2.imencode(".png", cv2.resize(noise, (48, 48), interpolation=cv2.INTER_CUBIC))[1].tobytes()
    limits = {"max_bytes": 100_000, "max_pixels": 10_000}
    part = f"p{number}"
    return accept_picture(
        store, data, product="lid", part=part, group=part, station=None, source="import", fixed_split=None, **limits
    ).sha256


def _label(store: Store, picture: str, label: str) -> None:
    with store.begin() as session:
        record_answers(
            session,
            [
                Answer(
                    product="lid", picture=picture, origin="import", origin_id=picture, label=label, annotator="t",
                    made_at=utc_now(),
                )
            ],
        )  # fmt: skip


def material(store: Store) -> Material:
    """What a retrain of today would be made from."""
    return Material.load(store, "lid", build_snapshot(store, "lid").digest)


def cracks(store: Store) -> list[str]:
    """The pictures of cracks, in the order of their digests."""
    return [e.picture for e in build_snapshot(store, "lid").examples if e.label == "crack"]


def test_the_same_labels_and_more_of_them_lose_nothing(store: Store) -> None:
    """A retrain goes on as before."""
    check_losses(material(store))
    _label(store, _take_in(store, 100), "crack")
    check_losses(material(store))


def test_an_earlier_snapshot_may_be_trained_on_again(store: Store) -> None:
    """Whoever names one knows that it holds less; what grew since is no loss."""
    earlier = material(store)
    for number in range(200, 260):
        _label(store, _take_in(store, number), "crack")
    promote(store, build_snapshot(store, "lid").digest, serial=2)
    check_losses(earlier)


def test_a_class_that_is_relabelled_stops_the_retrain_before_anything_is_trained(store: Store, tmp_path: Path) -> None:
    """Most cracks are called good now: the words name class, numbers, fates and what to write if it is meant."""
    for picture in cracks(store)[:14]:
        _label(store, picture, "ok")
    today = material(store)
    with pytest.raises(IntegrityError, match=r"class 'crack' had 12 train pictures and has \d \(\d+ now labelled 'ok'\)"):
        check_losses(today)
    with pytest.raises(IntegrityError, match=r'"retrain": {"may_shrink_to": {"crack": \d}}'):
        teach(load_settings(tmp_path / "state", {}), today, print)
    assert not (tmp_path / "state" / "work").exists()


def test_a_class_that_is_withdrawn_stops_the_retrain_unless_it_is_meant(store: Store) -> None:
    """The snapshot leaves a rare class out, which is how it would vanish; said in the product, it may."""
    for picture in cracks(store):
        with store.begin() as session:
            retract_picture(session, "lid", picture, who="ann", why="no crack after all")
    today = material(store)
    assert today.snapshot.classes == ["ok", "dent"]
    with pytest.raises(IntegrityError, match="12 no longer labelled"):
        check_losses(today)
    meant = PRODUCT.model_copy(update={"retrain": RetrainPlan(may_shrink_to={"crack": 0})})
    with store.begin() as session:
        save_product(session, meant)
    check_losses(material(store))


def test_a_class_that_the_product_drops_stops_the_retrain(store: Store) -> None:
    """Its parts would be defects that no picture teaches any more."""
    with store.begin() as session:
        save_product(session, PRODUCT.model_copy(update={"classes": ["ok", "dent"]}))
    with pytest.raises(IntegrityError, match="12 left out as unknown_class"):
        check_losses(material(store))


def test_a_plan_that_asks_more_of_a_class_than_there_is_stops_the_retrain(store: Store) -> None:
    """Raising the least number of pictures drops a class that is one picture short of it."""
    one = next(e for e in build_snapshot(store, "lid").of(Split.TRAIN) if e.label == "crack")
    _label(store, one.picture, "dent")
    with store.begin() as session:
        save_product(session, PRODUCT.model_copy(update={"retrain": RetrainPlan(min_per_class=12)}))
    with pytest.raises(IntegrityError, match="11 left out as rare_class"):
        check_losses(material(store))
