"""Labels are appended, never changed, and say now what their live answers agree on."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from inspection.contracts import Box
from inspection.data.labels import (
    answers_about,
    count_new_labels,
    current_labels,
    last_label_id,
    record_answers,
    retract,
    retract_picture,
)
from inspection.errors import LabelError, UsageError
from inspection.store.session import Store
from inspection.store.tables import LabelRow
from tests.data.conftest import answer, texture

Add = Callable[..., str]


def rows(store: Store) -> int:
    with store.begin(read_only=True) as session:
        return session.scalar(select(func.count()).select_from(LabelRow)) or 0


def now(store: Store, picture: str) -> tuple[str | None, bool, bool]:
    """(label, contradictory, cannot tell) of a picture."""
    with store.begin(read_only=True) as session:
        label = current_labels(session, "lid")[picture]
    return label.label, label.contradictory, label.cannot_tell


def test_the_same_answer_twice_is_one_row(store: Store, add: Add) -> None:
    """A pull that is repeated adds nothing, also within one call."""
    picture = add(texture(1), part="1")
    for expected in ((1, 1), (0, 2)):
        with store.begin() as session:
            done = record_answers(session, [answer(picture, "dent", origin_id="7")] * 2)
        assert (done.new, done.known) == expected
    assert rows(store) == 1


def test_a_changed_answer_is_appended_and_counts(store: Store, add: Add) -> None:
    """The latest state of an annotation is the one that counts; the earlier one is still there."""
    picture = add(texture(1), part="1")
    for label in ("dent", "scratch"):
        with store.begin() as session:
            record_answers(session, [answer(picture, label, origin_id="7")])
    assert (now(store, picture), rows(store)) == (("scratch", False, False), 2)


def test_a_moved_box_is_a_change(store: Store, add: Add) -> None:
    """Boxes are part of the answer, and come back."""
    picture = add(texture(1), part="1")
    boxes = [[Box(x=x, y=2, width=3, height=4, label="dent")] for x in (1, 1, 5)]
    for one in boxes:
        with store.begin() as session:
            given_answer = answer(picture, "dent", origin_id="7")
            record_answers(session, [type(given_answer)(**{**vars(given_answer), "boxes": one})])
    with store.begin(read_only=True) as session:
        assert current_labels(session, "lid")[picture].boxes == boxes[-1]
    assert rows(store) == 2


def test_a_retracted_answer_is_gone_until_it_is_given_again(store: Store, add: Add) -> None:
    """A retraction is a row of its own, once; the same answer afterwards is new."""
    picture = add(texture(1), part="1")
    with store.begin() as session:
        record_answers(session, [answer(picture, "dent", origin_id="7")])
        assert [retract(session, "label_studio", "7"), retract(session, "label_studio", "7")] == [True, False]
        assert not retract(session, "label_studio", "unknown")
        assert current_labels(session, "lid") == {}
        assert record_answers(session, [answer(picture, "dent", origin_id="7")]).new == 1
    assert (now(store, picture), rows(store)) == (("dent", False, False), 3)


def test_all_answers_about_a_picture_are_withdrawn_with_a_reason(store: Store, add: Add) -> None:
    """By a beginning of its digest, each by a row of its own; another picture's answers stay."""
    picture, other = add(texture(1), "ok", part="1"), add(texture(2), "ok", part="2")
    with store.begin() as session:
        record_answers(session, [answer(picture, "dent", origin_id="7")])
        gone = retract_picture(session, "lid", picture[:12], who="eve", why="lost")
        assert sorted(row.origin for row in gone) == ["import", "label_studio"]
        assert set(current_labels(session, "lid")) == {other}
        newest = session.scalars(select(LabelRow).order_by(LabelRow.id.desc())).first()
    assert newest is not None
    assert (newest.kind, newest.annotator, newest.body) == ("retraction", "eve", {"why": "lost"})
    assert rows(store) == 5


def test_one_answer_is_withdrawn_by_its_id(store: Store, add: Add) -> None:
    """So that a contradiction can be settled; a second time, or by a wrong id, is told with what stands."""
    picture = add(texture(1), part="1")
    with store.begin() as session:
        record_answers(session, [answer(picture, "dent", origin_id="7"), answer(picture, "scratch", origin_id="8")])
        retract_picture(session, "lid", picture, who="eve", why="slip", origin_id="7")
        assert [row.origin_id for row in answers_about(session, "lid", picture)] == ["8"]
        with pytest.raises(UsageError, match=r"no answer '7' about .* those that stand: 8 \(label_studio, ann\)"):
            retract_picture(session, "lid", picture, who="eve", why="slip", origin_id="7")
    assert now(store, picture) == ("scratch", False, False)


@pytest.mark.parametrize(("beginning", "said"), [("", "several pictures"), ("%", "no pictures"), ("x", "no pictures")])
def test_a_picture_that_is_not_one_is_told(store: Store, add: Add, beginning: str, said: str) -> None:
    """Nothing is withdrawn by a pattern."""
    add(texture(1), "ok", part="1")
    add(texture(2), "ok", part="2")
    with pytest.raises(UsageError, match=said), store.begin() as session:
        retract_picture(session, "lid", beginning, who="eve", why="x")
    assert rows(store) == 2


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (["dent", "dent"], ("dent", False, False)),
        (["dent", "scratch"], (None, True, False)),
        (["dent", None], (None, True, False)),
        ([None, None], (None, False, True)),
    ],
)
def test_annotators_agree_or_the_picture_has_no_label(
    store: Store, add: Add, said: list[str | None], expected: tuple[str | None, bool, bool]
) -> None:
    """A contradiction is flagged, never settled by who came last; "cannot tell" is an answer too."""
    picture = add(texture(1), part="1")
    with store.begin() as session:
        record_answers(
            session, [answer(picture, label, origin_id=str(i), annotator=f"a{i}") for i, label in enumerate(said)]
        )
    assert now(store, picture) == expected


def test_an_operator_overrules_an_import(store: Store, add: Add) -> None:
    """Label Studio's answer is newer knowledge; when it is retracted the import counts again."""
    picture = add(texture(1), "ok", part="1")
    with store.begin() as session:
        record_answers(session, [answer(picture, "dent", origin_id="7")])
    assert now(store, picture) == ("dent", False, False)
    with store.begin() as session:
        retract(session, "label_studio", "7")
    assert now(store, picture) == ("ok", False, False)


def test_an_unknown_class_or_picture_writes_nothing(store: Store, add: Add) -> None:
    """One bad answer among good ones stops the whole, with a code and the nearest class."""
    picture = add(texture(1), part="1")
    good = answer(picture, "dent", origin_id="1")
    with pytest.raises(LabelError, match="did you mean scratch") as caught, store.begin() as session:
        record_answers(session, [good, answer(picture, "scrach", origin_id="2")])
    assert caught.value.code == "unknown_class"
    with pytest.raises(LabelError, match="1 answers") as caught, store.begin() as session:
        record_answers(session, [good, answer("0" * 64, "dent", origin_id="2")])
    assert (caught.value.code, rows(store)) == ("unknown_picture", 0)


def test_new_labels_are_counted_by_picture(store: Store, add: Add) -> None:
    """Two answers about one picture are one more labelled picture."""
    first, second = add(texture(1), "ok", part="1"), add(texture(2), part="2")
    with store.begin() as session:
        mark = last_label_id(session, "lid")
        record_answers(session, [answer(second, "dent", origin_id=i) for i in "12"])
        record_answers(session, [answer(first, "dent", origin_id="3")])
        assert count_new_labels(session, "lid", mark) == 2
        assert count_new_labels(session, "lid", last_label_id(session, "lid")) == 0


EVENTS = st.lists(
    st.tuples(st.sampled_from("123"), st.sampled_from(["ok", "dent", "scratch", None, "retract"])), max_size=12
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EVENTS)
def test_current_labels_are_the_fold_of_all_events(store: Store, add: Add, events: list[tuple[str, str | None]]) -> None:
    """Whatever the history of three annotations, the live ones are the last not retracted of each."""
    picture = add(texture(1), part="1")
    last: dict[str, str | None] = {}
    with store.begin() as session:
        for origin_id in "123":
            retract(session, "label_studio", origin_id)
        for origin_id, what in events:
            if what == "retract":
                retract(session, "label_studio", origin_id)
                last.pop(origin_id, None)
            else:
                record_answers(session, [answer(picture, what, origin_id=origin_id)])
                last[origin_id] = what
        labels = current_labels(session, "lid")
    said = set(last.values())
    assert (picture in labels) == bool(said)
    if said:
        expected = next(iter(said)) if len(said) == 1 else None
        assert (labels[picture].label, labels[picture].contradictory) == (expected, len(said) > 1)
