"""A small store with one product, and pictures made of noise: no two alike unless a test says so."""

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from inspection.contracts import Limits
from inspection.data.intake import accept_picture
from inspection.data.labels import Answer, record_answers
from inspection.data.product import Product
from inspection.data.products import save_product
from inspection.store.session import Store
from inspection.store.tables import utc_now
from tests.store.places import Place

LIMITS: dict[str, Any] = {"max_bytes": 1_000_000, "max_pixels": 1_000_000}
PRODUCT = Product(
    name="lid", good_class="ok", classes=["ok", "scratch", "dent"], limits=Limits(escape_rate=0.01, overkill_rate=0.05)
)
Image = NDArray[np.uint8]


def texture(seed: int, side: int = 96) -> Image:
    """A picture with a texture of its own, uint8 ``[side, side, 3]``."""
    coarse = np.random.default_rng(seed).integers(40, 215, (12, 12, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def encode(image: Any, suffix: str = ".png", quality: int = 90) -> bytes:
    """A picture file."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else []
    return cv2.imencode(suffix, image, options)[1].tobytes()


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    with place.open() as opened:
        with opened.begin() as session:
            save_product(session, PRODUCT)
        yield opened


@pytest.fixture
def add(store: Store) -> Callable[..., str]:
    """Takes a picture in, with a label where one is given, and returns its digest."""

    def add_picture(
        image: Image,
        label: str | None = None,
        *,
        part: str,
        group: str | None = None,
        split: str | None = None,
        suffix: str = ".png",
    ) -> str:
        data = encode(image, suffix)
        sha256 = accept_picture(
            store,
            data,
            product="lid",
            part=part,
            group=group or part,
            station=None,
            source="import",
            fixed_split=split,
            **LIMITS,
        ).sha256
        if label is not None:
            with store.begin() as session:
                record_answers(session, [answer(sha256, label, origin_id=f"i{sha256}", origin="import")])
        return sha256

    return add_picture


def answer(
    picture: str, label: str | None, *, origin_id: str, origin: str = "label_studio", annotator: str = "ann"
) -> Answer:
    """An answer about a picture of the product."""
    return Answer(
        product="lid",
        picture=picture,
        origin=origin,
        origin_id=origin_id,
        label=label,
        annotator=annotator,
        made_at=utc_now(),
    )
