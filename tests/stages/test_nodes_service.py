"""Two machines train one network by settings alone, through the commands people type."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from inspection.contracts import Limits
from inspection.data.product import Product, TrainPlan
from inspection.data.products import save_product
from inspection.settings import load_settings
from inspection.store.session import Store
from tests.ports import free_port
from tests.release.mlflow_server import running_mlflow
from tests.training.pictures import CLASSES, picture

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(500)]

PLAN = TrainPlan(backbone="test_resnet", pretrained="none", height=32, width=32, epochs=2, batch_size=8)
PLATE = Product(name="plate", good_class="good", classes=CLASSES, limits=Limits(escape_rate=1, overkill_rate=1), train=PLAN)


def inspection(environment: dict[str, str], *words: str) -> subprocess.Popen[str]:
    """The command, begun."""
    command = [sys.executable, "-m", "inspection.cli", *words]
    return subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def answer(running: subprocess.Popen[str]) -> Any:
    """What it printed as JSON."""
    out, err = running.communicate(timeout=450)
    assert running.returncode == 0, err
    return json.loads(out)


def test_one_run_is_kept_and_the_other_machine_has_helped(tmp_path: Path) -> None:
    """The first machine logs, judges and keeps; the second leaves nothing. Both need one snapshot."""
    rng = np.random.default_rng(0)
    for label in CLASSES:
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(24):
            (tmp_path / "photos" / label / f"{number}.png").write_bytes(picture(label, rng))
    state = {"ESCAPEMENT_STATE": str(tmp_path / "state"), "OMP_NUM_THREADS": "1"}
    settings = load_settings(tmp_path / "state", {})
    with Store.open(settings.database_url, settings.blob_url) as store, store.begin() as session:
        save_product(session, PLATE)
    (tmp_path / "mlflow").mkdir()
    with running_mlflow(tmp_path / "mlflow") as url:
        folder = str(tmp_path / "photos")
        answer(inspection(state, "import-images", folder, "--product", "plate", "--good", "good", "--json"))
        made = answer(inspection(state, "snapshot", "--product", "plate", "--json"))
        assert sum(made["train"].values()) + sum(made["validation"].values()) + sum(made["golden"].values()) == 72
        together = state | {
            "ESCAPEMENT_MLFLOW_URL": url,
            "ESCAPEMENT_TRAIN_NODES": "2",
            "ESCAPEMENT_TRAIN_ACCELERATOR": "cpu",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
        }
        words = ["train", "--snapshot", made["snapshot"], "--json"]
        first, second = (inspection(together | {"NODE_RANK": rank}, *words) for rank in "01")
        kept = answer(first)
        out, err = second.communicate(timeout=100)
        assert (second.returncode, out) == (0, ""), err
        assert "has helped" in err
        experiments = [e.experiment_id for e in MlflowClient(url).search_experiments()]
        assert [run.info.run_id for run in MlflowClient(url).search_runs(experiments)] == [kept["run"]]
    candidates = tmp_path / "state" / "work" / "candidates"
    assert sorted(path.name for path in candidates.iterdir()) == sorted([kept["run"], "bookmarks"])
    assert not list((candidates / "bookmarks").iterdir())
