"""A real Label Studio for the service tests (one per session), and what the unit tests start from."""

from collections.abc import Iterator

import pytest

from inspection.contracts import Limits
from inspection.data.product import Product
from inspection.data.products import save_product
from inspection.labelling.port import LabelStudio
from inspection.labelling.studio import connect
from inspection.store.session import Store
from tests.labelling.fake import FakeStudio
from tests.labelling.live import RunningServer, find_label_studio, running_label_studio
from tests.store.places import Place


@pytest.fixture(scope="session")
def label_studio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Label Studio with a fresh database."""
    program = find_label_studio()
    if program is None:
        pytest.skip("no label-studio program: make its environment, or set ESCAPEMENT_LABEL_STUDIO")
    with running_label_studio(program, tmp_path_factory.mktemp("label-studio")) as server:
        yield server


@pytest.fixture
def real_studio(label_studio_server: RunningServer) -> Iterator[LabelStudio]:
    """A connection to the real server by its legacy token."""
    with connect(label_studio_server.url, label_studio_server.token) as studio:
        yield studio


@pytest.fixture
def fake_studio() -> FakeStudio:
    """An empty Label Studio in memory."""
    return FakeStudio()


def make_product(name: str = "valve", *more: str) -> Product:
    """A product with one good and two defect classes, and ``more``."""
    return Product(
        name=name,
        good_class="good",
        classes=["good", "scratch", "dent", *more],
        limits=Limits(escape_rate=0.01, overkill_rate=0.05),
    )


@pytest.fixture
def product() -> Product:
    """The product of most tests."""
    return make_product()


@pytest.fixture
def store(place: Place, product: Product) -> Iterator[Store]:
    """A store with the product."""
    with place.open() as opened:
        with opened.begin() as session:
            save_product(session, product)
        yield opened
