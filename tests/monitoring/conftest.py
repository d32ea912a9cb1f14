"""A store with the product `lid` and two stations."""

from collections.abc import Iterator

import pytest

from inspection.store.session import Store
from tests.hub.helpers import seed_product
from tests.store.places import Place


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    with place.open() as opened:
        with opened.begin() as session:
            seed_product(session)
        yield opened
