"""What every look at the fleet does about MLflow, on real Prefect and MLflow servers (temporary ones)."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from inspection.data.products import save_product
from inspection.release.registry import Registry, edge_name
from inspection.settings import load_settings
from inspection.store.session import Store
from inspection.store.tables import PromotionRow
from pipelines.naming import artifact_key
from pipelines.watch import watch
from tests.pipelines.artifacts import newest_artifact
from tests.pipelines.test_deployments import PRODUCT
from tests.release.mlflow_server import running_mlflow
from tests.release.small_model import brightness_model, picture

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.usefixtures("prefect")]


@pytest.fixture(scope="module")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server."""
    with running_mlflow(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A product in a state folder the flow finds, whose champion's version 1 our ledger names; nothing rolls out."""
    monkeypatch.setenv("ESCAPEMENT_STATE", str(tmp_path))
    settings = load_settings(tmp_path, os.environ)
    with Store.open(settings.database_url, settings.blob_url) as opened:
        with opened.begin() as session:
            save_product(session, PRODUCT)
            session.add(
                PromotionRow(
                    product="lid", serial=1, role="champion", model_version="1", run_id="run", snapshot="0" * 64,
                    bundle="b" * 64, recipe="c" * 64, fencing_token=1, who="test", why="why",
                )
            )  # fmt: skip
        yield opened


@pytest.mark.usefixtures("store")
def test_aliases_follow_the_ledger_at_every_look(mlflow_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing rolls out: an alias a dead flow never set is set, one that a hand moved is put back."""
    monkeypatch.setenv("ESCAPEMENT_MLFLOW_URL", mlflow_url)
    registry, model = Registry(mlflow_url), tmp_path / "model.onnx"
    model.write_bytes(brightness_model())
    for _ in range(2):
        with registry.run("lid", "student", kind="student") as run:
            registry.register(edge_name("lid"), run.onnx_model("edge", model, picture(0.5)[None]), run=run, tags={})
    assert watch("lid") == {"findings": 0, "rollout_events": 0}
    assert registry.aliases(edge_name("lid")) == {"champion": "1"}
    MlflowClient(mlflow_url, mlflow_url).set_registered_model_alias(edge_name("lid"), "champion", "2")
    watch("lid")
    assert registry.aliases(edge_name("lid")) == {"champion": "1"}


@pytest.mark.usefixtures("store")
def test_the_fleet_is_looked_at_although_mlflow_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look completes, and says that the aliases may be stale."""
    monkeypatch.setenv("ESCAPEMENT_MLFLOW_URL", "http://127.0.0.1:9")
    assert watch("lid") == {"findings": 1, "rollout_events": 0}
    told = newest_artifact(artifact_key("watch", "lid"))
    assert "* MLflow's aliases may say something else than our ledger: MLflow at http://127.0.0.1:9 does not answer" in told
