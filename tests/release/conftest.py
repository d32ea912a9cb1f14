"""Fixtures of the release tests: a real store in a temporary folder, and keys."""

from collections.abc import Iterator

import pytest

from inspection.release.signing import Keys, load_or_create_keys
from inspection.store.session import Store
from tests.store.places import Place


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    """An empty, migrated store."""
    with place.open() as opened:
        yield opened


@pytest.fixture(scope="session")
def fleet_keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Signing keys, made once."""
    return load_or_create_keys(tmp_path_factory.mktemp("state") / "keys")
