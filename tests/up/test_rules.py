"""The rules of supervision, tried with plain values."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from inspection.up.rules import Action, Answer, Limits, Phase, Seen, Watch, back_off, step

LIMITS = Limits()
READY = 30.0
ALIVE = Seen(None, None, True)
GOOD = Seen(None, Answer.WELL, True)
UNWELL = Seen(None, Answer.UNWELL, True)
BAD = Seen(None, Answer.SILENT, True)
DEAD = Seen("ended with exit code 1", None, True)


def drive(watch: Watch, *looks: tuple[float, Seen]) -> tuple[Watch, list[Action]]:
    """Feed looks at given times; the last state and all actions."""
    actions = []
    for now, seen in looks:
        watch, action = step(watch, seen, now, READY, LIMITS)
        actions.append(action)
    return watch, actions


def healthy(at: float = 0.0) -> Watch:
    """A program that was started at ``at`` and answered at once."""
    return drive(Watch(), (at, ALIVE), (at, GOOD))[0]


def test_a_program_is_started_only_when_what_it_leans_on_is_healthy() -> None:
    """Waiting is doing nothing."""
    watch, actions = drive(Watch(), (0, replace(ALIVE, dependencies_healthy=False)), (5, ALIVE))
    assert actions == [Action.NOTHING, Action.START]
    assert (watch.phase, watch.started) == (Phase.STARTING, 5)


def test_a_program_that_never_answers_is_given_up_when_its_time_is_over() -> None:
    """The first start has one deadline, in words."""
    watch, actions = drive(Watch(), (0, ALIVE), (29, BAD), (30.1, BAD))
    assert actions[1:] == [Action.NOTHING, Action.END]
    assert (watch.phase, watch.reason) == (Phase.GIVEN_UP, "did not become ready within 30 s")


def test_deaths_before_the_first_answer_share_one_deadline_and_three_tries() -> None:
    """A program that cannot start does not keep the person waiting for ten tries."""
    watch, actions = drive(Watch(), (0, ALIVE), (1, DEAD), (2, ALIVE), (3, DEAD), (5, ALIVE), (6, DEAD))
    assert actions.count(Action.START) == 3
    assert (watch.phase, watch.deaths) == (Phase.GIVEN_UP, 3)


def test_what_dies_is_started_again_after_a_back_off() -> None:
    """Not at once, and the reason is kept for the person."""
    watch, _ = drive(healthy(), (10, DEAD))
    assert (watch.phase, watch.retry_at, watch.reason) == (Phase.BACK_OFF, 11, "ended with exit code 1")
    assert drive(watch, (10.9, DEAD))[1] == [Action.NOTHING]
    assert drive(watch, (11, DEAD))[1] == [Action.START]


def test_ten_quick_deaths_in_a_row_are_the_end() -> None:
    """The back-offs are 1, 2, 4, 8, 16, then 30 seconds."""
    watch, now, waits = healthy(), 0.0, []
    while watch.phase is not Phase.GIVEN_UP:
        watch, _ = drive(watch, (now + 1, GOOD), (now + 2, DEAD))
        waits.append(watch.retry_at - (now + 2))
        now = watch.retry_at
        watch, _ = drive(watch, (now, ALIVE))
    assert waits[:9] == [1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert watch.deaths == LIMITS.give_up_deaths


def test_a_long_life_forgives_earlier_deaths() -> None:
    """A death after an hour is the first one again."""
    watch = replace(healthy(), deaths=7)
    assert drive(watch, (3600, DEAD))[0].deaths == 1
    assert drive(watch, (59, GOOD))[0].deaths == 7
    assert drive(watch, (61, GOOD))[0].deaths == 0


def test_a_program_that_hangs_is_ended_and_started_again() -> None:
    """Sixty seconds without an answer; a short stall is forgiven."""
    stalled, actions = drive(healthy(), (100, GOOD), (150, BAD), (155, GOOD), (200, BAD))
    assert set(actions) == {Action.NOTHING}
    watch, actions = drive(stalled, (215.1, BAD))
    assert actions == [Action.END]
    assert (watch.phase, watch.reason) == (Phase.BACK_OFF, "gave no answer for 60 s")


def test_a_program_that_says_it_is_unwell_is_not_ready_and_not_restarted_either() -> None:
    """A hub whose database is away answers 503 for an hour: another hub would say the same."""
    assert drive(Watch(), (0, ALIVE), (5, UNWELL))[0].phase is Phase.STARTING
    watch, actions = drive(healthy(), *((float(now), UNWELL) for now in range(5, 3600, 5)))
    assert (watch.phase, set(actions)) == (Phase.HEALTHY, {Action.NOTHING})


def test_a_restarted_program_that_does_not_answer_is_tried_again() -> None:
    """Its deadline counts from the restart, and missing it is one more death, not the end."""
    watch, actions = drive(healthy(), (10, DEAD), (11, ALIVE), (40, BAD), (41.1, BAD))
    assert actions == [Action.END, Action.START, Action.NOTHING, Action.END]
    assert (watch.phase, watch.deaths) == (Phase.BACK_OFF, 2)


looks = st.lists(
    st.tuples(
        st.floats(0.01, 100),
        st.builds(Seen, st.sampled_from([None, "died"]), st.sampled_from([None, *Answer]), st.booleans()),
    ),
    max_size=60,
)


@given(looks)
def test_every_start_follows_an_end_and_nothing_follows_giving_up(history: list[tuple[float, Seen]]) -> None:
    """Starts and ends alternate whatever is seen, and a program given up stays so."""
    watch, now, running = Watch(), 0.0, False
    for wait, seen in history:
        now += wait
        before = watch
        watch, action = step(watch, seen, now, READY, LIMITS)
        assert before.phase is not Phase.GIVEN_UP or (watch, action) == (before, Action.NOTHING)
        assert not (action is Action.START and (running or not seen.dependencies_healthy))
        assert not (action is Action.END and not running)
        running = {Action.START: True, Action.END: False, Action.NOTHING: running}[action]
        assert running == (watch.phase in {Phase.STARTING, Phase.HEALTHY})


@given(st.integers(1, 10_000))
def test_the_back_off_grows_and_is_bounded(deaths: int) -> None:
    """Never below one second, never above thirty, never falling."""
    assert 1 <= back_off(deaths, LIMITS) <= back_off(deaths + 1, LIMITS) <= 30
