"""Cron expressions: five fields, or words about what is wrong."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect.client.schemas.schedules import CronSchedule

from inspection.data.cron import fault_of


@pytest.mark.parametrize(
    "expression",
    [
        "* * * * *",
        "*/5 * * * *",
        "0 9-17 * * mon-fri",
        "5/15 * * * *",
        "0 0 1,15 Jan-mar,dec *",
        "0 0 31 2 sun",
        " 0  6 * * 7",
    ],
)
def test_what_people_write_is_sound(expression: str) -> None:
    """Lists, ranges, steps and English names."""
    assert fault_of(expression) is None


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("every day", "has 2 fields instead of five"),
        ("@daily", "has 1 fields instead of five"),
        ("*/10 * * * * *", "has 6 fields instead of five"),
        ("", "has 0 fields instead of five"),
        ("60 * * * *", "Bad minute"),
        ("* 24 * * *", "Bad hour"),
        ("* * 0 * *", "Bad day-of-month"),
        ("* * * 13 *", "Bad month"),
        ("* * * * monday", "Bad day-of-week"),
        ("*/0 * * * *", "Bad minute"),
        ("10-5 * * * *", "Bad minute"),
        ("1,,2 * * * *", "Bad minute"),
        ("0 0 31 2 *", "Bad day-of-month"),
    ],
)
def test_what_nobody_can_run_is_told_with_its_place(expression: str, said: str) -> None:
    """The field, in the words of the library."""
    assert said in str(fault_of(expression))


def _field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    spans = st.tuples(number, number).map(sorted).map(lambda pair: f"{pair[0]}-{pair[1]}")
    terms = st.one_of(st.just("*"), number.map(str), spans)
    stepped = st.tuples(terms, st.integers(1, high)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    return st.lists(st.one_of(terms, stepped), min_size=1, max_size=3).map(",".join)


@settings(max_examples=200, deadline=None)
@given(st.tuples(_field(0, 59), _field(0, 23), _field(1, 31), _field(1, 12), _field(0, 7)).map(" ".join))
def test_what_is_sound_here_is_served_by_prefect(expression: str) -> None:
    """Nothing is accepted that the flows' process then refuses."""
    if fault_of(expression) is None:
        assert CronSchedule(cron=expression).cron == expression
