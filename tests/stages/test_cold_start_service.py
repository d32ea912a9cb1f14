"""The first day, and the hand-over: rendered good parts make a cold start, stations shadow with it, labels come, and a
classifier with a guard takes its place; with a real MLflow as witness."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from mlflow import MlflowClient
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score
from sqlalchemy import select

from inspection.contracts import AgentState, Decision, Limits, Mode, Report, Verdict, sha256_hex
from inspection.data.product import Product, RetrainPlan, RolloutPlan, StudentPlan, TrainPlan
from inspection.data.products import add_station, load_product, save_product
from inspection.data.snapshot_record import UNUSUAL, Split
from inspection.data.snapshots import build_snapshot, load_snapshot
from inspection.demo.renderer import GOOD, Look, PartSpec, encode_png, render
from inspection.errors import UsageError
from inspection.release.assignments import newest_assignment
from inspection.release.bundle import read_manifest, read_recipe
from inspection.release.gate import Answer
from inspection.release.promotions import champion
from inspection.release.replay import GoldenPicture, replay
from inspection.release.rollout import plan_groups
from inspection.release.signing import load_or_create_keys, trust_root, verify_assignment
from inspection.settings import Settings, load_settings
from inspection.stages import cold_start, deploy
from inspection.stages.account import account_of
from inspection.stages.bring_in import import_directory
from inspection.stages.candidate import Candidate, load_candidate
from inspection.stages.due import Due, is_due
from inspection.stages.heritage import student_of_champion, teacher_of_champion
from inspection.stages.material import Material
from inspection.stages.prove import prove
from inspection.stages.rebuild import rebuild
from inspection.stages.shrink import build
from inspection.stages.teach import teach
from inspection.store.session import Store
from inspection.store.tables import DeviceRow, GateDecisionRow, StationRow
from tests.release.mlflow_server import running_mlflow

pytestmark = [pytest.mark.slow, pytest.mark.service]

SIDE = 64  # pixels
LOOK = Look(size=SIDE, contrast=1.8, defect_size=2.5)
DEFECTS, RARE = ("dent", "stain"), "chipped_edge"
GOOD_PARTS = {Split.TRAIN: 40, Split.VALIDATION: 16, Split.GOLDEN: 12}
DEFECT_PARTS = {Split.TRAIN: 10, Split.VALIDATION: 6, Split.GOLDEN: 6}  # of each class
STATIONS = {"s1": "collect", "s2": "judge"}


def definition(weights: str) -> Product:
    """A product whose student begins from these weights."""
    return Product(
        name="lid",
        good_class=GOOD,
        classes=[GOOD, *DEFECTS, RARE],
        limits=Limits(escape_rate=0.99, overkill_rate=0.99),
        train=TrainPlan(backbone="test_resnet", pretrained="none", height=SIDE, width=SIDE, epochs=2, batch_size=8),
        student=StudentPlan(backbone="test_efficientnet", pretrained=weights, epochs=2, calibration_pictures=8),
        retrain=RetrainPlan(min_new_labels=20),
        rollout=RolloutPlan(success_verdicts=1),
    )


def picture(kind: str, number: int) -> bytes:
    """A rendered part's PNG."""
    return encode_png(render(PartSpec(f"{kind}{number}", 7, number, kind, LOOK)))


def parts(folder: Path, counts: dict[str, dict[Split, int]], first: int) -> Path:
    """A directory of rendered parts, so many of each kind on each side."""
    folder.mkdir()
    rows = []
    wanted = [(kind, side) for kind, sides in counts.items() for side, count in sides.items() for _ in range(count)]
    for number, (kind, side) in enumerate(wanted, start=first):
        name = f"{number:04}.png"
        (folder / name).write_bytes(picture(kind, number))
        rows.append((name, kind, side.value))
    with (folder / "labels.csv").open("w", newline="") as out:
        csv.writer(out).writerows([("path", "label", "split"), *rows])
    return folder


@dataclass(frozen=True)
class Day:
    """A store whose product has good parts alone, and the cold start made of them."""

    settings: Settings
    store: Store
    mlflow: MlflowClient
    folder: Path
    due: Due  # before it was made
    again: Due  # and after
    candidate: Candidate

    def is_due(self) -> Due:
        """What the schedule would do now."""
        with self.store.begin(read_only=True) as session:
            return is_due(session, definition(str(self.folder / "weights.safetensors")))

    def modes(self) -> dict[str, tuple[str, str]]:
        """By station: the mode that is set, and the one it was assigned."""
        trust = trust_root(load_or_create_keys(self.settings.keys))
        with self.store.begin(read_only=True) as session:
            rows = list(session.scalars(select(StationRow).order_by(StationRow.name)))
            last = {row.name: newest_assignment(session, row.name) for row in rows}
            said = {n: "none" if a is None else verify_assignment(a.envelope, trust).mode.value for n, a in last.items()}
            return {row.name: (row.mode, said[row.name]) for row in rows}

    def report(self) -> None:
        """Every device runs what it was assigned and has made a verdict with it."""
        with self.store.begin() as session:
            for device in session.scalars(select(DeviceRow)):
                wanted = newest_assignment(session, device.station)
                if wanted is None:
                    continue
                said = Report(
                    device=device.name, station=device.station, boot="b", at=datetime.now(UTC), state=AgentState.RUNNING,
                    mode=Mode.SHADOW, assignment_serial=wanted.serial, bundle_digest=wanted.bundle,
                    recipe_digest=wanted.recipe, agent_version="1",
                    verdicts_by_digest={wanted.bundle: 1} if wanted.bundle else {},
                )  # fmt: skip
                device.report, device.last_seen = said.model_dump(mode="json"), said.at

    def roll_out(self, candidate: Candidate) -> None:
        """Sign and carry a rollout to its end."""
        deploy.start(self.settings, self.store, candidate, who="test", why="test")
        for _ in range(3):
            self.report()
            deploy.advance_rollout(self.settings, self.store, "lid", "test")
        assert deploy.rollout_state(self.store, "lid").state == "done"


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """Good parts come in, a cold start is due and made, gate 2 is asked."""
    folder = tmp_path_factory.mktemp("day")
    torch.manual_seed(4)
    weights = folder / "weights.safetensors"
    save_file(timm.create_model("test_efficientnet", pretrained=False).state_dict(), weights)
    with running_mlflow(tmp_path_factory.mktemp("mlflow")) as url:
        settings = load_settings(folder / "state", {}, mlflow_url=url)
        with Store.open(settings.database_url, settings.blob_url) as store:
            product = definition(str(weights))
            with store.begin() as session:
                save_product(session, product)
                for name, mode in STATIONS.items():
                    add_station(session, name, "lid", mode=mode)
                    session.flush()
                    session.add(DeviceRow(name=f"d-{name}", station=name, token_sha256=sha256_hex(name.encode())))
            import_directory(settings, store, parts(folder / "good", {GOOD: GOOD_PARTS}, 1), "lid", GOOD)
            with store.begin(read_only=True) as session:
                due = is_due(session, product)
            said: list[str] = []
            made = cold_start.make(settings, store, "lid", said.append)
            candidate = prove(settings, store, made, who="test")
            with store.begin(read_only=True) as session:
                again = is_due(session, product)
            yield Day(settings, store, MlflowClient(url, url), folder, due, again, candidate)


def test_good_parts_alone_make_a_cold_start_due(day: Day) -> None:
    """Forty are enough; the same parts are not tried a second time by themselves."""
    assert (day.due.due, day.due.cold_start) == (True, True)
    assert "68 good parts, 40 are enough for a cold start" in day.due.why
    assert not day.again.due
    assert "a cold start was made from 68 good pictures and is not on the lines" in day.again.why


def test_it_is_made_from_good_pictures_and_says_so(day: Day) -> None:
    """Snapshot, manifest and run; the record of the candidate is complete but for what a teacher would have left."""
    snapshot = load_snapshot(day.store, day.candidate.snapshot)
    assert snapshot.cold_start
    assert {side: len(snapshot.of(side)) for side in Split} == GOOD_PARTS
    manifest = read_manifest(day.candidate.bundle_file.read_bytes())
    assert manifest.origin.cold_start
    assert (manifest.classes, manifest.origin.snapshot_id) == ([GOOD, UNUSUAL], day.candidate.snapshot)
    assert {"shipped/latency_ms", "shipped/agreement"} <= manifest.metrics.keys()
    assert load_candidate(day.settings, day.candidate.run_id) == day.candidate
    run = day.mlflow.get_run(day.candidate.run_id)
    assert (run.data.tags["kind"], run.data.tags["gate2"]) == ("cold-start", "INSUFFICIENT")
    (version,) = day.mlflow.search_model_versions("name = 'lid-edge'")
    assert version.tags["bundle"] == day.candidate.bundle


def test_it_doubts_and_never_rejects(day: Day) -> None:
    """Whatever it is shown: INCONCLUSIVE at most, by its own program; and what good pictures do not show more often."""
    shown = [GoldenPicture(picture(kind, n), kind, f"{kind}{n}") for kind in (GOOD, RARE) for n in range(5000, 5030)]
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    verdicts = [
        v for v, _ in replay(day.candidate.bundle_file.read_bytes(), [*shown, GoldenPicture(encode_png(noise), RARE, "n")])
    ]
    assert {v.decision for v in verdicts} == {Decision.OK, Decision.INCONCLUSIVE}
    doubted = [v.decision is Decision.INCONCLUSIVE for v in verdicts]
    assert doubted[-1]
    assert verdicts[-1].scores[UNUSUAL] == pytest.approx(0.999)
    assert verdicts[-1].defect_class == UNUSUAL
    assert sum(doubted[:30]) <= 2
    assert sum(doubted[30:60]) >= 6


def test_gate_2_bounds_overkill_and_says_it_knows_nothing_of_escapes(day: Day) -> None:
    """INSUFFICIENT, with the parts it lacks; overkill on held-out good parts passed; people read both."""
    answer = day.candidate.gate_2
    assert answer is not None
    assert answer.answer is Answer.INSUFFICIENT
    assert {check.name: check.answer for check in answer.checks} == {
        "escape": Answer.INSUFFICIENT,
        "overkill": Answer.PASS,
    }
    assert "escape 0 of 0 defective parts" in answer.why
    assert answer.need_more_defective > 0
    account = account_of(day.settings, day.store, day.candidate, "Cold start.")
    assert answer.why in account
    assert f"[compared in MLflow]({day.settings.mlflow_url}/#/experiments/" in account


def test_weights_that_have_learnt_nothing_are_refused(day: Day) -> None:
    """In words that say what to set."""
    with pytest.raises(UsageError, match=r"set student\.pretrained or train\.pretrained"):
        cold_start.network_of(definition("none"))
    learnt = definition("none").model_copy(update={"train": TrainPlan(backbone="test_resnet", pretrained="hub")})
    assert cold_start.network_of(learnt).backbone == "test_resnet"
    with pytest.raises(UsageError, match="give it another name"), day.store.begin(read_only=True):
        build_snapshot(day.store, _called_unusual(day), good_only=True)


def _called_unusual(day: Day) -> Product:
    with day.store.begin() as session:
        product = definition("none").model_copy(update={"name": "other", "classes": [GOOD, UNUSUAL]})
        save_product(session, product)
    return product


def test_one_that_rejects_too_many_good_parts_is_not_signed(day: Day) -> None:
    """FAIL is FAIL for a cold start too."""
    answer = day.candidate.gate_2
    assert answer is not None
    failed = day.candidate.model_copy(update={"gate_2": answer.model_copy(update={"answer": Answer.FAIL})})
    with pytest.raises(UsageError, match="gate 2 said FAIL"):
        deploy.sign(day.settings, day.store, failed)
    trained = day.candidate.model_copy(update={"cold_start": False})
    with pytest.raises(UsageError, match="gate 1 was not asked"):
        deploy.sign(day.settings, day.store, trained)


def test_a_cold_start_s_figures_are_those_of_its_bundle(day: Day) -> None:
    """Nothing was trained that could be trained anew: the bundle is replayed."""
    figures = rebuild(day.settings, day.store, day.candidate, lambda _: None)
    assert [figure.name for figure in figures if not figure.same] == []
    assert {"bundle: overkill_rate", "gate 2: answer"} <= {figure.name for figure in figures}


@dataclass(frozen=True)
class Shadowed:
    """The cold start is on the lines; what is due then."""

    day: Day
    due: Due


@pytest.fixture(scope="module")
def shadowed(day: Day) -> Shadowed:
    """Nobody can allow it to judge before; only a cold start may go where stations collect."""
    with pytest.raises(UsageError, match="no cold start of 'lid' is on the lines"):
        deploy.allow_judging(day.store, "lid", who="ann", why="too early")
    with day.store.begin(read_only=True) as session:
        product = load_product(session, "lid")
        assert plan_groups(session, product) == [["s2"]]
        assert plan_groups(session, product, cold_start=True) == [["s1"], ["s2"]]
    day.roll_out(day.candidate)
    return Shadowed(day, day.is_due())


def test_stations_shadow_with_it_and_judge_only_where_a_person_says_so(shadowed: Shadowed) -> None:
    """What collected has left it; what judges shadows for now; a person's word is on record, and holds at the next look."""
    day = shadowed.day
    assert day.modes() == {"s1": ("shadow", "shadow"), "s2": ("judge", "shadow")}
    assert deploy.advance_rollout(day.settings, day.store, "lid", "test") == []
    bundle = deploy.allow_judging(day.store, "lid", who="ann", why="an operator looks at every part")
    assert bundle == day.candidate.bundle
    (said,) = deploy.advance_rollout(day.settings, day.store, "lid", "test")
    assert "s2 changed its mode" in said
    assert day.modes() == {"s1": ("shadow", "shadow"), "s2": ("judge", "judge")}
    with day.store.begin(read_only=True) as session:
        row = session.scalars(select(GateDecisionRow).order_by(GateDecisionRow.id.desc()).limit(1)).one()
        assert (row.answer, row.why) == ("BY HAND", "may judge, says ann: an operator looks at every part")


def test_while_nothing_can_be_trained_the_cold_start_goes_on(shadowed: Shadowed) -> None:
    """Not due, whatever good labels come; nothing that is not there is warm-started from, or compared with."""
    due, day = shadowed.due, shadowed.day
    assert (due.due, due.why) == (False, "no class of defects has pictures enough to be trained: the cold start goes on")
    material = Material.load(day.store, "lid", day.candidate.snapshot)
    assert teacher_of_champion(material, day.folder) is None
    assert student_of_champion(material, day.folder) is None


@pytest.fixture(scope="module")
def handed_over(shadowed: Shadowed) -> tuple[Day, Candidate, Due]:
    """Two classes are labelled and a third is still too rare: the retrain that is due now, up to gate 2."""
    day = shadowed.day
    counts = {GOOD: {Split.TRAIN: 1}, **dict.fromkeys(DEFECTS, DEFECT_PARTS), RARE: {Split.TRAIN: 2}}
    import_directory(day.settings, day.store, parts(day.folder / "bad", counts, 200), "lid", GOOD)
    due = day.is_due()
    material = Material.load(day.store, "lid", build_snapshot(day.store, "lid").digest)
    candidate = build(day.settings, day.store, teach(day.settings, material, print), print)
    return day, prove(day.settings, day.store, candidate, who="test"), due


def test_labels_of_the_cold_start_are_owed_a_classifier(handed_over: tuple[Day, Candidate, Due]) -> None:
    """All labels count, not only those since; a class that is still too rare is not learnt, and named."""
    day, candidate, due = handed_over
    assert (due.due, due.cold_start) == (True, False)
    assert due.why == "115 new labels since the last retrain, 20 are enough"
    snapshot = load_snapshot(day.store, candidate.snapshot)
    assert snapshot.classes == [GOOD, *DEFECTS]
    assert {item.reason for item in snapshot.refused} == {"rare_class"}


def test_the_classifier_is_compared_with_the_cold_start_it_replaces(handed_over: tuple[Day, Candidate, Due]) -> None:
    """Their classes differ; parts, labels and decisions are the same kind."""
    _, candidate, _ = handed_over
    assert candidate.gate_2 is not None
    assert candidate.champion_2 is not None
    names = {check.name for check in candidate.gate_2.checks}
    assert {"escape against champion", "overkill against champion"} <= names
    golden = DEFECT_PARTS[Split.GOLDEN] * len(DEFECTS) + GOOD_PARTS[Split.GOLDEN]
    assert len(candidate.champion_2.parts) == golden
    assert candidate.champion_2.confusion.keys() == {GOOD, *DEFECTS}


def test_a_class_that_was_left_out_is_doubted_and_good_parts_are_not(handed_over: tuple[Day, Candidate, Due]) -> None:
    """The guard alone, with bands that reject nothing: parts of the rare class are more novel than good ones, nearly all,
    and the most novel are INCONCLUSIVE (few: sixteen good parts do not say where the limit may lie)."""
    _, candidate, _ = handed_over
    data = candidate.bundle_file.read_bytes()
    manifest, own = read_manifest(data), read_recipe(data)
    assert (manifest.output.novelty, own.unfamiliar is not None) == ("novelty", True)
    assert candidate.shipped is not None
    assert candidate.shipped.guard_overkill is not None
    assert manifest.metrics["shipped/guard_overkill"] == candidate.shipped.guard_overkill <= 1 / 16
    blind = {name: band.model_copy(update={"inconclusive": 1.0, "ng": 1.0}) for name, band in own.thresholds.items()}
    guard = own.model_copy(update={"thresholds": blind, "promise": None})
    shown = [GoldenPicture(picture(kind, n), kind, f"{kind}{n}") for kind in (GOOD, RARE) for n in range(6000, 6060)]
    verdicts = [v for v, _ in replay(data, shown, recipe=guard)]
    doubted = np.array([_unfamiliar(v) for v in verdicts])
    good, rare = float(doubted[:60].mean()), float(doubted[60:].mean())
    assert good == 0
    assert rare >= 0.05
    assert roc_auc_score([0] * 60 + [1] * 60, [v.novelty for v in verdicts]) >= 0.95


def _unfamiliar(verdict: Verdict) -> bool:
    return verdict.decision is Decision.INCONCLUSIVE and str(verdict.reason).startswith("unlike anything")


def test_the_classifier_s_rollout_gives_stations_back_their_modes(handed_over: tuple[Day, Candidate, Due]) -> None:
    """Passed or not, a signed classifier judges where judging was set; the ledger names it champion."""
    day, candidate, _ = handed_over
    assert candidate.gate_2 is not None
    passed = replace_answer(candidate)
    day.roll_out(passed)
    assert day.modes() == {"s1": ("shadow", "shadow"), "s2": ("judge", "judge")}
    with day.store.begin(read_only=True) as session:
        row = champion(session, "lid")
        assert row is not None
        assert row.bundle == candidate.bundle


def replace_answer(candidate: Candidate) -> Candidate:
    """As if the gate had passed it: what two epochs taught is not the matter here."""
    assert candidate.gate_2 is not None
    return candidate.model_copy(update={"gate_2": candidate.gate_2.model_copy(update={"answer": Answer.PASS})})
