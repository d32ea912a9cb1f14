"""Which pictures are asked about."""

import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest

from inspection.contracts import Verdict
from inspection.data.intake import accept_verdicts
from inspection.data.labels import record_answers
from inspection.data.products import save_product
from inspection.data.selection import Choice, choose, open_tasks
from inspection.store.session import Store
from inspection.store.tables import TaskRow, VerdictRow, utc_now
from tests.data.conftest import PRODUCT, answer, texture

Add = Callable[..., str]
NOW = utc_now()


@pytest.fixture
def judge(store: Store, add: Add) -> Callable[..., str]:
    """A stored picture with a verdict; returns its digest."""

    def judged(
        number: int,
        decision: str,
        dent: float,
        *,
        picture: str | None = None,
        later: int = 0,
        why: str | None = None,
        challenger: str | None = None,
        purpose: str = "production",
        novelty: float | None = None,
        unusual: float | None = None,
    ) -> str:
        sha256 = picture or add(texture(number), part=str(number))
        body = {
            "id": f"v{number}-{later}",
            "device": "d",
            "boot": "b",
            "sequence": number * 100 + later + 1,
            "station": "s",
            "product": "lid",
            "part": str(number),
            "captured_at": NOW + timedelta(seconds=later),
            "decision": decision,
            "purpose": purpose,
            "scores": {"ok": 1 - dent, "scratch": 0.0, "dent": dent},
            "novelty": novelty,
            "thresholds": {"*": {"inconclusive": 0.4, "ng": 0.6}},
            "frame_sha256": sha256,
            "challenger": challenger and {"bundle_digest": "0" * 64, "decision": challenger, "infer_ms": 1.0},
            "agent_version": "0.1",
        }
        if unusual is not None:  # a cold start's verdict
            body["scores"] = {"ok": 1 - unusual, "unusual": unusual}
        with store.begin() as session:
            (receipt,) = accept_verdicts(session, [Verdict.model_validate(body)])
            default = "audit" if decision == "OK" else decision.lower()
            session.get_one(VerdictRow, receipt.key).picture_why = why or default
        return sha256

    return judged


def chosen(store: Store, budget: int, seed: int = 0) -> list[Choice]:
    with store.begin(read_only=True) as session:
        return choose(session, "lid", budget=budget, rng=random.Random(seed))


def ask(store: Store, *pictures: str, answered: bool = False) -> None:
    with store.begin() as session:
        done = utc_now() if answered else None
        session.add_all(TaskRow(product="lid", picture=p, why="audit", answered_at=done) for p in pictures)


def test_the_budget_is_divided_by_the_plan(store: Store, judge: Callable[..., str]) -> None:
    """Three audits of passed parts, three disagreements, the rest by doubt."""
    for number in range(15):
        judge(number, "OK", 0.01)
        judge(100 + number, "NG", 0.99)
    assert Counter(c.why for c in chosen(store, 10)) == {"audit": 3, "disagree": 3, "uncertain": 4}
    assert len({c.picture for c in chosen(store, 10)}) == 10


def test_doubt_is_nearness_to_a_threshold_and_inconclusive_first(store: Store, judge: Callable[..., str]) -> None:
    """Without random shares the most doubtful come in order."""
    plan = PRODUCT.collect.model_copy(update={"audit_share": 0.0, "disagree_share": 0.0})
    with store.begin() as session:
        save_product(session, PRODUCT.model_copy(update={"collect": plan}))
    near = judge(1, "OK", 0.39, why="near_threshold")
    far, between = judge(2, "NG", 0.95), judge(3, "INCONCLUSIVE", 0.5)
    assert [c.picture for c in chosen(store, 3)] == [between, near, far]


def test_a_share_goes_to_the_most_novel_however_sure_their_scores(store: Store, judge: Callable[..., str]) -> None:
    """A fifth of the budget, the most novel first; audits stay random, and the rest goes by doubt."""
    pictures = [judge(number, "NG", 0.99, novelty=number / 40) for number in range(40)]
    for number in range(10):
        judge(100 + number, "OK", 0.3, novelty=1.0)  # drawn at random by its device: an audit or nothing
        judge(200 + number, "OK", 0.39, why="near_threshold", novelty=0.0)
    why = {c.picture: c.why for c in chosen(store, 20)}
    assert Counter(why.values()) == {"audit": 6, "disagree": 6, "novel": 4, "uncertain": 4}
    novel = [pictures.index(picture) for picture, reason in why.items() if reason == "novel"]
    others = {number for number, picture in enumerate(pictures) if why.get(picture) == "disagree"}
    assert novel == [number for number in reversed(range(40)) if number not in others][:4]


def test_shares_that_fill_the_budget_leave_none_to_novelty(store: Store, judge: Callable[..., str]) -> None:
    """A plan of before, half audits and half disagreements: the budget stays what it is."""
    plan = PRODUCT.collect.model_copy(update={"audit_share": 0.5, "disagree_share": 0.5})
    with store.begin() as session:
        save_product(session, PRODUCT.model_copy(update={"collect": plan}))
    for number in range(20):
        judge(number, "NG", 0.99, novelty=0.9)
        judge(100 + number, "OK", 0.3, novelty=0.9)
    assert Counter(c.why for c in chosen(store, 10)) == {"audit": 5, "disagree": 5}


def test_a_cold_start_s_own_score_is_its_novelty(store: Store, judge: Callable[..., str]) -> None:
    """Before any label the most unusual pictures are asked about first."""
    plan = PRODUCT.collect.model_copy(update={"audit_share": 0.0, "disagree_share": 0.0, "novel_share": 1.0})
    with store.begin() as session:
        save_product(session, PRODUCT.model_copy(update={"collect": plan}))
    unusual = [0.2, 0.999, 0.6, 0.05]
    pictures = [judge(n, "OK", 0, why="near_threshold", unusual=score) for n, score in enumerate(unusual)]
    assert [(c.picture, c.why) for c in chosen(store, 3)] == [(pictures[n], "novel") for n in (1, 2, 0)]


def test_what_a_challenger_judged_otherwise_is_asked_about_first(store: Store, judge: Callable[..., str]) -> None:
    """Before the most doubtful; where both say the same to the line, doubt decides."""
    judge(1, "INCONCLUSIVE", 0.5, challenger="NG")
    told_otherwise = judge(2, "OK", 0.01, why="disagree", challenger="NG")
    (first,) = chosen(store, 1)
    assert (first.picture, first.why) == (told_otherwise, "uncertain")


def test_audits_are_drawn_from_all_passed_parts(store: Store, judge: Callable[..., str]) -> None:
    """Over many draws every passed part is audited about equally often, however sure the model is."""
    passed = [judge(number, "OK", number / 30) for number in range(10)]
    drawn = Counter(c.picture for seed in range(400) for c in chosen(store, 3, seed) if c.why == "audit")
    assert set(drawn) == set(passed)
    assert max(drawn.values()) < 2 * min(drawn.values())


def test_only_what_the_device_drew_at_random_is_an_audit(store: Store, judge: Callable[..., str]) -> None:
    """A passed part kept for its score is asked about as uncertain; a drawn one never is, however doubtful."""
    near = {judge(number, "OK", 0.1, why="near_threshold") for number in range(3)}
    drawn = {judge(100 + number, "OK", 0.39) for number in range(6)}
    for budget in (4, 6, 9):
        why = {c.picture: c.why for c in chosen(store, budget)}
        assert {picture for picture, reason in why.items() if reason == "audit"} <= drawn
        assert {picture for picture, reason in why.items() if reason == "uncertain"} <= near
        assert len(why) == budget


def test_the_same_rng_gives_the_same_choice(store: Store, judge: Callable[..., str]) -> None:
    """A run can be repeated."""
    for number in range(12):
        judge(number, "OK" if number % 2 else "NG", 0.3)
    assert chosen(store, 6, seed=1) == chosen(store, 6, seed=1) != chosen(store, 6, seed=2)


def test_a_picture_is_asked_about_once(store: Store, judge: Callable[..., str], add: Add) -> None:
    """Neither one with a task, answered or not, nor one with an answer is chosen again."""
    asked, answered, labelled, free = (judge(number, "NG", 0.9) for number in range(4))
    add(texture(50), part="no verdict")
    ask(store, asked)
    ask(store, answered, answered=True)
    with store.begin() as session:
        record_answers(session, [answer(labelled, "dent", origin_id="1")])
    assert [c.picture for c in chosen(store, 10)] == [free]


def test_the_latest_verdict_counts(store: Store, judge: Callable[..., str]) -> None:
    """A picture judged again is chosen by its newest verdict, once."""
    picture = judge(1, "NG", 0.9)
    judge(1, "OK", 0.1, picture=picture, later=5)
    assert chosen(store, 10) == [Choice(picture, "audit", "v1-5")]


def test_known_parts_of_a_challenge_are_not_asked_about(store: Store, judge: Callable[..., str]) -> None:
    """Whatever was decided and why their pictures were kept: what they are is known, and they are no sample of the line."""
    for number, decision in enumerate(("OK", "NG", "INCONCLUSIVE")):
        judge(number, decision, 0.5, purpose="challenge")
    judge(3, "OK", 0.39, why="near_threshold", purpose="challenge")
    made = judge(4, "OK", 0.1)
    judge(4, "NG", 0.9, picture=made, later=5, purpose="challenge")
    assert chosen(store, 10) == [Choice(made, "audit", "v4-0")]


def test_open_questions_limit_the_next(store: Store, judge: Callable[..., str]) -> None:
    """Operators are not flooded: open tasks count against the plan's limit."""
    plan = PRODUCT.collect.model_copy(update={"max_open_tasks": 3})
    with store.begin() as session:
        save_product(session, PRODUCT.model_copy(update={"collect": plan}))
    pictures = [judge(number, "NG", 0.9) for number in range(8)]
    ask(store, *pictures[:2])
    assert len(chosen(store, 10)) == 1
    ask(store, pictures[2])
    assert chosen(store, 10) == []
    with store.begin(read_only=True) as session:
        assert open_tasks(session, "lid") == 3


def test_a_verdict_without_its_picture_is_not_chosen(store: Store) -> None:
    """Only what can be shown can be asked."""
    body = {
        "id": "v",
        "device": "d",
        "boot": "b",
        "sequence": 1,
        "station": "s",
        "product": "lid",
        "part": "1",
        "captured_at": NOW,
        "decision": "NG",
        "frame_sha256": "0" * 64,
        "agent_version": "0.1",
    }
    with store.begin() as session:
        accept_verdicts(session, [Verdict.model_validate(body)])
    assert chosen(store, 10) == []
