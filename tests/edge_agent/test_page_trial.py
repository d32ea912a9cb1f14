"""What a challenge comes to, who may start one, and what is left of it on the disk."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import DeviceError
from edge_agent.inspecting import Active
from edge_agent.page.challenge import IDLE_SECONDS, ChallengeError, Challenges
from edge_agent.page.pin import Pin, PinError
from edge_agent.page.records import RECORDS_NAME, Records
from edge_agent.page.trial import MOST_ERRORS, Known, Outcome, Plan, Trial
from inspection.contracts import Decision, Mode, Purpose, Verdict
from tests.edge_agent.helpers import DEVICE, NOW, PRODUCT, STATION
from tests.edge_agent.test_page import loaded

PIN = "2468"
ACTIVE = Active(loaded(), Mode.JUDGE)


def plan(*expected: str, confirm: bool = False) -> Plan:
    return Plan.model_validate({"parts": [{"expected": e} for e in expected], "confirm": confirm})


def verdict(decision: Decision, **changes: Any) -> Verdict:
    """A verdict of a challenge."""
    values: dict[str, Any] = {
        "id": "v",
        "device": DEVICE,
        "boot": "b",
        "sequence": 1,
        "station": STATION,
        "product": PRODUCT,
        "part": "p",
        "captured_at": NOW,
        "purpose": Purpose.CHALLENGE,
        "decision": decision,
        "bundle_digest": loaded().digest,
        "recipe_digest": loaded().recipe_digest,
        "agent_version": "0",
    }
    return Verdict(**(values | changes))


def begun(*expected: str, **how: Any) -> Trial:
    return Challenges().start(plan(*expected, **how), STATION, ACTIVE)


def after(trial: Trial, *decisions: Decision, **changes: Any) -> Trial:
    for decision in decisions:
        trial = trial.taken(verdict(decision, **changes), NOW)
    return trial


# -- the rules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "decisions", "outcome", "results"),
    [
        (("NG", "NG"), (Decision.NG, Decision.INCONCLUSIVE), Outcome.PASSED, ["caught", "caught"]),
        (("NG", "NG"), (Decision.NG, Decision.OK), Outcome.FAILED, ["caught", "missed"]),
        (("NG", "OK"), (Decision.NG, Decision.OK), Outcome.PASSED, ["caught", "passed"]),
        (("NG", "OK"), (Decision.NG, Decision.INCONCLUSIVE), Outcome.REJECTS_GOOD, ["caught", "rejected"]),
        (("NG", "OK"), (Decision.OK, Decision.NG), Outcome.FAILED, ["missed", "rejected"]),
        (("NG",), (Decision.ERROR, Decision.ERROR, Decision.NG), Outcome.PASSED, ["caught"]),
    ],
)
def test_a_challenge_comes_to_its_outcome(
    expected: tuple[str, ...], decisions: tuple[Decision, ...], outcome: Outcome, results: list[str]
) -> None:
    """Doubt catches a bad part and rejects a good one; ERROR is no answer; one escape fails it."""
    trial = after(begun(*expected), *decisions)
    assert trial.outcome is outcome
    assert [step.result for step in trial.steps] == results


@given(st.lists(st.sampled_from(["NG", "OK"]), min_size=1, max_size=8), st.data())
def test_every_part_is_judged_once_whatever_comes(expected: list[str], data: st.DataObject) -> None:
    """It ends exactly when each part has an answer that is not ERROR, and passes only when all are as expected."""
    trial = begun("NG", *expected)
    answers: list[Decision] = []
    while trial.outcome is Outcome.RUNNING:
        decision = data.draw(st.sampled_from(Decision)) if len(trial.steps[trial.position].shown) < 5 else Decision.NG
        position = trial.position
        trial = after(trial, decision)
        answers += [decision] if decision is not Decision.ERROR else []
        assert trial.position == position + (decision is not Decision.ERROR)
    as_wished = all((d is Decision.OK) == (s.expected == "OK") for d, s in zip(answers, trial.steps, strict=True))
    escaped = any(d is Decision.OK and s.expected == "NG" for d, s in zip(answers, trial.steps, strict=True))
    assert (trial.outcome is Outcome.PASSED) == as_wished
    assert (trial.outcome is Outcome.FAILED) == escaped
    assert after(trial, Decision.OK) == trial


def test_only_good_parts_are_no_challenge() -> None:
    """They prove nothing about escapes; neither does an empty plan, nor names that are no names."""
    for parts in ([], [{"expected": "OK"}], [{"expected": "NG", "name": "a\nb"}], [{"expected": "ERROR"}]):
        with pytest.raises(ValueError, match=r"part|printable|NG"):
            Plan.model_validate({"parts": parts})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"bundle_digest": "0" * 64}, "another bundle"),
        ({"recipe_digest": "0" * 64}, "another recipe"),
        ({"mode": Mode.COLLECT, "bundle_digest": None, "recipe_digest": None}, "mode collect"),
    ],
)
def test_what_judges_must_not_change_meanwhile(changes: dict[str, Any], why: str) -> None:
    """Half a challenge of one bundle and half of another proves neither."""
    trial = after(begun("NG", "NG"), Decision.NG)
    trial = after(trial, Decision.INCONCLUSIVE, **changes)
    assert trial.outcome is Outcome.ENDED_EARLY
    assert why in str(trial.why)


def test_a_part_that_can_never_be_judged_ends_it() -> None:
    """A camera that is gone is no endless challenge."""
    trial = after(begun("NG"), *[Decision.ERROR] * (MOST_ERRORS - 1), reason="dark")
    assert trial.outcome is Outcome.RUNNING
    trial = after(trial, Decision.ERROR, reason="dark")
    assert trial.outcome is Outcome.ENDED_EARLY
    assert "dark" in str(trial.why)


def test_an_escape_stays_an_escape_when_it_is_cancelled() -> None:
    """A miss that was seen is not taken back by ending early."""
    assert after(begun("NG", "NG"), Decision.OK).ended(NOW, "cancelled").outcome is Outcome.FAILED


# -- one that runs ----------------------------------------------------------------------------------------------------


def test_one_runs_at_a_time_and_only_where_something_is_judged() -> None:
    """Said in words, each."""
    challenges = Challenges()
    with pytest.raises(ChallengeError, match="HOLD"):
        challenges.start(plan("NG"), STATION, Active(None, Mode.JUDGE))
    with pytest.raises(ChallengeError, match="only collects"):
        challenges.start(plan("NG"), STATION, Active(loaded(), Mode.COLLECT))
    challenges.start(plan("NG"), STATION, ACTIVE)
    with pytest.raises(ChallengeError, match="already"):
        challenges.start(plan("NG"), STATION, ACTIVE)
    challenges.cancel("enough")
    for act in (challenges.show, lambda: challenges.cancel("again")):
        with pytest.raises(ChallengeError, match="no challenge"):
            act()


def test_a_forgotten_challenge_ends_by_itself_on_the_next_part() -> None:
    """Ten minutes without a part: that part is production again, with or without a page."""
    now = 0.0
    challenges = Challenges(clock=lambda: now)
    challenges.start(plan("NG", "NG"), STATION, ACTIVE)
    now = IDLE_SECONDS - 1
    assert challenges.mark() is Purpose.CHALLENGE
    challenges.take(verdict(Decision.NG))
    now += IDLE_SECONDS - 1
    assert challenges.mark() is Purpose.CHALLENGE
    now += 1
    assert challenges.mark() is Purpose.PRODUCTION
    assert challenges.latest is not None
    assert challenges.latest.outcome is Outcome.ENDED_EARLY


def test_a_part_from_before_the_start_or_after_the_end_does_not_count() -> None:
    """What was being inspected when the person pressed the button is no known part."""
    challenges = Challenges()
    assert challenges.mark() is Purpose.PRODUCTION
    challenges.start(plan("NG", "NG"), STATION, ACTIVE)
    challenges.take(verdict(Decision.OK, purpose=Purpose.PRODUCTION))
    assert challenges.mark() is Purpose.CHALLENGE
    challenges.cancel("again")
    challenges.start(plan("NG", "NG"), STATION, ACTIVE)
    challenges.take(verdict(Decision.OK))
    running = challenges.running
    assert running is not None
    assert running.position == 0
    assert not running.steps[0].shown


def test_with_a_camera_that_runs_by_itself_a_part_counts_when_it_lies_there() -> None:
    """Every picture is marked, the line is told NG, but only the first one after PART IS THERE counts."""
    challenges = Challenges()
    challenges.start(plan("NG", "NG", confirm=True), STATION, ACTIVE)
    for _ in range(3):
        assert challenges.mark() is Purpose.CHALLENGE
        challenges.take(verdict(Decision.OK))
    assert challenges.mark() is Purpose.CHALLENGE
    challenges.show()
    challenges.take(verdict(Decision.OK))  # its inspection began before
    for position in (0, 1):
        assert challenges.running is not None
        assert challenges.running.position == position
        challenges.show()
        challenges.mark()
        challenges.take(verdict(Decision.NG))
    assert challenges.running is None
    assert challenges.latest is not None
    assert challenges.latest.outcome is Outcome.PASSED
    assert challenges.mark() is Purpose.PRODUCTION


def test_a_known_part_says_what_it_must_get() -> None:
    """Nothing but NG or OK can be expected."""
    assert Known(expected="NG").name == ""
    with pytest.raises(ValueError, match="INCONCLUSIVE"):
        Known.model_validate({"expected": "INCONCLUSIVE"})


# -- on the disk ------------------------------------------------------------------------------------------------------


def finished(why: str | None = None, *decisions: Decision) -> Trial:
    trial = after(begun("NG"), *decisions or (Decision.NG,))
    return trial if why is None else begun("NG").ended(datetime.now(UTC), why)


def test_records_are_only_added_to_and_a_torn_line_is_skipped(tmp_path: Path) -> None:
    """Cut anywhere, the last whole record is found, and the next begins on its own line."""
    records = Records(tmp_path / RECORDS_NAME)
    assert records.last() is None
    first, second = finished(), finished(None, Decision.OK)
    records.append(first)
    one = (tmp_path / RECORDS_NAME).read_bytes()
    records.append(second)
    whole = (tmp_path / RECORDS_NAME).read_bytes()
    assert whole.startswith(one)
    assert records.last() == second
    for length in (len(one) + 1, len(whole) - 2, len(whole) - 40):
        (tmp_path / RECORDS_NAME).write_bytes(whole[:length])
        assert records.last() == first
        records.append(second)
        assert records.last() == second


def test_other_writers_lines_are_skipped(tmp_path: Path) -> None:
    """Junk, another version, another document: passed over, never believed."""
    records = Records(tmp_path / RECORDS_NAME)
    records.append(finished())
    good = json.loads((tmp_path / RECORDS_NAME).read_text())
    with (tmp_path / RECORDS_NAME).open("ab") as out:
        for line in (b"\xff\xfe", b"null", b"{}", json.dumps(good | {"schema": "escapement.challenge/2.0"}).encode()):
            out.write(line + b"\n")
    records.append(finished("cancelled"))
    last = records.last()
    assert last is not None
    assert last.id == good["id"]


def test_a_disk_that_refuses_is_said(tmp_path: Path) -> None:
    """In words, with the next step."""
    with pytest.raises(DeviceError, match="read-only"):
        Records(tmp_path / "nowhere" / RECORDS_NAME).append(finished())
    (tmp_path / RECORDS_NAME).mkdir()
    with pytest.raises(DeviceError, match="cannot be read"):
        Records(tmp_path / RECORDS_NAME).last()


def test_guessing_stays_slow_however_often_it_is_tried() -> None:
    """After days of it each wrong try still costs five minutes, and is still a wrong try."""
    now = 0.0
    pin = Pin(PIN, clock=lambda: now)
    for _ in range(1100):
        with pytest.raises(PinError, match="wrong PIN"):
            pin.check("0000")
        now += pin.wait_seconds
    with pytest.raises(PinError, match="wrong PIN"):
        pin.check("0000")
    assert pin.wait_seconds == 300


def test_guessing_gets_slower_up_to_five_minutes() -> None:
    """Each wrong try doubles the wait; a right one ends it."""
    now = 0.0
    pin, waits = Pin(PIN, clock=lambda: now), []
    for _ in range(14):
        with pytest.raises(PinError, match="wrong PIN"):
            pin.check("0000")
        waits.append(pin.wait_seconds)
        if waits[-1]:
            with pytest.raises(PinError, match="wait") as refused:
                pin.check(PIN)
            assert refused.value.wait_seconds == waits[-1]
        now += waits[-1]
    assert waits[:5] == [0, 0, 2, 4, 8]
    assert waits[-3:] == [300, 300, 300]
    pin.check(PIN)
    with pytest.raises(PinError, match="wrong PIN"):
        pin.check("0000")
    pin.check(PIN)
