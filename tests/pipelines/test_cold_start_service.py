"""The retrain flow on a product's first day, on a real Prefect and a real MLflow: good parts, a cold start, stations in
shadow; the devices are played by a thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from sqlalchemy import select

from inspection.contracts import AgentState, Mode, Report, sha256_hex
from inspection.data.product import StudentPlan
from inspection.data.products import add_station, save_product
from inspection.data.snapshot_record import Split
from inspection.demo.renderer import GOOD
from inspection.release.assignments import newest_assignment
from inspection.release.promotions import champion, is_cold_start
from inspection.settings import load_settings
from inspection.stages.bring_in import import_directory
from inspection.store.session import Store
from inspection.store.tables import DeviceRow, FailedRetrainRow, StationRow
from pipelines.naming import artifact_key
from pipelines.retrain import retrain
from tests.pipelines.artifacts import newest_artifact
from tests.release.mlflow_server import running_mlflow
from tests.stages.test_cold_start_service import definition, parts

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.usefixtures("prefect")]

KEY = artifact_key("retrain", "lid")
GOOD_PARTS = {Split.TRAIN: 30, Split.VALIDATION: 12, Split.GOLDEN: 8}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A product with good parts and a station that collects, in a state folder the flow finds; no Label Studio answers."""
    with running_mlflow(_folder(tmp_path / "mlflow")) as url:
        environment = {"ESCAPEMENT_LABEL_STUDIO_URL": "http://127.0.0.1:9", "ESCAPEMENT_MLFLOW_URL": url}
        for name, value in (environment | {"ESCAPEMENT_STATE": str(tmp_path / "state")}).items():
            monkeypatch.setenv(name, value)
        torch.manual_seed(4)
        weights = tmp_path / "weights.safetensors"
        save_file(timm.create_model("test_efficientnet", pretrained=False).state_dict(), weights)
        settings = load_settings(tmp_path / "state", environment)
        with Store.open(settings.database_url, settings.blob_url) as opened:
            with opened.begin() as session:
                save_product(session, definition(str(weights)))
                add_station(session, "s1", "lid")
                session.flush()
                session.add(DeviceRow(name="d1", station="s1", token_sha256=sha256_hex(b"token")))
            import_directory(settings, opened, parts(tmp_path / "good", {GOOD: GOOD_PARTS}, 1), "lid", GOOD)
            yield opened


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


@contextmanager
def device(store: Store) -> Iterator[None]:
    """A thread that reports what the station was assigned, with a verdict made by it."""
    stop = threading.Event()

    def report() -> None:
        while not stop.wait(0.3):
            with store.begin() as session:
                wanted = newest_assignment(session, "s1")
                if wanted is None or wanted.bundle is None:
                    continue
                said = Report(
                    device="d1", station="s1", boot="b", at=datetime.now(UTC), state=AgentState.RUNNING, mode=Mode.SHADOW,
                    assignment_serial=wanted.serial, bundle_digest=wanted.bundle, recipe_digest=wanted.recipe,
                    verdicts_by_digest={wanted.bundle: 1}, agent_version="1",
                )  # fmt: skip
                row = session.get_one(DeviceRow, "d1")
                row.report, row.last_seen = said.model_dump(mode="json"), said.at

    thread = threading.Thread(target=report)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_station_leaves_collect_on_the_first_day(store: Store) -> None:
    """The scheduled flow makes the cold start by itself, tells what gate 2 knows, and is not due again."""
    with device(store):
        state = retrain("lid", return_state=True)
    assert (state.name, state.is_completed()) == ("Cold start", True)
    with store.begin(read_only=True) as session:
        row = champion(session, "lid")
        assert row is not None
        assert is_cold_start(session, row.bundle)
        assert session.get_one(StationRow, "s1").mode == "shadow"
    account = newest_artifact(KEY)
    assert "**Rollout done." in account
    assert "escape 0 of 0 defective parts" in account
    state = retrain("lid", return_state=True)
    assert (state.name, "the cold start goes on" in str(state.message)) == ("NotDue", True)


def test_a_cold_start_that_breaks_says_so_like_any_retrain(store: Store, tmp_path: Path) -> None:
    """Weights that are not there: the stage, the words, and the attempt on record."""
    with store.begin() as session:
        lost = definition(str(tmp_path / "lost.safetensors"))
        save_product(session, lost.model_copy(update={"student": StudentPlan(**lost.student.model_dump())}))
    assert retrain("lid", return_state=True).is_failed()
    assert "**Failed in learn from good pictures alone:" in newest_artifact(KEY)
    with store.begin(read_only=True) as session:
        assert [row.stage for row in session.scalars(select(FailedRetrainRow))] == ["learn from good pictures alone"]
