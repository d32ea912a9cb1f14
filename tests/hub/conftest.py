"""A real hub on a free loopback port, with one product, two stations and one enrolled device."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from inspection.hub.app import create_app
from inspection.settings import Settings, load_settings
from inspection.store.session import Store
from tests.hub.helpers import PASSWORD_USER, Line, enrol, seed_product
from tests.store.places import Place


@contextmanager
def serving(settings: Settings, store: Store) -> Iterator[str]:
    """Run the app under uvicorn in a thread; yields the address."""
    config = uvicorn.Config(create_app(settings, store), port=0, access_log=False, log_level="error", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive(), "the hub did not start"
        assert time.monotonic() < deadline, "the hub did not start in 20 s"
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive(), "the hub did not stop"


@pytest.fixture
def settings(tmp_path: Path, place: Place) -> Settings:
    where = {"database_url": place.database_url, "blob_url": place.blob_url}
    return load_settings(tmp_path / "state", {}, max_picture_bytes=200_000, max_picture_pixels=1_000_000, **where)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with Store.open(settings.database_url, settings.blob_url) as opened:
        with opened.begin() as session:
            seed_product(session)
        yield opened


@pytest.fixture
def address(settings: Settings, store: Store) -> Iterator[str]:
    with serving(settings, store) as url:
        yield url


@pytest.fixture
def anyone(address: str) -> Iterator[httpx.Client]:
    """Somebody without any secret."""
    with httpx.Client(base_url=address, timeout=20) as client:
        yield client


@pytest.fixture
def engineer(address: str, settings: Settings) -> Iterator[httpx.Client]:
    """A person who knows the console's password."""
    password = settings.secrets.console_password.get_secret_value()
    with httpx.Client(base_url=address, timeout=20, auth=(PASSWORD_USER, password)) as client:
        yield client


@pytest.fixture
def line(address: str, settings: Settings) -> Iterator[Line]:
    """An enrolled device at station `press-1`."""
    with httpx.Client(base_url=address, timeout=20) as client:
        yield Line(client, enrol(client, settings, "cam-1", "press-1").token)
