"""When a retrain does not begin, on a real Prefect server (a temporary one of its own)."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.testing.utilities import prefect_test_harness
from sqlalchemy import func, select

from inspection.contracts import sha256_hex
from inspection.data.products import add_station, save_product
from inspection.settings import load_settings
from inspection.store.leases import hold
from inspection.store.session import Store
from inspection.store.tables import DeviceRow, SnapshotRow
from pipelines.retrain import retrain
from tests.pipelines.test_deployments import PRODUCT

pytestmark = [pytest.mark.service, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def prefect() -> Iterator[None]:
    """A temporary Prefect."""
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A product with a station in a state folder the flow finds; no Label Studio answers."""
    monkeypatch.setenv("ESCAPEMENT_STATE", str(tmp_path))
    monkeypatch.setenv("ESCAPEMENT_LABEL_STUDIO_URL", "http://127.0.0.1:9")
    settings = load_settings(tmp_path, os.environ)
    with Store.open(settings.database_url, settings.blob_url) as opened:
        with opened.begin() as session:
            save_product(session, PRODUCT)
            add_station(session, "s1", PRODUCT.name, mode="collect")
        yield opened


def snapshots(store: Store) -> int | None:
    """How many were taken: the first thing a retrain does."""
    with store.begin(read_only=True) as session:
        return session.scalar(select(func.count()).select_from(SnapshotRow))


def test_two_retrains_at_once_one_leaves(store: Store) -> None:
    """By the database's lease, whoever holds it."""
    with hold(store, "retrain/lid", "another worker", ttl_seconds=30):
        state = retrain("lid", force=True, return_state=True)
    assert (state.name, snapshots(store)) == ("Skipped", 0)
    assert "another worker" in str(state.message)


def test_what_could_not_be_rolled_out_is_not_trained(store: Store) -> None:
    """A station that only collects, then one without a device: said before the work, not after it."""
    state = retrain("lid", force=True, return_state=True)
    assert (state.name, snapshots(store)) == ("NotReady", 0)
    assert "change the mode of one that collects" in str(state.message)
    with store.begin() as session:
        add_station(session, "s1", "lid", mode="judge")
    state = retrain("lid", force=True, return_state=True)
    assert "has no device that could prove it" in str(state.message)
    with store.begin() as session:
        session.add(DeviceRow(name="d1", station="s1", token_sha256=sha256_hex(b"token")))
    state = retrain("lid", force=True, return_state=True)
    assert state.name not in {"NotReady", "Skipped"}
    assert state.is_failed()  # nothing is labelled yet, and that is said where the work begins
