"""A comparison on a real MLflow server."""

from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from inspection.settings import load_settings
from inspection.stages.compare import REPORT, Asked, Comparison, compare_in_mlflow
from inspection.stages.try_out import material_of_images
from tests.release.mlflow_server import running_mlflow
from tests.training.pictures import CLASSES, picture

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(300)]


def test_each_training_is_a_run_nested_in_the_comparison_s(tmp_path: Path) -> None:
    """People compare them there; the report and its conclusion lie on the parent."""
    (tmp_path / "mlflow").mkdir()
    rng = np.random.default_rng(0)
    for label in CLASSES:
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(12):
            (tmp_path / "photos" / label / f"{number}.png").write_bytes(picture(label, rng))
    asked = Asked(backbones=["test_resnet"], budgets=[None], seeds=2, epochs=1, size=32, otherwise="none", device=False)
    with (
        running_mlflow(tmp_path / "mlflow") as url,
        material_of_images(tmp_path / "photos", "good", tmp_path / "state", lambda _: None) as material,
    ):
        settings = load_settings(tmp_path / "state", {}, mlflow_url=url)
        found = compare_in_mlflow(settings, Comparison.of(material, asked, tmp_path, settings.training), lambda _: None)
        client = MlflowClient(url)
        parent = client.get_run(str(found.run))
        nested = client.search_runs([parent.info.experiment_id], f"tags.mlflow.parentRunId = '{found.run}'")
        assert {run.data.params["seed"] for run in nested} == {"0", "1"}
        assert all(0 <= run.data.metrics["validation/balanced_accuracy"] <= 1 for run in nested)
        assert parent.data.tags["kind"] == "comparison"
        assert parent.info.status == "FINISHED"
        assert {a.path for a in client.list_artifacts(str(found.run))} >= {REPORT, "conclusion.md", "devices.json"}
