"""What trainings run on, by settings alone."""

from pathlib import Path

import pytest

from inspection.errors import UsageError
from inspection.settings import Training, load_settings, load_training
from inspection.training.engine import Compute, choose_strategy


def test_settings_say_what_trainings_run_on(tmp_path: Path) -> None:
    """The environment over the file; a slip is told."""
    (tmp_path / "settings.json").write_text('{"training": {"devices": 4, "workers": 6}}')
    found = load_settings(tmp_path, {"ESCAPEMENT_TRAIN_DEVICES": "2", "ESCAPEMENT_TRAIN_ACCELERATOR": "cpu"}).training
    assert found == Training(accelerator="cpu", devices=2, workers=6)
    assert load_training({"ESCAPEMENT_TRAIN_NODES": "3"}).nodes == 3
    with pytest.raises(UsageError, match="ESCAPEMENT_TRAIN"):
        load_training({"ESCAPEMENT_TRAIN_DEVICES": "none"})


@pytest.mark.parametrize(
    ("compute", "strategy"),
    [
        (Compute("cpu"), "auto"),
        (Compute("cpu", devices=1), "auto"),
        (Compute("cpu", devices=2), "ddp_spawn"),
        (Compute("cpu", nodes=2), "ddp_spawn"),
        (Compute("cpu", nodes=2).here, "auto"),
        (Compute("cpu", devices=2, nodes=2, strategy="ddp").alone, "auto"),
        (Compute("cpu", devices=2, strategy="ddp"), "ddp"),
    ],
)
def test_several_devices_are_processes_that_only_train(compute: Compute, strategy: str) -> None:
    """Never the whole command again for each device: it would be logged and judged as often."""
    assert choose_strategy(compute) == strategy
