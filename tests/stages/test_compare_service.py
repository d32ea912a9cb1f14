"""A comparison on a real MLflow server, and made anew from its run's id."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from inspection.cli import main as inspection
from inspection.settings import load_settings
from inspection.stages.candidate import folder_of_comparisons
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
        below = folder_of_comparisons(settings)
        found = compare_in_mlflow(settings, Comparison.of(material, asked, below, settings.training), lambda _: None)
        client = MlflowClient(url)
        parent = client.get_run(str(found.run))
        nested = client.search_runs([parent.info.experiment_id], f"tags.mlflow.parentRunId = '{found.run}'")
        assert {run.data.params["seed"] for run in nested} == {"0", "1"}
        assert all(0 <= run.data.metrics["validation/balanced_accuracy"] <= 1 for run in nested)
        assert parent.data.tags["kind"] == "comparison"
        assert parent.info.status == "FINISHED"
        assert {a.path for a in client.list_artifacts(str(found.run))} >= {REPORT, "conclusion.md", "devices.json"}
    rebuild = ["rebuild", str(found.run), "--state", str(tmp_path / "state"), "--json"]
    same = CliRunner().invoke(inspection, rebuild)
    assert same.exit_code == 0, same.output
    figures = json.loads(same.stdout)
    assert len(figures) == 2 * 2 + 1
    assert all(figure["same"] for figure in figures.values())
    (kept,) = below.glob("*/test_resnet-all-1.json")
    trial = json.loads(kept.read_text())
    kept.write_text(json.dumps(trial | {"named": trial["truth"]}))
    other = CliRunner().invoke(inspection, rebuild)
    assert other.exit_code == 1, other.output
    off = {name for name, figure in json.loads(other.stdout).items() if not figure["same"]}
    assert "test_resnet, all pictures, seed 1: answers, SHA-256" in off
    assert not any("seed 0" in name for name in off)
    kept.unlink()
    unfinished = CliRunner().invoke(inspection, rebuild)
    assert unfinished.exit_code == 2
    assert "did not come to its end (test_resnet, all pictures, seed 1 is missing)" in unfinished.output
