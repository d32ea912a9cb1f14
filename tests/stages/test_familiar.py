"""Which good frames novelty is learnt from."""

import random
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inspection.contracts import Tiling
from inspection.data.product import StudentPlan
from inspection.data.snapshot_record import RARE_CLASS, Example, Refused, Snapshot, Split
from inspection.models import catalogue
from inspection.stages.familiar import ENOUGH_PARTS, MOST_FRAMES, is_guarded, learn_good, sampled
from inspection.stages.material import Material
from inspection.store.session import Store
from tests.training.pictures import parts, product

SIDE = 32


def examples(count: int) -> list[Example]:
    """Good pictures, two of each part."""
    return [
        Example(picture=f"{n:064x}", label="good", part=f"p{n // 2}", group="g", split=Split.TRAIN) for n in range(count)
    ]


def test_a_file_is_guarded_while_a_labelled_class_is_too_rare() -> None:
    """By itself, where good parts are enough to learn from; what the product says holds."""
    by_itself, always, never = (StudentPlan(novelty_guard=said) for said in (None, True, False))
    rare = [Refused(picture="f" * 64, reason=RARE_CLASS, detail="1 picture of 'burr'")]
    other = [rare[0].model_copy(update={"reason": "cannot_tell"})]

    def snapshot(good: int, refused: list[Refused]) -> Snapshot:
        shown = examples(2 * good)  # two pictures of a part
        return Snapshot(product="p", good_class="good", classes=["good", "pit"], examples=shown, refused=refused)

    assert is_guarded(by_itself, snapshot(ENOUGH_PARTS, rare))
    assert not is_guarded(by_itself, snapshot(ENOUGH_PARTS - 1, rare))
    assert not is_guarded(by_itself, snapshot(ENOUGH_PARTS, other))
    assert is_guarded(always, snapshot(ENOUGH_PARTS, []))
    assert not is_guarded(never, snapshot(ENOUGH_PARTS, rare))
    golden = examples(1)[0].model_copy(update={"picture": "e" * 64, "label": "burr", "split": Split.GOLDEN})
    known = snapshot(ENOUGH_PARTS, [])
    assert is_guarded(by_itself, known.model_copy(update={"examples": [*known.examples, golden]}))


@given(st.integers(0, 1200), st.integers(1, 600), st.integers(0, 5))
def test_no_part_is_left_out_for_the_tiles_of_another(count: int, tiles: int, seed: int) -> None:
    """Of each picture as many tiles, at least one, none twice, and no more in all than are learnt from."""
    good = examples(count)
    chosen, places = sampled(good, tiles, seed)
    assert len(chosen) == len({e.picture for e in chosen}) == min(count, MOST_FRAMES)
    assert len(places) == len(set(places)) <= MOST_FRAMES
    of_picture = np.bincount([place // tiles for place in places], minlength=len(chosen))
    assert len(set(of_picture.tolist())) <= 1
    assert len(places) >= min(len(chosen), 1) * min(tiles * count, MOST_FRAMES // 2)
    assert (chosen, places) == sampled(good, tiles, seed)


@pytest.mark.parametrize("count", [60, 700])
def test_whole_pictures_are_learnt_from_in_the_order_of_the_seed(count: int) -> None:
    """All of them, or the first of a shuffle."""
    good = examples(count)
    chosen, places = sampled(good, 1, 7)
    assert chosen == random.Random(7).sample(good, count)[:MOST_FRAMES]
    assert places == list(range(len(chosen)))


def material(count: int, tiling: Tiling) -> tuple[Material, list[str]]:
    """Good parts, and as many bad ones, in memory; and which pictures are asked for."""
    snapshot, files = parts(2 * count, ["good", "pit"], side=64)
    asked: list[str] = []

    def get(key: str) -> bytes:
        asked.append(key.removeprefix("pictures/"))
        return files[asked[-1]]

    store: Any = SimpleNamespace(blobs=SimpleNamespace(get=get))
    plan = product().model_copy(update={"tiling": tiling})
    return Material(plan, snapshot, cast("Store", store)), asked


def test_a_fine_grid_is_learnt_from_all_good_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four tiles of each of 12 parts are more than are looked at: every part is, and each picture is read once."""
    monkeypatch.setattr("inspection.stages.familiar.MOST_FRAMES", 30)
    torch.manual_seed(1)
    net = catalogue.build("test_efficientnet", 2, pretrained="none", height=SIDE, width=SIDE)
    shown, asked = material(12, Tiling(rows=2, columns=2))
    novelty = learn_good(shown, net)
    assert sorted(asked) == sorted(e.picture for e in shown.snapshot.examples if e.label == "good")
    assert all(value.isfinite().all() for value in novelty.state_dict().values())
