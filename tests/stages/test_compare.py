"""`compare-backbones` from pictures to the report."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from inspection.data.budgets import within
from inspection.data.snapshot_record import Snapshot, Split
from inspection.errors import UsageError
from inspection.settings import Training
from inspection.stages.compare import REPORT, Asked, Comparison, cells, compare
from inspection.stages.try_out import material_of_images
from tests.training.pictures import CLASSES, parts, picture


def quiet(words: str) -> None:
    """Nobody listens."""
    del words


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty rendered parts of each class."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for label in CLASSES:
        (folder / label).mkdir()
        for number in range(30):
            (folder / label / f"{number}.png").write_bytes(picture(label, rng))
    return folder


ASKED = Asked(
    backbones=["test_resnet", "test_efficientnet"], budgets=[None, 6], seeds=2, epochs=2, size=32, otherwise="none"
)


def test_it_reports_and_what_was_finished_is_not_done_again(photos: Path, tmp_path: Path) -> None:
    """Two networks, two budgets, two seeds; a second call trains nothing and says the same."""
    said: list[str] = []
    with material_of_images(photos, "good", tmp_path / "state", quiet) as material:
        comparison = Comparison.of(material, ASKED, tmp_path, Training())
        first = compare(comparison, said.append)
        trained = {path: path.stat().st_mtime_ns for path in comparison.folder.glob("*.json")}
        again = compare(comparison, quiet)
    assert len([line for line in said if "balanced accuracy" in line]) == 8
    assert again == first
    assert list((comparison.folder / "work").iterdir()) == []  # decoded pictures and weights would fill a disk
    assert {path: path.stat().st_mtime_ns for path in comparison.folder.glob("*.json")} == trained
    text = first.report.read_text()
    assert first.report.name == REPORT
    assert all(sentence.split(",")[0] in text for sentence in first.conclusion)
    assert text.count("<svg") == 2
    assert re.findall(r'(?:src|href)="(?!#)[^"]*', text) == []  # it opens without a server, and without a network
    trial = json.loads(next(comparison.folder.glob("test_resnet-6-0.json")).read_text())
    assert trial["pictures"] == 18
    assert len(trial["named"]) == len(material.of(Split.VALIDATION))


def test_weights_for_a_network_that_is_not_compared_are_refused() -> None:
    """A slip in the name must not train from scratch unnoticed."""
    asked = ASKED.model_copy(update={"pretrained": {"resnet18": "file.pth"}})
    with pytest.raises(UsageError, match="resnet18, which is not compared"):
        asked.weights_of("test_resnet")


def test_families_are_compared_by_their_defaults_and_lenet_begins_from_scratch() -> None:
    """Nobody names a backbone: one of each of the eleven; nobody publishes weights of LeNet."""
    asked = Asked(otherwise="hub")
    assert len(asked.names) == 11
    assert asked.weights_of("lenet5") == "none"
    assert asked.weights_of("resnet18") == "hub"
    assert [cell.budget for cell in cells(Asked(backbones=["resnet"], budgets=[None, 9, 3], seeds=1))] == [3, 9, None]


def test_budgets_are_nested_and_leave_the_other_sides_whole() -> None:
    """More pictures are the same ones and others, so that a curve shows what labelling more brings."""
    snapshot, _ = parts(60)

    def training(of: Snapshot) -> set[str]:
        return {e.picture for e in of.of(Split.TRAIN)}

    small, large = within(snapshot, 3, seed=1), within(snapshot, 7, seed=1)
    assert training(small) < training(large) < training(snapshot)
    assert len(training(small)) == 9
    assert small.of(Split.VALIDATION) == snapshot.of(Split.VALIDATION)
    assert training(within(snapshot, 3, seed=2)) != training(small)
    with pytest.raises(UsageError, match="teaches nothing"):
        within(snapshot, 0, seed=1)
