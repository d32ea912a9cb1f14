"""Fixtures of the release tests: a real store in a temporary folder, and keys."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from inspection.release.signing import Keys, load_or_create_keys
from inspection.store.session import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty, migrated store."""
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}", f"file://{tmp_path / 'blobs'}") as opened:
        yield opened


@pytest.fixture(scope="session")
def fleet_keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Signing keys, made once."""
    return load_or_create_keys(tmp_path_factory.mktemp("state") / "keys")
