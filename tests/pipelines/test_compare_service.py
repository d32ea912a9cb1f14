"""The flow that compares networks, on real Prefect and MLflow servers (temporary ones)."""

from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from inspection.stages.try_out import TRY, material_of_images
from pipelines.compare_backbones import compare_backbones
from pipelines.naming import artifact_key
from tests.pipelines.artifacts import newest_artifact
from tests.release.mlflow_server import running_mlflow
from tests.training.pictures import CLASSES, picture

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.usefixtures("prefect"), pytest.mark.timeout(300)]


def test_the_flow_compares_what_it_is_asked_to_and_tells_the_conclusion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two networks at two budgets, one with weights of its own; the report lies where the account says."""
    rng = np.random.default_rng(0)
    for label in CLASSES:
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(12):
            (tmp_path / "photos" / label / f"{number}.png").write_bytes(picture(label, rng))
    state = tmp_path / "state"
    with material_of_images(tmp_path / "photos", "good", state, lambda _: None):
        pass
    (tmp_path / "mlflow").mkdir()
    with running_mlflow(tmp_path / "mlflow") as url:
        monkeypatch.setenv("ESCAPEMENT_STATE", str(state))
        monkeypatch.setenv("ESCAPEMENT_MLFLOW_URL", url)
        found = compare_backbones(
            TRY, backbones=["lenet5", "test_resnet"], budgets=[4, None], seeds=1, epochs=1, size=32,
            weights={"test_resnet": "none"}, device=False,
        )  # fmt: skip
        client = MlflowClient(url)
        experiment = client.get_run(found["run"]).info.experiment_id
        nested = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{found['run']}'")
    asked = {(run.data.params["backbone"], run.data.params["budget"]) for run in nested}
    assert asked == {(name, budget) for name in ("lenet5", "test_resnet") for budget in ("4", "all")}
    assert Path(found["report"]).is_file()
    told = newest_artifact(artifact_key("compare-backbones", TRY))
    assert f"# Networks compared on {TRY}" in told
    assert all(sentence in told for sentence in found["conclusion"])
    assert "Each was trained once" in told
    assert found["report"] in told
