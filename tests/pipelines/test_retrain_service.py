"""When a retrain does not begin, and what it leaves when it breaks, on a real Prefect server (a temporary one)."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from inspection.contracts import sha256_hex
from inspection.data.product import RetrainPlan
from inspection.data.products import add_station, save_product
from inspection.errors import MissingPictureError
from inspection.settings import load_settings
from inspection.store.leases import hold
from inspection.store.session import Store
from inspection.store.tables import DeviceRow, FailedRetrainRow, SnapshotRow
from pipelines.naming import artifact_key
from pipelines.retrain import retrain
from tests.pipelines.artifacts import newest_artifact
from tests.pipelines.test_deployments import PRODUCT
from tests.stages.test_due import label

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.usefixtures("prefect")]

KEY = artifact_key("retrain", PRODUCT.name)


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


@pytest.fixture
def ready(store: Store) -> Store:
    """A retrain is due and could be rolled out; the labelled pictures' bytes are lost, so that it breaks at once."""
    with store.begin() as session:
        save_product(session, PRODUCT.model_copy(update={"retrain": RetrainPlan(min_new_labels=3)}))
        add_station(session, "s1", "lid", mode="judge")
        session.add(DeviceRow(name="d1", station="s1", token_sha256=sha256_hex(b"token")))
        label(session, 1, 2, 3)
    return store


def failures(store: Store) -> list[tuple[int, str]]:
    """Newest label and stage of every failed attempt on record."""
    with store.begin(read_only=True) as session:
        rows = session.scalars(select(FailedRetrainRow).order_by(FailedRetrainRow.id))
        return [(row.last_label_id, row.stage) for row in rows]


def test_a_retrain_that_breaks_says_where_and_why_and_stays_failed(ready: Store) -> None:
    """People find the stage, the words and the next step in one artifact; the attempt is on record."""
    with pytest.raises(MissingPictureError):
        retrain("lid")
    assert failures(ready) == [(3, "snapshot")]
    account = newest_artifact(KEY)
    assert "**Failed in snapshot: 3 of 3 labelled pictures of 'lid' are not in" in account
    assert "bring them back, or retract their labels" in account
    assert "The schedule tries again at its next look." in account


def test_a_retrain_that_broke_twice_waits_for_new_labels_or_for_a_hand(ready: Store) -> None:
    """The third tick begins nothing and says when the next will; a label or force begins one at once."""
    for _ in range(2):
        assert retrain("lid", return_state=True).is_failed()
    assert "What comes next: 2 retrains failed on these labels" in newest_artifact(KEY)
    state = retrain("lid", return_state=True)
    assert (state.name, len(failures(ready))) == ("NotDue", 2)
    assert "2 retrains failed on these labels, the last in 'snapshot'" in str(state.message)
    assert retrain("lid", force=True, return_state=True).is_failed()
    with ready.begin() as session:
        label(session, 4)
    assert retrain("lid", return_state=True).is_failed()
    assert [newest for newest, _ in failures(ready)] == [3, 3, 3, 4]
