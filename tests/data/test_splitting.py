"""Sides of groups: permanent, stratified, linked groups together."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.data.product import RetrainPlan
from inspection.data.snapshot_record import Split
from inspection.data.splitting import Group, assign

PLAN = RetrainPlan()
NAMES = st.sampled_from([f"g{n}" for n in range(30)])
CLASSES = st.sampled_from(["ok", "dent", "scratch"])
GROUPS = st.dictionaries(NAMES, st.dictionaries(CLASSES, st.integers(1, 5), min_size=1), max_size=30)
LINKS = st.lists(st.tuples(NAMES, NAMES), max_size=10)
SIDES = st.dictionaries(NAMES, st.sampled_from(list(Split)), max_size=10)


def groups_of(classes: dict[str, dict[str, int]], asked: dict[str, Split] | None = None) -> list[Group]:
    return [
        Group(name, Counter(c), Counter({asked[name]: 1} if asked and name in asked else {})) for name, c in classes.items()
    ]


def singles(**counts: int) -> dict[str, dict[str, int]]:
    return {f"{label}{n}": {label: 1} for label, count in counts.items() for n in range(count)}


def sides_by_class(classes: dict[str, dict[str, int]], sides: dict[str, Split]) -> dict[str, Counter[Split]]:
    found: dict[str, Counter[Split]] = {}
    for name, side in sides.items():
        for label, count in classes[name].items():
            found.setdefault(label, Counter())[side] += count
    return found


@given(GROUPS, LINKS, SIDES)
def test_every_new_group_gets_one_side_and_old_ones_keep_theirs(
    classes: dict[str, dict[str, int]], links: list[tuple[str, str]], sides: dict[str, Split]
) -> None:
    """The answer names exactly the groups that had no side."""
    assert assign(groups_of(classes), links, sides, PLAN, "p").keys() == classes.keys() - sides.keys()


@given(GROUPS, LINKS, SIDES, st.randoms())
def test_order_does_not_matter(
    classes: dict[str, dict[str, int]], links: list[tuple[str, str]], sides: dict[str, Split], rng: Random
) -> None:
    """Groups and links in any order, links either way round: the same sides."""
    shuffled_groups, shuffled_links = groups_of(classes), [pair[::-1] for pair in links]
    rng.shuffle(shuffled_groups)
    rng.shuffle(shuffled_links)
    assert assign(shuffled_groups, shuffled_links, sides, PLAN, "p") == assign(groups_of(classes), links, sides, PLAN, "p")


@given(GROUPS, LINKS)
def test_linked_groups_without_a_side_go_together(classes: dict[str, dict[str, int]], links: list[tuple[str, str]]) -> None:
    """Copies of one picture end up on one side."""
    sides = assign(groups_of(classes), links, {}, PLAN, "p")
    assert all(sides[a] is sides[b] for a, b in links if a in sides and b in sides)


@given(GROUPS, GROUPS, LINKS)
def test_nobody_moves_when_more_arrives(
    first: dict[str, dict[str, int]], more: dict[str, dict[str, int]], links: list[tuple[str, str]]
) -> None:
    """Assigning in two rounds keeps every side of the first."""
    sides = assign(groups_of(first), links, {}, PLAN, "p")
    assert sides.keys().isdisjoint(assign(groups_of(more | first), links, sides, PLAN, "p"))


def test_a_group_linked_to_an_old_one_follows_it() -> None:
    """A later copy of a golden picture becomes golden, not a refused training picture."""
    for side in Split:
        assert (
            assign(groups_of({"new": {"ok": 1}, "old": {"ok": 1}}), [("new", "old")], {"old": side}, PLAN, "p")["new"]
            is side
        )


@pytest.mark.parametrize("count", [5, 20, 97, 300])
def test_shares_are_kept_class_by_class(count: int) -> None:
    """Each class is divided 60 : 20 : 20, to within one part, whatever the sizes of the others."""
    classes = singles(ok=400, dent=count)
    found = sides_by_class(classes, assign(groups_of(classes), [], {}, PLAN, "p"))["dent"]
    for side, share in ((Split.TRAIN, 0.6), (Split.GOLDEN, 0.2), (Split.VALIDATION, 0.2)):
        assert abs(found[side] - share * count) <= 1


def test_a_small_class_is_on_every_side_from_four_parts() -> None:
    """Two for training, one to judge, one to validate."""
    classes = singles(ok=50, dent=4)
    found = sides_by_class(classes, assign(groups_of(classes), [], {}, PLAN, "p"))["dent"]
    assert found == {Split.TRAIN: 2, Split.GOLDEN: 1, Split.VALIDATION: 1}


def test_shares_hold_when_parts_come_in_small_lots() -> None:
    """Fifty rounds of four parts end where one round of two hundred would."""
    classes = singles(ok=200)
    sides: dict[str, Split] = {}
    for start in range(0, 200, 4):
        known = dict(list(classes.items())[: start + 4])
        sides |= assign(groups_of(known), [], sides, PLAN, "p")
    assert Counter(sides.values()) == {Split.TRAIN: 120, Split.GOLDEN: 40, Split.VALIDATION: 40}


def test_what_an_importer_asked_for_is_granted() -> None:
    """With all three named, each goes where it was asked."""
    asked = {f"ok{n}": side for n, side in enumerate([Split.TRAIN] * 5 + [Split.VALIDATION] * 2 + [Split.GOLDEN] * 3)}
    assert assign(groups_of(singles(ok=10), asked), [], {}, PLAN, "p") == asked


def test_train_and_test_alone_still_leave_something_to_validate_with() -> None:
    """Where an importer knows no validation, a quarter of its training groups serve as it; golden stays as asked."""
    asked = {f"ok{n}": Split.GOLDEN if n < 20 else Split.TRAIN for n in range(100)}
    found = assign(groups_of(singles(ok=100), asked), [], {}, PLAN, "p")
    assert Counter(found.values()) == {Split.TRAIN: 60, Split.VALIDATION: 20, Split.GOLDEN: 20}
    assert {name for name, side in found.items() if side is Split.GOLDEN} == {f"ok{n}" for n in range(20)}


def test_a_group_that_asks_for_two_sides_goes_where_most_of_it_asks() -> None:
    """It is never divided; on a tie it does not become golden."""
    asked = Counter({Split.TRAIN: 2, Split.GOLDEN: 3})
    assert Group("g", Counter(ok=5), asked).side_asked() is Split.GOLDEN
    assert Group("g", Counter(ok=4), Counter({Split.TRAIN: 2, Split.GOLDEN: 2})).side_asked() is Split.TRAIN
    assert Group("g", Counter(ok=4)).side_asked() is None
