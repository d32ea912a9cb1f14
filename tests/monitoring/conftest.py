"""A store with the product `lid` and two stations."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from inspection.settings import load_settings
from inspection.store.session import Store
from tests.hub.helpers import seed_product


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    settings = load_settings(tmp_path, {})
    with Store.open(settings.database_url, settings.blob_url) as opened:
        with opened.begin() as session:
            seed_product(session)
        yield opened
