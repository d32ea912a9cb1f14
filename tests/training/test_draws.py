"""Which pictures a step is shown."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.models import catalogue
from inspection.training.draws import AS_IT_IS, EachOnce, TrainingDraws
from inspection.training.engine import Compute
from inspection.training.fit import load_data, train
from inspection.training.loading import MIN_BATCH
from tests.training.pictures import parts, product


def epoch(draws: TrainingDraws, number: int) -> list[list[tuple[int, int]]]:
    """All batches of one epoch."""
    draws.set_epoch(number)
    return list(draws)


def test_each_epoch_is_drawn_anew_and_no_draw_has_another_s_number() -> None:
    """The same pictures in the same order again would teach the same again; the same number would augment alike."""
    draws = TrainingDraws(np.ones(40), 8, seed=1)
    first, second = epoch(draws, 0), epoch(draws, 1)
    assert [len(batch) for batch in first] == [8] * 5
    assert [index for index, _ in chain(*first)] != [index for index, _ in chain(*second)]
    numbers = [number for _, number in chain(*first, *second)]
    assert len(set(numbers)) == len(numbers)


@given(st.integers(1, 50), st.integers(1, 16), st.integers(0, 5), st.data())
def test_it_begins_where_it_is_told_once(count: int, size: int, number: int, data: st.DataObject) -> None:
    """The rest of the epoch as it would have been; the next epoch whole."""
    whole, rest = TrainingDraws(np.ones(count), size, 3), TrainingDraws(np.ones(count), size, 3)
    rest.start = data.draw(st.integers(0, len(whole) - 1))
    skipped = rest.start
    assert epoch(rest, number) == epoch(whole, number)[skipped:]
    assert epoch(rest, number + 1) == epoch(whole, number + 1)


def test_rare_classes_come_by_their_weight() -> None:
    """A picture of three times the weight is drawn three times as often."""
    draws = TrainingDraws(np.array([3.0, 1.0, 1.0, 1.0]), 4, seed=0)
    drawn = [index for number in range(1000) for index, _ in chain(*epoch(draws, number))]
    assert drawn.count(0) / len(drawn) == pytest.approx(0.5, abs=0.03)


@given(st.integers(1, 4), st.integers(2, 8), st.integers(8, 60))
def test_devices_share_a_draw(devices: int, size: int, count: int) -> None:
    """What all of them are shown in a step is what one device with their batches together is shown, each draw once."""
    together = TrainingDraws(np.ones(count), size * devices, 3)
    shared = []
    for rank in range(devices):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("inspection.training.draws._devices", lambda: devices)
            patch.setattr("inspection.training.draws._rank", lambda rank=rank: rank)
            shared.append(epoch(TrainingDraws(np.ones(count), size, 3), 1))
    assert [sorted(chain(*step)) for step in zip(*shared, strict=True)] == [sorted(step) for step in epoch(together, 1)]


def test_several_devices_keep_the_steps_of_a_small_set(tmp_path: Path) -> None:
    """In smaller batches, of eight pictures at least: with the batch of one each, eight took an eighth of the steps."""
    snapshot, files = parts(1200)
    plan = product(batch_size=32)
    net = catalogue.build("test_resnet", 3, pretrained="none", height=32, width=32)
    data = load_data(snapshot, plan, net, files.__getitem__, tmp_path, Compute(), 24)
    assert len(data.draws()) == 900 // 32
    for devices in (2, 4):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("inspection.training.draws._devices", lambda devices=devices: devices)
            assert len(data.draws(devices)) >= 24
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inspection.training.draws._devices", lambda: 8)
        assert len(data.draws(8)) == 900 // (8 * MIN_BATCH)


@given(st.integers(1, 50), st.integers(1, 16))
def test_validation_sees_each_picture_once_and_as_it_is(count: int, size: int) -> None:
    """In order."""
    each = EachOnce(count, size)
    seen = list(each)
    assert len(seen) == len(each)
    assert list(chain(*seen)) == [(index, AS_IT_IS) for index in range(count)]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_train_one_network(tmp_path: Path) -> None:
    """By settings alone; the one that asked gets what was found, each epoch is told once by them."""
    snapshot, files = parts(64)
    compute = Compute(accelerator="cpu", devices=2, strategy="ddp_spawn")
    plan = product(epochs=3, probe_epochs=1, average_share=0.2)
    trained = train(snapshot, plan, files.__getitem__, tmp_path, compute=compute)
    assert len(trained.history) == 3
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]
    assert [path.name for path in tmp_path.iterdir() if path.suffix in {".pt", ".ckpt"}] == []
