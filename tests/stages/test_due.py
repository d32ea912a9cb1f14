"""When a retrain is due."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from inspection.contracts import Limits
from inspection.data.labels import Answer, last_label_id, record_answers
from inspection.data.product import Product, RetrainPlan
from inspection.data.products import save_product
from inspection.errors import AppendOnlyError
from inspection.stages.due import considered_label_id, is_due, record_failure, wait_after
from inspection.store.session import Store
from inspection.store.tables import GateDecisionRow, PictureRow, PromotionRow, SnapshotRow, utc_now
from tests.store.places import Place

PRODUCT = Product(
    name="lid",
    good_class="good",
    classes=["good", "dent"],
    limits=Limits(escape_rate=0.1, overkill_rate=0.1),
    retrain=RetrainPlan(min_new_labels=3),
)


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    """A store with the product and nothing else."""
    with place.open() as opened:
        with opened.begin() as session:
            save_product(session, PRODUCT)
        yield opened


def label(session: Session, *numbers: int, name: str = "good") -> None:
    """Pictures with an answer each."""
    answers = []
    for number in numbers:
        sha256 = f"{number:064x}"
        session.add(
            PictureRow(
                sha256=sha256, length=1, media_type="image/png", width=1, height=1, phash="0" * 16, product="lid",
                part=f"p{number}", group=f"p{number}", source="import",
            )
        )  # fmt: skip
        answers.append(
            Answer(
                product="lid", picture=sha256, origin="import", origin_id=sha256, label=name, boxes=[],
                annotator="test", made_at=datetime.now(UTC),
            )
        )  # fmt: skip
    session.flush()
    record_answers(session, answers)


def snapshot(session: Session, last_label: int) -> str:
    """A snapshot that considered the labels up to ``last_label``."""
    name = f"{last_label:064x}"
    session.add(SnapshotRow(id=name, product="lid", last_label_id=last_label, counts={}))
    session.flush()
    return name


def fail(store: Store, *, times: int = 1) -> None:
    """Retrains that broke on the labels there are."""
    for _ in range(times):
        with store.begin() as session:
            record_failure(session, "lid", is_due(session, PRODUCT).newest_label, "snapshot", "the disk is full")


def due(store: Store, *, in_minutes: float = 0) -> bool:
    """What the rule says now, or later."""
    with store.begin(read_only=True) as session:
        return is_due(session, PRODUCT, now=utc_now() + timedelta(minutes=in_minutes)).due


def test_a_retrain_is_due_from_the_planned_number_of_labels_on(store: Store) -> None:
    """Two labels are too few, three are enough."""
    with store.begin() as session:
        label(session, 1, 2)
    assert not due(store)
    with store.begin() as session:
        label(session, 3)
    assert due(store)


def test_a_snapshot_of_a_killed_retrain_settles_nothing(store: Store) -> None:
    """Without a decision the labels still wait."""
    with store.begin() as session:
        label(session, 1, 2, 3)
        snapshot(session, 3)
    assert due(store)


@pytest.mark.parametrize("answer", ["FAIL", "INSUFFICIENT"])
def test_a_refusal_settles_the_labels_it_rests_on(store: Store, answer: str) -> None:
    """The same labels would give the same answer; new ones may not."""
    with store.begin() as session:
        label(session, 1, 2, 3)
        name = snapshot(session, 3)
        session.add(GateDecisionRow(product="lid", gate=1, subject="run", snapshot=name, answer=answer, why="why", body={}))
    assert not due(store)
    with store.begin() as session:
        label(session, 4, 5, 6)
    assert due(store)


def test_passing_a_gate_settles_nothing_until_the_model_is_promoted(store: Store) -> None:
    """Between gate 1 and the ledger a killed worker must be followed by another."""
    with store.begin() as session:
        label(session, 1, 2, 3)
        name = snapshot(session, 3)
        session.add(GateDecisionRow(product="lid", gate=1, subject="run", snapshot=name, answer="PASS", why="why", body={}))
    assert due(store)
    with store.begin() as session:
        session.add(
            PromotionRow(
                product="lid", serial=1, role="challenger", model_version="1", run_id="run", snapshot=name,
                bundle="b" * 64, recipe="c" * 64, fencing_token=1, who="test", why="why",
            )
        )  # fmt: skip
    assert not due(store)


def test_what_broke_once_is_tried_again_and_what_broke_twice_waits(store: Store) -> None:
    """A server that was away comes back; a fault that stays is not met again at every tick, but it is after an hour."""
    with store.begin() as session:
        label(session, 1, 2, 3)
    fail(store)
    assert due(store)
    fail(store)
    assert [due(store, in_minutes=minutes) for minutes in (0, 59, 61)] == [False, False, True]
    fail(store)
    assert [due(store, in_minutes=minutes) for minutes in (61, 119, 121)] == [False, False, True]


def test_a_new_label_ends_the_wait(store: Store) -> None:
    """It may be the correction that was lacking; the failures on the labels before it do not count any more."""
    with store.begin() as session:
        label(session, 1, 2, 3)
    fail(store, times=3)
    assert not due(store)
    with store.begin() as session:
        label(session, 4)
    assert due(store)


def test_a_wait_says_what_broke_and_when_it_ends(store: Store) -> None:
    """The words are what a person finds as the message of the run that did not begin."""
    with store.begin() as session:
        label(session, 1, 2, 3)
    fail(store, times=2)
    with store.begin(read_only=True) as session:
        why = is_due(session, PRODUCT).why
    assert why.startswith(
        "2 retrains failed on these labels, the last in 'snapshot' (the disk is full): the next begins after"
    )
    assert "new label" in why
    assert "force" in why


def test_the_wait_doubles_up_to_a_day() -> None:
    """From the second failure on; it never grows past a day, so that nothing is given up."""
    hours = [wait_after(failures) / timedelta(hours=1) for failures in (0, 1, 2, 3, 4, 5, 6, 7, 8, 1000)]
    assert hours == [0, 0, 1, 2, 4, 8, 16, 24, 24, 24]


@pytest.mark.parametrize("statement", ["UPDATE failed_retrains SET why = ''", "DELETE FROM failed_retrains"])
def test_a_failed_retrain_stays_on_record(store: Store, statement: str) -> None:
    """The database itself refuses to change or forget one."""
    fail(store)
    with pytest.raises(AppendOnlyError, match="append-only"), store.begin() as session:
        session.execute(text(statement))


def ready_for_a_cold_start(**changes: object) -> Product:
    """The product, with ten good parts enough for a cold start."""
    plan = {"min_new_labels": 100, "cold_start_good": 10} | changes
    return PRODUCT.model_copy(update={"retrain": RetrainPlan.model_validate(plan)})


def cold_start_snapshot(session: Session, name: str, good: int) -> str:
    """A snapshot of good pictures alone, about which gate 2 was asked."""
    digest = name * 64
    counts = {"train": {"good": good - 2}, "validation": {"good": 1}, "golden": {"good": 1}, "refused": {}}
    session.add(SnapshotRow(id=digest, product="lid", last_label_id=last_label_id(session, "lid"), counts=counts))
    session.add(
        GateDecisionRow(product="lid", gate=2, subject="b", snapshot=digest, answer="INSUFFICIENT", why="", body={})
    )
    session.flush()
    return digest


def test_good_parts_alone_begin_a_cold_start(store: Store) -> None:
    """From the planned number of parts on; not where it is switched off, nor where no weights have learnt anything."""
    product = ready_for_a_cold_start()
    plans = {"train": product.train, "student": product.student}
    untaught = product.model_copy(
        update={name: plan.model_copy(update={"pretrained": "none"}) for name, plan in plans.items()}
    )
    with store.begin() as session:
        label(session, *range(1, 10))
        assert not is_due(session, product).due
        label(session, 10)
        due = is_due(session, product)
        assert (due.due, due.cold_start) == (True, True)
        assert due.why.startswith("10 good parts, 10 are enough for a cold start")
        assert not is_due(session, ready_for_a_cold_start(cold_start_good=None)).due
        assert not is_due(session, untaught).due


@pytest.mark.parametrize(("dents", "trains"), [(6, False), (7, True)])
def test_a_class_that_can_be_trained_is_waited_for(store: Store, dents: int, trains: bool) -> None:
    """Four dents on the training side are enough for a classifier, and six labelled ones are likely not: then, and only
    then, good parts begin without them."""
    product = ready_for_a_cold_start()
    with store.begin() as session:
        label(session, *range(1, 13))
        label(session, *range(100, 100 + dents), name="dent")
        due = is_due(session, product)
    assert (due.due, due.cold_start) == (not trains, not trains)


def test_a_cold_start_that_did_not_reach_the_lines_is_tried_again_with_half_as_many_more(store: Store) -> None:
    """Not at every label."""
    product = ready_for_a_cold_start()
    with store.begin() as session:
        label(session, *range(1, 13))
        cold_start_snapshot(session, "a", 12)
        label(session, *range(13, 18))
        assert "was made from 12 good pictures" in is_due(session, product).why
        label(session, 18)
        assert is_due(session, product).cold_start


def test_a_cold_start_settles_no_labels(store: Store) -> None:
    """What it learnt from is owed a classifier all the same."""
    with store.begin() as session:
        label(session, *range(1, 13))
        digest = cold_start_snapshot(session, "a", 12)
        session.add(
            PromotionRow(
                product="lid", serial=1, role="champion", model_version="1", run_id="run", snapshot=digest,
                bundle="b" * 64, recipe="c" * 64, fencing_token=1, who="test", why="why",
            )
        )  # fmt: skip
        session.flush()
        assert considered_label_id(session, "lid") == 0


def test_a_cold_start_that_broke_waits_like_any_retrain(store: Store) -> None:
    """Twice at once, then after an hour."""
    product = ready_for_a_cold_start()
    with store.begin() as session:
        label(session, *range(1, 13))
        for _ in range(2):
            record_failure(session, "lid", last_label_id(session, "lid"), "learn from good pictures alone", "no weights")
        assert not is_due(session, product).due
        assert is_due(session, product, now=utc_now() + timedelta(minutes=61)).cold_start
