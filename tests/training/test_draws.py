"""Which pictures a step is shown."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.training.draws import AS_IT_IS, EachOnce, TrainingDraws
from inspection.training.engine import Compute
from inspection.training.fit import train
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
