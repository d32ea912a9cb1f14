"""The chain itself, small: rendered parts are taught, built, proved and signed, with a real MLflow as witness."""

import csv
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from numpy.typing import NDArray
from sqlalchemy import func, select

from inspection.contracts import Limits, Tiling, decide, sha256_hex
from inspection.data.product import Product, StudentPlan, TrainPlan
from inspection.data.products import save_product
from inspection.data.snapshot_record import Example, Snapshot, Split
from inspection.data.snapshots import build_snapshot
from inspection.demo.line import encode_png
from inspection.demo.renderer import GOOD, Look, PartSpec, render_with_truth
from inspection.errors import UsageError
from inspection.release.bundle import read_manifest
from inspection.release.evaluate import judged
from inspection.release.measure import scores_of
from inspection.release.registry import edge_name
from inspection.release.replay import golden_pictures, replay
from inspection.release.signing import load_or_create_keys, trust_root, verify_release
from inspection.release.thresholds import calibrate
from inspection.settings import Settings, load_settings
from inspection.stages import deploy
from inspection.stages.account import account_of
from inspection.stages.bring_in import import_directory
from inspection.stages.build_search import calibration_frames, quantize
from inspection.stages.candidate import Candidate, load_candidate
from inspection.stages.evidence import commit
from inspection.stages.heritage import ChampionTeacher
from inspection.stages.material import Material
from inspection.stages.pointing import map_score_of
from inspection.stages.prove import prove
from inspection.stages.rebuild import in_words, rebuild
from inspection.stages.shrink import build
from inspection.stages.teach import golden_card, judge_teacher, teach
from inspection.store.session import Store
from inspection.store.tables import BundleRow, GoldenLookRow
from inspection.training.predict import predict
from inspection.training.record import load_trained
from tests.release.mlflow_server import running_mlflow

pytestmark = [pytest.mark.slow, pytest.mark.service]

SIDE = 64  # pixels
DEFECTS = ("dent", "stain")
PARTS = {Split.TRAIN: 14, Split.VALIDATION: 6, Split.GOLDEN: 6}  # of each class
PRODUCT = Product(
    name="lid",
    good_class=GOOD,
    classes=[GOOD, *DEFECTS],
    limits=Limits(escape_rate=1.0, overkill_rate=1.0),
    train=TrainPlan(backbone="test_resnet", pretrained="none", height=SIDE, width=SIDE, epochs=2, batch_size=8),
    student=StudentPlan(backbone="test_efficientnet", epochs=2, calibration_pictures=8),
)


def render(folder: Path) -> Path:
    """A directory of rendered parts whose sides and boxes are given."""
    rows, drawn, look = [], [], Look(size=SIDE, contrast=1.8, defect_size=1.8)
    sides = [side for side, count in PARTS.items() for _ in range(count)]
    for index, (kind, side) in enumerate(((kind, side) for side in sides for kind in PRODUCT.classes), start=1):
        name = f"{index:03}.png"
        picture, truth = render_with_truth(PartSpec(name, 7, index, kind, look))
        (folder / name).write_bytes(encode_png(picture))
        rows.append((name, kind, side.value))
        drawn += [(name, box.x, box.y, box.x + box.width, box.y + box.height) for box in truth.boxes]
    with (folder / "labels.csv").open("w", newline="") as out:
        csv.writer(out).writerows([("path", "label", "split"), *rows])
    with (folder / "boxes.csv").open("w", newline="") as out:
        csv.writer(out).writerows([("path", "x0", "y0", "x1", "y1"), *drawn])
    return folder


def with_pictures_of(settings: Settings, store: Store, snapshot: Snapshot, folder: Path, *sides: Split) -> Store:
    """The same store, but for the pictures of the other sides: who reads one of those finds it missing."""
    partial = Store.open(settings.database_url, f"file://{folder}")
    for example in (e for side in sides for e in snapshot.of(side)):
        partial.blobs.put("pictures", store.blobs.get(f"pictures/{example.picture}"))
    partial.blobs.put_at(f"snapshots/{snapshot.digest}.json", snapshot.canonical())
    return partial


def looks(store: Store) -> int:
    """How often the golden parts were looked at."""
    with store.begin(read_only=True) as session:
        return session.scalar(select(func.count()).select_from(GoldenLookRow)) or 0


@dataclass(frozen=True)
class Chain:
    """What the chain left, with the looks at the golden parts counted after each stage."""

    settings: Settings
    store: Store
    material: Material
    candidate: Candidate
    looks: tuple[int, int, int]
    mlflow: MlflowClient

    def scores(self, examples: list[Example]) -> NDArray[np.float32]:
        """What the shipped file says of these pictures."""
        return scores_of(self.candidate.chosen_onnx, self.material.frames(examples))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """Teach, build, prove, once for all tests. Between gate 1 and gate 2 the golden pictures do not exist."""
    folder = tmp_path_factory.mktemp("chain")
    with running_mlflow(tmp_path_factory.mktemp("mlflow")) as url:
        settings = load_settings(folder / "state", {}, mlflow_url=url)
        with Store.open(settings.database_url, settings.blob_url) as store:
            with store.begin() as session:
                save_product(session, PRODUCT)
            import_directory(settings, store, render(tmp_path_factory.mktemp("parts")), "lid", GOOD)
            snapshot = build_snapshot(store, "lid")
            material = Material.load(store, "lid", snapshot.digest)
            said: list[str] = []
            candidate = teach(settings, material, said.append)
            taught = looks(store)
            with with_pictures_of(settings, store, snapshot, folder / "seen", Split.TRAIN, Split.VALIDATION) as partial:
                candidate = build(settings, partial, candidate, said.append)
            built = looks(store)
            candidate = prove(settings, store, candidate, who="test")
            counted = (taught, built, looks(store))
            yield Chain(settings, store, material, candidate, counted, MlflowClient(url, url))


def test_the_record_of_a_candidate_comes_back_as_it_was_written(chain: Chain) -> None:
    """After every stage has run, each of its fields is there for another process to read."""
    assert load_candidate(chain.settings, chain.candidate.run_id) == chain.candidate
    empty = [name for name, value in chain.candidate if value is None]
    assert empty == ["champion_2"]  # there is no champion yet


def test_each_look_at_the_golden_parts_is_counted(chain: Chain) -> None:
    """One for gate 1, none while the bundle is made, one for gate 2, each with its reason."""
    assert chain.looks == (1, 1, 2)
    with chain.store.begin(read_only=True) as session:
        why = list(session.scalars(select(GoldenLookRow.why).order_by(GoldenLookRow.id)))
    assert why == ["gate 1", f"gate 2 of bundle {str(chain.candidate.bundle)[:12]}"]


def test_the_int8_file_is_calibrated_on_training_pictures_only(chain: Chain, tmp_path: Path) -> None:
    """The training pictures alone make the very same file."""
    snapshot, again = chain.material.snapshot, chain.candidate.model_copy(update={"folder": tmp_path / "again"})
    again.folder.mkdir()
    with with_pictures_of(chain.settings, chain.store, snapshot, tmp_path / "seen", Split.TRAIN) as partial:
        material = Material.load(partial, "lid", snapshot.digest)
        quantize(chain.candidate.float_onnx, calibration_frames(material), "minmax", again.int8_onnx)
    assert again.int8_onnx.read_bytes() == chain.candidate.int8_onnx.read_bytes()


def test_thresholds_come_from_the_validation_side_only(chain: Chain) -> None:
    """Scores of the validation parts alone give the very same recipes, the teacher's and the bundle's."""
    candidate, examples = chain.candidate, chain.material.of(Split.VALIDATION)
    labels, parts = [e.label for e in examples], [e.part for e in examples]
    teacher = load_trained(candidate.teacher / "trained")
    exact = predict(teacher, examples, chain.material.picture)
    assert calibrate(exact, labels, teacher.classes, PRODUCT, version=1, parts=parts) == candidate.teacher_recipe
    shipped, number = chain.scores(examples), candidate.version or 0
    assert calibrate(shipped, labels, teacher.classes, PRODUCT, version=number, parts=parts) == candidate.recipe


def test_the_agent_s_own_program_says_of_the_bundle_what_its_file_says_here(chain: Chain) -> None:
    """One verdict per picture, in their order, by this bundle, with the decision that scores and recipe give."""
    recipe, bundle = chain.candidate.recipe, chain.candidate.bundle_file.read_bytes()
    assert recipe is not None
    examples = chain.material.of(Split.VALIDATION)
    verdicts = [verdict for verdict, _ in replay(bundle, golden_pictures(examples, chain.material.picture))]
    assert {verdict.bundle_digest for verdict in verdicts} == {chain.candidate.bundle}
    assert [(v.sequence, v.part) for v in verdicts] == [(place, e.part) for place, e in enumerate(examples, start=1)]
    rows = [dict(zip(PRODUCT.classes, map(float, row), strict=True)) for row in chain.scores(examples)]
    assert [v.decision for v in verdicts] == [decide(row, recipe).decision for row in rows]


def test_which_file_was_chosen_is_on_record_and_is_the_one_in_the_bundle(chain: Chain) -> None:
    """Candidate, manifest, bytes and the registered version name one precision."""
    candidate, shipped = chain.candidate, chain.candidate.shipped
    assert shipped is not None
    manifest = read_manifest(candidate.bundle_file.read_bytes())
    held = {entry.path: entry.sha256 for entry in manifest.files}
    assert held["model.onnx"] == sha256_hex(candidate.chosen_onnx.read_bytes())
    assert (manifest.precision, manifest.runtime) == (shipped.precision, shipped.runtime)
    assert (shipped.precision == "float32") == (candidate.chosen_onnx == candidate.float_onnx)
    assert manifest.origin is not None
    assert manifest.origin.mlflow_run_id == candidate.run_id
    version = chain.mlflow.get_model_version(edge_name("lid"), str(candidate.edge_version))
    assert version.tags["precision"] == shipped.precision


def test_the_run_of_the_edge_version_says_what_it_was_made_from(chain: Chain) -> None:
    """The snapshot as its dataset, the environment, the commit: without a look at any other run."""
    version = chain.mlflow.get_model_version(edge_name("lid"), str(chain.candidate.edge_version))
    run = chain.mlflow.get_run(version.run_id)
    assert (run.info.run_id, run.data.tags["kind"]) == (chain.candidate.student_run_id, "student")
    (dataset,) = run.inputs.dataset_inputs
    assert chain.candidate.snapshot.startswith(dataset.dataset.digest)
    assert run.data.tags["snapshot"] == chain.candidate.snapshot
    assert {"env.python", "env.cpu", "env.torch", "env.onnxruntime"} <= run.data.tags.keys()
    assert run.data.tags.get("mlflow.source.git.commit") == commit()
    assert "environment.json" in {f.path for f in chain.mlflow.list_artifacts(run.info.run_id)}


def test_the_run_of_the_edge_version_says_how_good_the_bundle_is(chain: Chain) -> None:
    """Gate 2's card, answer and plots are the bundle's; what compares candidates stands on the teacher's run too."""
    card, student, recipe = chain.candidate.golden_2, str(chain.candidate.student_run_id), chain.candidate.recipe
    assert card is not None
    assert recipe is not None
    for run_id in (student, chain.candidate.run_id):
        data = chain.mlflow.get_run(run_id).data
        assert (data.tags["gate2"], data.metrics["bundle/overkill_rate"]) == ("PASS", card.overkill.value)
        assert recipe.promise is not None
        assert (data.tags["promise.bundle"], data.metrics["promise/bundle_parts"]) == (recipe.promise.words, 12)
    folders = ("plots", "gates", "scorecards")
    assert {f.path for folder in folders for f in chain.mlflow.list_artifacts(student, folder)} == {
        "plots/build_search.png",
        "plots/confusion.png",
        "plots/escape_against_overkill.png",
        "plots/worst_offenders.png",
        "gates/gate2.json",
        "scorecards/bundle.json",
        "scorecards/bundle.md",
        "scorecards/map.json",
        "scorecards/map.md",
    }


def test_where_the_bundle_points_is_told_beside_how_it_decides(chain: Chain) -> None:
    """Its regions against the golden parts' boxes: on both runs, and in the account of the retrain."""
    score = map_score_of(chain.candidate)
    assert score is not None
    boxes = sum(len(example.boxes) for example in chain.material.of(Split.GOLDEN))
    assert (score.hit.parts, score.good_marked.parts) == (boxes, PARTS[Split.GOLDEN])
    for run_id in (chain.candidate.run_id, str(chain.candidate.student_run_id)):
        assert chain.mlflow.get_run(run_id).data.metrics["map/boxes_hit"] == score.hit.value
    text = account_of(chain.settings, chain.store, chain.candidate, "Shipped.")
    assert f"## Where the bundle points, against the boxes people drew\n\n{score.to_markdown()}" in text


def test_a_proved_bundle_is_signed_once(chain: Chain) -> None:
    """Bundle and recipe become targets whose signed statements a device accepts; signing again changes nothing."""
    signed = deploy.sign(chain.settings, chain.store, chain.candidate)
    assert signed == deploy.sign(chain.settings, chain.store, chain.candidate)
    assert signed[0] == chain.candidate.bundle
    trust = trust_root(load_or_create_keys(chain.settings.keys))
    with chain.store.begin(read_only=True) as session:
        rows = {row.sha256: row for row in session.scalars(select(BundleRow))}
    assert rows.keys() == set(signed)
    assert {verify_release(row.envelope or b"", trust).sha256 for row in rows.values()} == set(signed)
    assert read_manifest(chain.store.blobs.get(f"targets/{signed[0]}")).version == chain.candidate.version


def test_the_champion_s_teacher_is_judged_on_its_own_tiles(chain: Chain) -> None:
    """A product that is tiled since compares with what the champion does, not with what it never learnt."""
    place, recipe = chain.candidate.teacher / "trained", chain.candidate.teacher_recipe
    assert recipe is not None
    tiled = recipe.model_copy(update={"tiling": Tiling(rows=2, columns=2)})
    former, golden = load_trained(place), chain.material.of(Split.GOLDEN)
    judgement = judge_teacher(chain.material, former, ChampionTeacher("run", place, tiled), who="test")
    scores = predict(former, golden, chain.material.picture, framed=tiled)
    assert judgement.champion == golden_card(chain.material, judged(scores, former.classes, golden, tiled))
    assert judgement.champion != judgement.card


def test_a_bundle_built_anew_has_passed_nothing_yet(chain: Chain, tmp_path: Path) -> None:
    """What was said of the one before is said of no other; and while the file is written, of none."""
    folder = tmp_path / "again"
    shutil.copytree(chain.candidate.folder, folder)
    again = build(chain.settings, chain.store, chain.candidate.model_copy(update={"folder": folder}), lambda _: None)
    assert again.bundle not in (None, chain.candidate.bundle)
    assert (again.gate_2, again.golden_2, again.champion_2) == (None, None, None)
    with pytest.raises(UsageError, match="gate 2 was not asked"):
        deploy.sign(chain.settings, chain.store, again)


def test_every_figure_can_be_rebuilt_from_the_run_s_id(chain: Chain) -> None:
    """The product of today changes nothing: the same weights to the bit."""
    with chain.store.begin() as session:
        save_product(session, PRODUCT.model_copy(update={"train": PRODUCT.train.model_copy(update={"seed": 99})}))
    figures = rebuild(chain.settings, chain.store, load_candidate(chain.settings, chain.candidate.run_id), lambda _: None)
    assert [figure.name for figure in figures if not figure.same] == []
    names = {figure.name for figure in figures}
    assert {"teacher: weights, SHA-256", "teacher: escape_rate", "gate 1: answer"} <= names
    assert {"student: weights, SHA-256", "bundle: recipe"} <= names
    measured = ("length", "agreement", "teacher_agreement", "accuracy_drop", "escape", "overkill")
    tried = [f"student, {one.build}" for one in chain.candidate.searched]
    assert len(tried) >= 4  # float, plain, minmax, stem
    assert {f"{one}: {figure}" for one in tried for figure in measured} <= names
    assert {"bundle: overkill_rate", "gate 2: answer", "map: boxes_hit"} <= names
    assert not list(chain.candidate.folder.rglob("pictures-*"))
    assert f"all {len(figures)} figures are the same" in in_words(figures)


def test_a_figure_that_cannot_be_rebuilt_is_named(chain: Chain) -> None:
    """A bundle file that was changed since, and a run of an older version. Limits that people changed after gate 1 change
    nothing: it is asked with its own."""
    candidate = load_candidate(chain.settings, chain.candidate.run_id)
    card, then = candidate.golden_1, candidate.definition
    assert card is not None
    assert then is not None
    stricter = then.model_copy(update={"limits": then.limits.model_copy(update={"escape_rate": 1e-6})})
    changed = {"golden_1": card.model_copy(update={"auroc": 0.123}), "bundle": None, "definition": stricter}
    other = candidate.model_copy(update=changed)
    figures = rebuild(chain.settings, chain.store, other, lambda _: None)
    assert [figure.name for figure in figures if not figure.same] == ["teacher: auroc"]
    assert f"1 of {len(figures)} figures differ" in in_words(figures)
    with pytest.raises(UsageError, match="did not keep what it was made from"):
        rebuild(chain.settings, chain.store, candidate.model_copy(update={"definition": None}), lambda _: None)
