"""The store of these tests, empty but for its schema."""

from collections.abc import Iterator

import pytest

from inspection.store.session import Store
from tests.store.places import Place


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    """A store on each database."""
    with place.open() as opened:
        yield opened
