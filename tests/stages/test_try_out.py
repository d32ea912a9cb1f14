"""What `inspection train` tells people at the end."""

import pytest

from inspection.contracts import Costs, Limits
from inspection.release.gate import Answer, gate
from inspection.release.scorecard import Scorecard
from inspection.stages.try_out import Outcome
from tests.release.making import card


def outcome(judged: Scorecard, run: str | None = "3f2a") -> Outcome:
    """Of gate 1 at the limits of 5 % and 10 %."""
    return Outcome(run, judged, gate(judged, None, Limits(escape_rate=0.05, overkill_rate=0.10), Costs()))


def test_the_next_step_after_a_pass_is_the_bundle() -> None:
    """With the run to give it."""
    passed = outcome(card(0, 100, 0, 100))
    assert passed.gate.answer is Answer.PASS
    assert "next: inspection build-bundle 3f2a\n" in passed.in_words()


@pytest.mark.parametrize(
    ("judged", "answer", "advice"),
    [
        (card(0, 20, 0, 100), Answer.INSUFFICIENT, "next: label more parts (gate 1 says above what it lacks)"),
        (card(20, 100, 0, 100), Answer.FAIL, "next: look in the tables above for what it gets wrong"),
    ],
)
def test_nobody_is_sent_on_with_a_teacher_that_did_not_pass(judged: Scorecard, answer: Answer, advice: str) -> None:
    """Its bundle would be hours of work that gate 2 turns away."""
    found = outcome(judged)
    assert found.gate.answer is answer
    assert "build-bundle" not in found.in_words()
    assert advice in found.in_words()


def test_a_try_without_a_server_has_no_run_to_go_on_with() -> None:
    """The gate's own words are the last."""
    told = outcome(card(20, 100, 0, 100), run=None).in_words()
    assert "next" not in told
    assert "FAIL: escape 20 of 100" in told
