"""A real Prefect for the flows' tests, one for all of them."""

from collections.abc import Iterator

import pytest
from prefect.testing.utilities import prefect_test_harness


@pytest.fixture(scope="package")
def prefect() -> Iterator[None]:
    """A temporary server of its own; flows called in this process run on it."""
    with prefect_test_harness(server_startup_timeout=120):
        yield
