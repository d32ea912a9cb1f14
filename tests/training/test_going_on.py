"""A training that was killed goes on where it was: the same weights, bit for bit, as if nothing had happened."""

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from safetensors.torch import load_file

from inspection.data.product import Product
from inspection.errors import UsageError
from inspection.models import catalogue
from inspection.training.cache import Pictures
from inspection.training.engine import BestEpoch, Compute, choose_workers, fit, workers_for
from inspection.training.fit import Start, bookmark_of, load_data
from inspection.training.loading import STEPS_FROM_LABELS, SnapshotData
from inspection.training.module import Classifier, Tuning
from inspection.training.qat import _RoundedDistiller
from inspection.training.rounding import RoundedNet
from tests.training.pictures import parts, product

EPOCHS = 3
EACH_STEP = Compute(bookmark_seconds=0.0)
EVERYTHING = Tuning(learning_rate=4e-3, weight_decay=0.02, layer_decay=0.8, probe_epochs=1, average_share=0.2)

ROUNDED = Tuning(learning_rate=4e-3, weight_decay=0.02)


class PowerCutError(Exception):
    """What a test takes for the end of a process."""


class Dying(Classifier):
    """Dies in its n-th step, counted from 0."""

    def __init__(self, net: Any, tuning: Tuning, dies_at: int) -> None:
        super().__init__(net, tuning)
        self._dies_at = dies_at

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Until then as ever."""
        if self.global_step == self._dies_at:
            raise PowerCutError
        return super().training_step(batch, batch_idx)


class DyingJudged(Classifier):
    """Dies in the validation after an epoch."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Not in the first."""
        if self.current_epoch == 1:
            raise PowerCutError
        super().validation_step(batch, batch_idx)


@pytest.fixture(scope="module")
def network() -> Any:
    """With dropout, so that random numbers are drawn in each step."""
    torch.manual_seed(3)
    net = catalogue.build("test_efficientnet", 3, pretrained="none", height=32, width=32)
    net.head.laterals[0].append(torch.nn.Dropout(0.2))
    return net


@pytest.fixture(scope="module")
def data(network: Any, tmp_path_factory: pytest.TempPathFactory) -> SnapshotData:
    """Thirty-two parts: three steps an epoch."""
    snapshot, files = parts(32)
    pictures, workdir = files.__getitem__, tmp_path_factory.mktemp("data")
    return load_data(snapshot, product(), network, pictures, workdir, EACH_STEP, STEPS_FROM_LABELS)


def trained(module: Classifier, data: SnapshotData, bookmark: Path, told: list[int] | None = None) -> BestEpoch:
    """Train it to its end."""
    with isolate_rng():
        torch.manual_seed(5)
        return fit(
            module,
            data,
            epochs=EPOCHS,
            patience=EPOCHS,
            precision="32",
            compute=EACH_STEP,
            bookmark=bookmark,
            on_epoch=lambda epoch, _: told.append(epoch) if told is not None else None,
        )


def equal(one: BestEpoch, other: BestEpoch) -> bool:
    """The same weights and the same story."""
    same = all(torch.equal(one.best_state[name], value) for name, value in other.best_state.items())
    return same and one.history == other.history and one.best_epoch == other.best_epoch


@pytest.fixture(scope="module")
def undisturbed(network: Any, data: SnapshotData, tmp_path_factory: pytest.TempPathFactory) -> BestEpoch:
    """What comes of it when nothing happens."""
    module = Classifier(copy.deepcopy(network), EVERYTHING)
    return trained(module, data, tmp_path_factory.mktemp("undisturbed") / "bookmark.ckpt")


@pytest.mark.parametrize("step", [1, 3, 5, 6, 8])
def test_it_goes_on_after_any_step(
    step: int, network: Any, data: SnapshotData, undisturbed: BestEpoch, tmp_path: Path
) -> None:
    """Probe, layer-wise rates, averaged weights, dropout, metrics of half an epoch: all as they would have been."""
    bookmark, told = tmp_path / "bookmark.ckpt", []
    with pytest.raises(PowerCutError):
        trained(Dying(copy.deepcopy(network), EVERYTHING, step), data, bookmark)
    assert bookmark.exists()
    again = trained(Classifier(copy.deepcopy(network), EVERYTHING), data, bookmark, told)
    assert equal(again, undisturbed)
    assert told == list(range(EPOCHS))
    assert not bookmark.exists()


def test_what_it_cost_counts_the_processes_that_were_killed(network: Any, data: SnapshotData, tmp_path: Path) -> None:
    """Else a comparison of what networks cost would call one cheap whose training was interrupted; twice, here."""
    bookmark = tmp_path / "bookmark.ckpt"
    for step in (3, 6):
        with pytest.raises(PowerCutError):
            trained(Dying(copy.deepcopy(network), EVERYTHING, step), data, bookmark)
        kept = torch.load(bookmark, weights_only=True)
        (found,) = (state for name, state in kept["callbacks"].items() if name.startswith("BestEpoch"))
        assert found["seconds_before"] > 0.0
        found["seconds_before"] += 1000.0
        torch.save(kept, bookmark)
    again = trained(Classifier(copy.deepcopy(network), EVERYTHING), data, bookmark)
    assert 2000.0 < again.seconds_before < 3000.0


class Diverging(Classifier):
    """Has no number for a loss in its n-th step, counted from 0, and so no weights afterwards."""

    def __init__(self, net: Any, tuning: Tuning, diverges_at: int) -> None:
        super().__init__(net, tuning)
        self._diverges_at = diverges_at

    def hard_loss(
        self, logits: torch.Tensor, map_logits: torch.Tensor, labels: torch.Tensor, places: torch.Tensor
    ) -> torch.Tensor:
        """Until then as ever."""
        loss = super().hard_loss(logits, map_logits, labels, places)
        return loss * torch.nan if self.global_step == self._diverges_at else loss


def test_a_training_that_diverges_keeps_the_best_epoch_before(
    network: Any, data: SnapshotData, undisturbed: BestEpoch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends at once, no later epoch is trained, and what is kept holds numbers only."""
    kept = trained(Diverging(copy.deepcopy(network), EVERYTHING, 4), data, tmp_path / "bookmark.ckpt")
    assert kept.history == undisturbed.history[:1]
    assert kept.best_epoch == 0
    assert all(value.isfinite().all() for value in kept.best_state.values())
    assert "training diverged in epoch 2 and ended there: epoch 1 is kept" in caplog.text


def test_a_training_that_diverges_from_the_start_is_refused_in_words(
    network: Any, data: SnapshotData, tmp_path: Path
) -> None:
    """Nothing is left to go on from, and the one who asked learns what to change."""
    with pytest.raises(UsageError, match=r"diverged in epoch 1: .*lower train\.learning_rate"):
        trained(Diverging(copy.deepcopy(network), EVERYTHING, 1), data, tmp_path / "bookmark.ckpt")
    assert not list(tmp_path.iterdir())


def test_one_loss_that_is_no_number_is_not_left_out_of_the_mean(network: Any) -> None:
    """Though balanced accuracy counts the answer: the epoch is known to have diverged."""
    module = Classifier(copy.deepcopy(network), EVERYTHING)
    module.validation_loss.update(torch.tensor(torch.nan), 3)
    module.validation_loss.update(torch.tensor(1.0), 5)
    module.training_loss.update(torch.tensor(2.0))
    module.confusion.update(torch.eye(3), torch.arange(3))
    metrics = module.epoch_metrics()
    assert np.isnan(metrics["val_loss"])
    assert metrics["loss"] == 2.0


def test_it_goes_on_from_the_midst_of_a_validation(
    network: Any, data: SnapshotData, undisturbed: BestEpoch, tmp_path: Path
) -> None:
    """The epoch's last step is taken again, so that its validation belongs to it."""
    bookmark = tmp_path / "bookmark.ckpt"
    with pytest.raises(PowerCutError):
        trained(DyingJudged(copy.deepcopy(network), EVERYTHING), data, bookmark)
    assert equal(trained(Classifier(copy.deepcopy(network), EVERYTHING), data, bookmark), undisturbed)


class DyingRounded(_RoundedDistiller):
    """Dies in its n-th step while it learns with rounding."""

    def __init__(self, net: RoundedNet, teacher: Any, calibration: list[torch.Tensor], dies_at: int) -> None:
        super().__init__(net, ROUNDED, teacher, temperature=2.0, hard_label_share=0.3, calibration=calibration)
        self._dies_at = dies_at

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Until then as ever."""
        if self.global_step == self._dies_at:
            raise PowerCutError
        return super().training_step(batch, batch_idx)


def test_a_training_with_rounding_goes_on_with_the_ranges_it_had(network: Any, data: SnapshotData, tmp_path: Path) -> None:
    """Those of its epoch's beginning, not of the weights it has by then."""
    shown = list(torch.randn(4, 1, 3, 32, 32, generator=torch.Generator().manual_seed(1)))

    def module(dies_at: int) -> DyingRounded:
        return DyingRounded(RoundedNet(copy.deepcopy(network)), copy.deepcopy(network), shown, dies_at)

    never, bookmark = 1000, tmp_path / "bookmark.ckpt"
    whole = trained(module(never), data, tmp_path / "whole.ckpt")
    with pytest.raises(PowerCutError):
        trained(module(5), data, bookmark)
    assert equal(trained(module(never), data, bookmark), whole)


@pytest.mark.parametrize("step", [1, 4, 6])
def test_loading_processes_change_nothing(
    step: int, network: Any, data: SnapshotData, undisturbed: BestEpoch, tmp_path: Path
) -> None:
    """Two of them load, the training dies, one loads the rest: as if the training process had loaded all.

    OpenCV has threads at work in it before, whose locks a forked process would wait for.
    """
    cv2.setNumThreads(2)
    cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (31, 31), 0)
    bookmark = tmp_path / "bookmark.ckpt"
    helped = copy.copy(data)
    helped.num_workers = 2
    with pytest.raises(PowerCutError):
        trained(Dying(copy.deepcopy(network), EVERYTHING, step), helped, bookmark)
    helped.num_workers = 1
    assert equal(trained(Classifier(copy.deepcopy(network), EVERYTHING), helped, bookmark), undisturbed)


def test_a_gpu_gets_loading_processes_and_a_processor_keeps_its_cores() -> None:
    """All cores but one, shared between the GPUs of a machine, and never none."""
    assert [workers_for(gpus, 16) for gpus in (0, 1, 2, 4, 16)] == [0, 12, 7, 3, 1]
    assert workers_for(1, 1) == 1
    assert choose_workers(Compute(accelerator="cpu")) == 0
    assert choose_workers(Compute(accelerator="cpu", num_workers=3)) == 3


def test_a_bookmark_that_the_disk_spoilt_is_thrown_away(
    network: Any, data: SnapshotData, undisturbed: BestEpoch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The training begins anew, and says so."""
    bookmark = tmp_path / "bookmark.ckpt"
    with pytest.raises(PowerCutError):
        trained(Dying(copy.deepcopy(network), EVERYTHING, 4), data, bookmark)
    bookmark.write_bytes(bookmark.read_bytes()[:-2000])
    assert equal(trained(Classifier(copy.deepcopy(network), EVERYTHING), data, bookmark), undisturbed)
    assert "the training begins anew" in caplog.text


def test_a_bookmark_waits_over_the_weekend_and_others_do_not(network: Any, tmp_path: Path) -> None:
    """The training it belongs to finds it, however long it was away; what nobody came back to goes after a day."""
    snapshot, _ = parts(8)
    one, other = (
        bookmark_of(tmp_path, snapshot, product(epochs=epochs), Start(network, "test"), "32", EACH_STEP)
        for epochs in (3, 4)
    )
    for path in (one, other):
        path.touch()
        os.utime(path, (time.time() - 60 * 3600,) * 2)
    assert bookmark_of(tmp_path, snapshot, product(epochs=3), Start(network, "test"), "32", EACH_STEP) == one
    assert list(tmp_path.iterdir()) == [one]


_PROGRAM = """
import sys
from pathlib import Path
from inspection.training.engine import Compute
from inspection.training.fit import train
from tests.training.test_going_on import asked
snapshot, plan, pictures = asked()
folder = Path(sys.argv[1])
train(snapshot, plan, pictures, folder, compute=Compute(bookmark_seconds=0.0), bookmarks=folder)
"""


def asked() -> tuple[Any, Product, Pictures]:
    """What the program trains."""
    snapshot, files = parts(64)
    return snapshot, product(epochs=12, average_share=0.1), files.__getitem__


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_program_that_is_killed_again_and_again_gives_the_weights_of_one_that_is_not(tmp_path: Path) -> None:
    """SIGKILL at whatever moment, three times; the fourth comes to the end."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([sys.executable, "-c", _PROGRAM, str(whole)], check=True)
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", _PROGRAM, str(killed)])
        before = {path: path.stat().st_mtime_ns for path in killed.glob("bookmark-*.ckpt")}
        while process.poll() is None and all(
            path.stat().st_mtime_ns == before.get(path) for path in killed.glob("bookmark-*.ckpt")
        ):
            time.sleep(0.01)
        time.sleep(0.3)
        assert process.poll() is None, "it was over before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (killed / "trained").exists()
    subprocess.run([sys.executable, "-c", _PROGRAM, str(killed)], check=True)
    one, two = (load_file(folder / "trained" / "weights.safetensors") for folder in (whole, killed))
    assert all(torch.equal(one[name], value) for name, value in two.items())
    assert not list(killed.glob("bookmark-*"))
