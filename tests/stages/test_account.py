"""What people read about a retrain: the decision first, then what it rests on; or where it broke and what to do."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from inspection.contracts import Costs, Limits
from inspection.data.snapshot_record import RARE_CLASS, Example, Refused, Snapshot, Split
from inspection.data.snapshots import load_snapshot
from inspection.errors import EscapementError, ServerError
from inspection.release.gate import gate
from inspection.release.thresholds import calibrate
from inspection.settings import Settings, load_settings
from inspection.stages.account import account_of, account_of_failure
from inspection.stages.candidate import Candidate, Shipped
from inspection.store.session import Store
from tests.release.making import card, product, recipe

LIMITS = Limits(escape_rate=0.1, overkill_rate=0.1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a fresh state folder."""
    return load_settings(tmp_path / "state", {})


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    """An empty store."""
    with Store.open(settings.database_url, settings.blob_url) as opened:
        yield opened


@pytest.fixture
def candidate(settings: Settings, store: Store) -> Candidate:
    """One that gate 1 was asked about, on a snapshot of five pictures with a sixth left out."""
    sides = [(side, label) for side in (Split.TRAIN, Split.GOLDEN) for label in ("good", "dent")]
    sides.append((Split.VALIDATION, "good"))
    examples = [
        Example(picture=f"{n:064x}", label=label, part=f"p{n}", group=f"p{n}", split=side)
        for n, (side, label) in enumerate(sides)
    ]
    refused = [Refused(picture="f" * 64, reason="cannot_tell", detail="anna: cannot tell")]
    snapshot = Snapshot(product="plate", good_class="good", classes=["good", "dent"], examples=examples, refused=refused)
    store.blobs.put_at(f"snapshots/{snapshot.digest}.json", snapshot.canonical())
    judged = card(1, 60, 2, 100)
    return Candidate(
        folder=settings.state / "candidate",
        product="plate",
        snapshot=snapshot.digest,
        run_id="run-7",
        started_at=datetime.now(UTC),
        comparison="http://mlflow/compare",
        golden_1=judged,
        gate_1=gate(judged, None, LIMITS, Costs()),
    )


def test_the_decision_comes_first_then_what_it_rests_on(settings: Settings, store: Store, candidate: Candidate) -> None:
    """Gate, figures, data and where to look; nothing is said of what has not happened."""
    text = account_of(settings, store, candidate, "Not shipped. Gate 1: too few parts")
    assert text.startswith("# Retrain of plate\n\n**Not shipped. Gate 1: too few parts**\n\n## Gate 1")
    assert candidate.gate_1 is not None
    assert candidate.gate_1.why in text
    assert "| escape | 1.7% (1/60;" in text
    assert "| class | train | validation | golden |\n|---|---|---|---|\n| good | 1 | 1 | 1 |\n| dent | 1 | 0 | 1 |" in text
    assert "Labelled pictures left out: 1." in text
    assert f"Run `run-7`, [compared in MLflow](http://mlflow/compare); the lines in the [hub]({settings.hub_url})." in text
    for absent in ("Gate 2", "The champion's bundle", "The device's file", "promise"):
        assert absent not in text


def test_a_gate_that_lacks_parts_says_how_many_to_label(settings: Settings, store: Store, candidate: Candidate) -> None:
    """39 golden ones of a fifth that becomes golden; of what is enough nothing is said."""
    few = card(0, 20, 0, 100)
    update = {
        "definition": product(),
        "golden_1": few,
        "gate_1": gate(few, None, Limits(escape_rate=0.05, overkill_rate=0.1), Costs()),
    }
    text = account_of(settings, store, candidate.model_copy(update=update), "Not shipped.")
    assert "need 39 more defective golden parts without a further miss" in text
    assert "20% of the parts that are labelled become golden: label about 195 more defective ones." in text


def test_classes_too_rare_to_learn_are_told_with_who_watches_for_them(
    settings: Settings, store: Store, candidate: Candidate
) -> None:
    """What to set where nobody does, as with so few good parts; of a cold start, which doubts them anyway, nothing."""
    whole = load_snapshot(store, candidate.snapshot)
    rare = [Refused(picture=f"{n:064x}", reason=RARE_CLASS, detail="2 pictures of 'burr'") for n in (98, 99)]
    snapshot = whole.model_copy(update={"refused": [*whole.refused, *rare]})
    store.blobs.put_at(f"snapshots/{snapshot.digest}.json", snapshot.canonical())
    by_itself, guarded, never = (product(student={"novelty_guard": guard}) for guard in (None, True, False))
    watched, nobody = "until there are more, a bundle doubts a part unlike", "no guard watches for such parts"
    for definition, cold_start, said in (
        (by_itself, False, nobody), (guarded, False, watched), (never, False, nobody), (by_itself, True, ""),
    ):  # fmt: skip
        changed = {"snapshot": snapshot.digest, "definition": definition, "cold_start": cold_start}
        text = account_of(settings, store, candidate.model_copy(update=changed), "Shipped.")
        assert "Labelled pictures left out: 3." in text
        assert ("2 labelled pictures show classes too rare to be learnt" in text) == bool(said)
        assert [words in text for words in (watched, nobody)] == [words == said for words in (watched, nobody)]


def test_what_the_thresholds_promise_is_told_in_its_own_words(
    settings: Settings, store: Store, candidate: Candidate
) -> None:
    """The teacher's and the bundle's, each with the parts it rests on; recipes of before promise nothing."""
    promised = calibrate(np.array([[0.9, 0.1]] * 30 + [[0.1, 0.9]] * 40), ["good"] * 30 + ["dent"] * 40, ["good", "dent"],
                         product(), version=1)  # fmt: skip
    made = candidate.model_copy(update={"teacher_recipe": promised, "recipe": recipe()})
    text = account_of(settings, store, made, "Not shipped.")
    assert promised.promise is not None
    assert f"## What the thresholds promise of escapes\n\n* Of the teacher: {promised.promise.words}.\n\n" in text
    assert "40 defective parts can at best promise 7.5%, need 21 more" in text


def test_a_shipped_file_is_told_beside_its_float_twin_and_the_champion(
    settings: Settings, store: Store, candidate: Candidate
) -> None:
    """What int8 gained and what it cost, and how the bundle before does on the same parts."""
    judged = card(0, 60, 2, 100)
    shipped = Shipped(
        precision="int8", latency_ms=1.5, float_latency_ms=4.25, agreement=0.985, length=3_100_000, float_length=9_900_000
    )
    made = candidate.model_copy(
        update={
            "shipped": shipped,
            "golden_2": judged,
            "champion_2": card(3, 60, 2, 100),
            "gate_2": gate(judged, None, LIMITS, Costs()),
        }
    )
    text = account_of(settings, store, made, "Rollout done. all groups")
    assert "| precision, runtime | int8, onnxruntime |" in text
    assert "| latency, one thread | 1.50 ms (4.25 ms as float) |" in text
    assert "| file | 3.10 MB (9.90 MB as float) |" in text
    assert "| equal verdicts with the float file | 98.50% |" in text
    assert text.index("Gate 1") < text.index("Gate 2") < text.index("The champion's bundle") < text.index("Snapshot")
    assert "| escape | 5.0% (3/60;" in text


def test_a_failure_is_told_with_its_stage_its_words_and_the_next_step() -> None:
    """One line of the error, then who must act, then what comes by itself."""
    error = ServerError("MLflow at http://m failed\n while storing the model")
    assert account_of_failure("plate", "snapshot", error, "It is tried again.") == (
        "# Retrain of plate\n\n**Failed in snapshot: MLflow at http://m failed while storing the model**\n\n"
        "Look at the server it names: is it running, is its address right?\n\nIt is tried again."
    )


def test_every_kind_of_error_has_a_step_of_its_own_and_a_foreign_one_is_called_a_fault() -> None:
    """Roots are chosen by who must act, so each of them says what to do; what is not ours is reported."""
    ours = [root("x") for root in EscapementError.__subclasses__()]
    steps = {account_of_failure("plate", "snapshot", error, "").split("\n\n")[2] for error in [*ours, KeyError("x")]}
    assert len(steps) == len(ours) + 1
    foreign = account_of_failure("plate", "snapshot", ZeroDivisionError("division by zero"), "")
    assert "**Failed in snapshot: ZeroDivisionError: division by zero**\n\nThis is a fault of a program" in foreign
