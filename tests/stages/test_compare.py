"""`compare-backbones` from pictures to the report."""

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from inspection.cli import main as inspection
from inspection.contracts import Region, Tiling
from inspection.data.budgets import telling, within
from inspection.data.snapshot_record import Snapshot, Split
from inspection.errors import UsageError
from inspection.release.measure import scores_of
from inspection.settings import Training
from inspection.stages import compare as comparing
from inspection.stages import compare_device
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


SMALL = Asked(backbones=["lenet5?mean=0.5"], budgets=[6], seeds=1, epochs=1, size=32)
"""One training of seconds; nobody publishes weights of LeNet, so nothing is fetched."""


def leftovers(comparison: Comparison) -> list[Path]:
    """Files of the work that nobody needs again."""
    return [path for path in (comparison.folder / "work").rglob("*") if path.is_file()]


def test_it_reports_and_what_was_finished_is_not_done_again(photos: Path, tmp_path: Path) -> None:
    """Two networks, two budgets, two seeds; a second call trains nothing and says the same."""
    said: list[str] = []
    decoded: set[Path] = set()

    def heard(words: str) -> None:
        said.append(words)
        decoded.update(comparison.folder.glob("work/**/*.u8"))

    with material_of_images(photos, "good", tmp_path / "state", quiet) as material:
        comparison = Comparison.of(material, ASKED, tmp_path, Training())
        first = compare(comparison, heard)
        trained = {path: path.stat().st_mtime_ns for path in comparison.folder.glob("*.json")}
        again = compare(comparison, quiet)
    assert len([line for line in said if "balanced accuracy" in line]) == 8
    assert len(decoded) == 4  # for both networks: all pictures, six of each class by either seed, the validation side
    assert again == first
    assert leftovers(comparison) == []  # decoded pictures and weights would fill a disk
    assert {path: path.stat().st_mtime_ns for path in comparison.folder.glob("*.json")} == trained
    text = first.report.read_text()
    assert first.report.name == REPORT
    assert all(sentence.split(",")[0] in text for sentence in first.conclusion)
    assert text.count("<svg") == 2
    assert "(2 epochs, 32 px, learning rate " in text
    assert re.findall(r'(?:src|href)="(?!#)[^"]*', text) == []  # it opens without a server, and without a network
    trial = json.loads(next(comparison.folder.glob("test_resnet-6-0.json")).read_text())
    assert trial["pictures"] == 18
    assert len(trial["named"]) == len(material.of(Split.VALIDATION))


def test_a_kill_at_any_place_costs_no_more_than_what_was_under_way(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a record is never taken for a whole one, and the next run clears what the killed one left."""
    write = Path.write_text

    def killed(path: Path, text: str, *rest: Any, **others: Any) -> int:
        if ".device." not in path.name:
            return write(path, text, *rest, **others)
        write(path, text[:10])
        raise KeyboardInterrupt

    with material_of_images(photos, "good", tmp_path / "state", quiet) as material:
        comparison = Comparison.of(material, SMALL, tmp_path, Training())
        with monkeypatch.context() as patched:
            patched.setattr(Path, "write_text", killed)
            with pytest.raises(KeyboardInterrupt):
                compare(comparison, quiet)
        (made,) = (path for path in comparison.folder.glob("*.json") if ".device." not in path.name)
        trial, trained = json.loads(made.read_text()), made.stat().st_mtime_ns
        assert trial["family"] == "LeNet"  # options of a name hide nothing
        assert leftovers(comparison) != []
        compare(comparison, quiet)
        assert made.stat().st_mtime_ns == trained
        assert leftovers(comparison) == []
        (comparison.folder / "work" / made.stem).mkdir(parents=True)
        (comparison.folder / "work" / made.stem / "pictures.u8").write_bytes(b"decoded")
        compare(comparison, quiet)  # as if it had been killed when all was known
        assert leftovers(comparison) == []


def test_calibration_takes_as_many_frames_of_a_grid_as_of_whole_pictures(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample, shown one by one: all tiles of large pictures do not fit into memory."""
    shown: list[np.ndarray] = []

    def quantize(exact: Path, frames: Iterable[np.ndarray], out: Path, *, float_stem: bool) -> None:
        del exact, out, float_stem
        assert not isinstance(frames, list)
        shown.extend(frames)
        raise ValueError("not now")

    monkeypatch.setattr(compare_device, "quantize_int8", quantize)
    with material_of_images(photos, "good", tmp_path / "state", quiet) as material:
        tiled = replace(material, product=material.product.model_copy(update={"tiling": Tiling(rows=2, columns=2)}))
        compare(Comparison.of(tiled, SMALL, tmp_path, Training()), quiet)
        whole = material.frames(material.of(Split.TRAIN))[0].shape
    assert len(shown) == 64
    assert {frame.shape[:2] for frame in shown} == {(1, whole[0] // 2)}


def test_another_region_or_tiling_is_another_comparison(photos: Path, tmp_path: Path) -> None:
    """What was trained on whole pictures says nothing of tiles."""
    with material_of_images(photos, "good", tmp_path / "state", quiet) as material:
        changes: list[dict[str, Any]] = [
            {},
            {"tiling": Tiling(rows=2, columns=2)},
            {"region": Region(x=0, y=0, width=40, height=40)},
            {"collect": material.product.collect.model_copy(update={"max_open_tasks": 7})},
        ]
        products = [material.product.model_copy(update=change) for change in changes]
        seen = [Comparison.of(replace(material, product=p), ASKED, tmp_path, Training()).folder for p in products]
    assert len(set(seen)) == 3
    assert seen[0] == seen[3]  # what is asked of people changes no training


def test_tiles_are_asked_for_with_the_folder(photos: Path, tmp_path: Path) -> None:
    """Small defects on large pictures are compared as they would be learnt; every picture is judged once, by its tiles."""
    words = ["compare-backbones", "--images", str(photos), "--good", "good", "--backbone", "lenet5", "--budgets", "6"]
    words += ["--seeds", "1", "--epochs", "1", "--size", "32", "--no-device", "--tiles", "2x2", "--out", str(tmp_path)]
    done = CliRunner().invoke(inspection, [*words, "--json"])
    assert done.exit_code == 0, done.output
    (trial,) = Path(json.loads(done.stdout)["report"]).parent.glob("lenet5-6-0.json")
    assert len(json.loads(trial.read_text())["named"]) == 18
    refused = CliRunner().invoke(inspection, [*words[:1], "--product", "lid", "--tiles", "2x2", "--state", str(tmp_path)])
    assert refused.exit_code == 2
    assert "--tiles belongs to --images" in refused.output


def test_other_weights_at_the_same_place_are_another_comparison(photos: Path, tmp_path: Path) -> None:
    """What was trained from the file of before is not set beside what is trained from this one."""
    file = tmp_path / "weights.pth"
    asked = SMALL.model_copy(update={"pretrained": {"lenet5?mean=0.5": str(file)}})
    folders = []
    with material_of_images(photos, "good", tmp_path / "state", quiet) as material:
        for content in (b"one", b"another", b"one"):
            file.write_bytes(content)
            folders.append(Comparison.of(material, asked, tmp_path, Training()).folder)
    assert folders[0] == folders[2] != folders[1]


def test_two_programs_do_not_make_one_comparison(photos: Path, tmp_path: Path) -> None:
    """They would train in each other's files; the second is told, and nothing of the first's is touched."""
    with material_of_images(photos, "good", tmp_path / "state", quiet) as material:
        comparison = Comparison.of(material, SMALL, tmp_path, Training())
        with comparison.alone(), pytest.raises(UsageError, match="being made by another program"):
            compare(comparison, quiet)
        assert compare(comparison, quiet).report.exists()


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
    assert asked.weights_of("lenet5?mean=0.5") == "none"
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


def test_a_budget_that_is_all_pictures_is_called_so_and_tried_once(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody has more than forty training pictures of a class: a hundred of each are all of them."""
    snapshot, _ = parts(60)
    largest = max(sum(e.label == name for e in snapshot.of(Split.TRAIN)) for name in snapshot.classes)
    assert telling(snapshot, [None, 7, largest + 60, 3, 7]) == [3, 7, None]
    assert f"no class has more than {largest} training pictures: a budget of {largest + 60} is all of them" in caplog.text
    assert telling(snapshot, [largest - 1]) == [largest - 1]
    assert telling(snapshot, [largest]) == [None]
    with pytest.raises(UsageError, match="teaches nothing"):
        telling(snapshot, [3, 0])


def test_what_cannot_be_built_is_told_before_anything_is_trained(photos: Path, tmp_path: Path) -> None:
    """A size that the second network cannot look at, a file of weights that is not there; what is trained is not asked."""
    with material_of_images(photos, "good", tmp_path / "state", quiet) as material:
        for changed, complaint in (
            ({"backbones": ["lenet5", "vit_tiny_patch16_224"], "size": 40}, "squares of 16 px"),
            ({"backbones": ["lenet5", "test_resnet"], "pretrained": {"test_resnet": "gone.pth"}}, "gone.pth"),
        ):
            asked = SMALL.model_copy(update={"otherwise": "none", **changed})
            comparison = Comparison.of(material, asked, tmp_path, Training())
            with pytest.raises(UsageError, match=complaint):
                compare(comparison, quiet)
            assert list(comparison.folder.glob("*.json")) == []
        comparison = Comparison.of(material, SMALL, tmp_path, Training())
        compare(comparison, quiet)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(comparing.catalogue, "build", None)
            comparison.check()


def test_an_int8_file_that_answers_otherwise_does_not_count(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is shown, struck through, and nobody is told that it is the fastest; one that answers alike is."""
    with material_of_images(photos, "good", tmp_path / "state", quiet) as material:
        fine = compare(Comparison.of(material, SMALL, tmp_path, Training()), quiet)
        monkeypatch.setattr(compare_device, "scores_of", _the_opposite_of_int8)
        other = compare(Comparison.of(material, SMALL.model_copy(update={"epochs": 2}), tmp_path, Training()), quiet)
    assert 'class="out"' not in fine.report.read_text()
    assert 'class="out">0.0%' in other.report.read_text()
    assert "in float (int8: 0.0% of its answers are those in float, and 97.0% are asked for)" in other.conclusion[-1]


def _the_opposite_of_int8(file: Path, frames: Iterable[np.ndarray]) -> np.ndarray:
    scores = scores_of(file, frames)
    return -scores if "int8" in file.name else scores
