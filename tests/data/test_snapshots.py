"""Snapshots: the same labels give the same one; nothing is on two sides; what is left out is named."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from sqlalchemy import select, update

from inspection.data.importers import classes_of, import_items, read_directory
from inspection.data.labels import record_answers
from inspection.data.pictures import decode_bgr
from inspection.data.products import save_product
from inspection.data.snapshot_record import UNUSUAL, Snapshot, Split
from inspection.data.snapshots import build_snapshot, load_snapshot, look_at_golden
from inspection.errors import AppendOnlyError, IntegrityError, MissingPictureError, UsageError
from inspection.store.session import Store
from inspection.store.tables import GoldenLookRow, PictureRow, SnapshotRow, SplitRow
from tests.data.conftest import PRODUCT, Image, answer, encode, texture

Add = Callable[..., str]
LIMITS = {"max_bytes": 10_000_000, "max_pixels": 10_000_000}


@pytest.fixture
def labelled(store: Store, add: Add) -> Store:
    """Twenty good parts and twelve scratched ones, labelled."""
    for number in range(32):
        add(texture(number), "ok" if number < 20 else "scratch", part=f"part{number}")
    return store


def refused(snapshot: Snapshot) -> dict[str, tuple[str, str]]:
    return {item.picture: (item.reason, item.detail) for item in snapshot.refused}


def test_the_same_labels_give_the_same_snapshot(labelled: Store) -> None:
    """Its id is the digest of its bytes; building again changes no row."""
    first, second = build_snapshot(labelled, "lid"), build_snapshot(labelled, PRODUCT)
    assert first.canonical() == second.canonical() == load_snapshot(labelled, first.digest).canonical()
    with labelled.begin(read_only=True) as session:
        row = session.scalars(select(SnapshotRow)).one()
    assert (row.id, row.counts["train"]) == (first.digest, {"ok": 12, "scratch": 8})
    assert first.classes == ["ok", "scratch"]
    assert [e.picture for e in first.examples] == sorted(e.picture for e in first.examples)


def test_a_cold_start_s_snapshot_holds_good_pictures_alone(labelled: Store, add: Add) -> None:
    """The others are named as left out; sides stay what they are for the classifier that comes after."""
    rare = add(texture(50), "dent", part="p50")
    good = build_snapshot(labelled, "lid", good_only=True)
    assert (good.cold_start, good.classes) == (True, ["ok", UNUSUAL])
    assert {e.label for e in good.examples} == {"ok"}
    assert len(good.examples) == 20
    assert refused(good)[rare] == ("not_good", "labelled 'dent': a cold start learns from good pictures alone")
    assert len(good.refused) == 13
    later = build_snapshot(labelled, "lid")
    assert not later.cold_start
    side = {e.picture: e.split for e in later.examples}
    assert all(side[e.picture] is e.split for e in good.examples)


def test_a_cold_start_needs_a_good_picture(store: Store, add: Add) -> None:
    """Defects alone teach nothing of good parts."""
    add(texture(1), "scratch", part="p1")
    with pytest.raises(UsageError, match="no good picture to learn from: label some as 'ok'"):
        build_snapshot(store, "lid", good_only=True)


def test_every_side_has_its_share_of_every_class(labelled: Store) -> None:
    """Sixty, twenty and twenty per cent, class by class."""
    snapshot = build_snapshot(labelled, "lid")
    found = {side: Counter(e.label for e in snapshot.of(side)) for side in Split}
    assert found == {
        Split.TRAIN: {"ok": 12, "scratch": 8},
        Split.VALIDATION: {"ok": 4, "scratch": 2},
        Split.GOLDEN: {"ok": 4, "scratch": 2},
    }


def test_more_labels_move_nobody(labelled: Store, add: Add) -> None:
    """Parts that come later are dealt; those that have a side keep it, whatever a new import says."""
    before = {e.picture: e.split for e in build_snapshot(labelled, "lid").examples}
    for number in range(100, 120):
        add(texture(number), "scratch", part=f"part{number}")
    with labelled.begin() as session:
        session.execute(update(PictureRow).values(fixed_split="golden"))
    after = {e.picture: e.split for e in build_snapshot(labelled, "lid").examples}
    assert len(after) == 52
    assert {picture: after[picture] for picture in before} == before


def test_a_group_is_never_divided(labelled: Store, add: Add) -> None:
    """Twelve pictures of one lot share one side."""
    lot = {add(texture(200 + n), "ok", part=f"lot-part{n}", group="lot") for n in range(12)}
    sides = {e.split for e in build_snapshot(labelled, "lid").examples if e.picture in lot}
    assert len(sides) == 1


def test_a_copy_that_arrives_late_goes_to_the_side_of_its_original(labelled: Store, add: Add) -> None:
    """Under another part's name, as JPEG: it follows, nobody is refused."""
    side = {e.picture: e.split for e in build_snapshot(labelled, "lid").examples}
    originals = {number: add(texture(number), part="again") for number in range(32)}
    copies = {number: add(texture(number), "ok", part=f"copy{number}", suffix=".jpg") for number in (0, 7, 13)}
    snapshot = build_snapshot(labelled, "lid")
    after = {e.picture: e.split for e in snapshot.examples}
    assert {copies[n]: side[originals[n]] for n in copies}.items() <= after.items()
    assert snapshot.refused == []


def test_a_copy_across_sides_is_refused_on_the_training_side(labelled: Store, add: Add) -> None:
    """When both sides were fixed already, the golden picture stays and the other is refused by name."""
    golden = next(e for e in build_snapshot(labelled, "lid").examples if e.split is Split.GOLDEN and e.label == "ok")
    copied = decode_bgr(labelled.blobs.get(f"pictures/{golden.picture}"))
    with labelled.begin() as session:
        session.add(SplitRow(product="lid", group="copied", split="train"))
    copy = add(copied, "ok", part="copied", suffix=".jpg")
    snapshot = build_snapshot(labelled, "lid")
    assert refused(snapshot).keys() == {copy}
    reason, detail = refused(snapshot)[copy]
    assert (reason, golden.picture in detail) == ("near_duplicate", True)
    assert golden in snapshot.examples


LEAKS: dict[str, tuple[Callable[[Image], Image], str]] = {
    "same pixels": (np.copy, ".bmp"),
    "re-encoded": (np.copy, ".jpg"),
    "rescaled": (lambda i: np.asarray(cv2.resize(i, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8), ".png"),
    "brighter": (lambda i: np.clip(i.astype(int) + 20, 0, 255).astype(np.uint8), ".png"),
}


@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.parametrize("judge", [Split.GOLDEN, Split.VALIDATION])
def test_no_leaked_copy_teaches_what_it_is_judged_by(labelled: Store, add: Add, leak: str, judge: Split) -> None:
    """Two copies under the names of new parts, on the training side for ever: both are refused by name, nothing else is."""
    judges = [e for e in build_snapshot(labelled, "lid").examples if e.split is judge]
    change, suffix = LEAKS[leak]
    with labelled.begin() as session:
        session.add_all(SplitRow(product="lid", group=f"leak{n}", split="train") for n in range(2))
    chosen = {e.label: e for e in judges}.values()
    leaked = {
        add(change(decode_bgr(labelled.blobs.get(f"pictures/{e.picture}"))), e.label, part=f"leak{n}", suffix=suffix): e
        for n, e in enumerate(chosen)
    }
    snapshot = build_snapshot(labelled, "lid")
    assert {picture: reason for picture, (reason, _) in refused(snapshot).items()} == dict.fromkeys(
        leaked, "near_duplicate"
    )
    assert all(e.picture in refused(snapshot)[picture][1] for picture, e in leaked.items())
    assert all(e in snapshot.examples for e in judges)


@pytest.mark.parametrize("suffix", [".bmp", ".jpg"])
@pytest.mark.parametrize("side", Split)
def test_copies_with_different_labels_are_both_refused(labelled: Store, add: Add, suffix: str, side: Split) -> None:
    """On one side or on two, of equal pixels or re-encoded: one of the labels is wrong, and each names the other."""
    first = next(e for e in build_snapshot(labelled, "lid").examples if e.split is side and e.label == "ok")
    with labelled.begin() as session:
        session.add(SplitRow(product="lid", group="again", split="train"))
    second = add(decode_bgr(labelled.blobs.get(f"pictures/{first.picture}")), "scratch", part="again", suffix=suffix)
    snapshot = build_snapshot(labelled, "lid")
    assert {picture: reason for picture, (reason, _) in refused(snapshot).items()} == dict.fromkeys(
        (first.picture, second), "contradictory_labels"
    )
    assert "labelled 'ok', but picture " + second in refused(snapshot)[first.picture][1]
    assert "labelled 'scratch', but picture " + first.picture in refused(snapshot)[second][1]
    assert len(snapshot.examples) == 31


def test_equal_pixels_of_one_part_with_different_labels_are_refused(labelled: Store, add: Add) -> None:
    """Even within a group, whose pictures are not compared otherwise; with the same label both stay."""
    first, second = add(texture(400), "ok", part="p"), add(texture(400), "scratch", part="p", suffix=".bmp")
    third, fourth = add(texture(401), "ok", part="q"), add(texture(401), "ok", part="q", suffix=".bmp")
    snapshot = build_snapshot(labelled, "lid")
    assert refused(snapshot).keys() == {first, second}
    assert "the same pixels" in refused(snapshot)[first][1]
    assert {third, fourth} <= {e.picture for e in snapshot.examples}


@pytest.mark.parametrize("share", [0.01, 0.02, 0.05, 0.10, 0.20])
def test_mixed_up_labels_of_parts_that_were_taken_twice_are_all_named(store: Store, add: Add, share: float) -> None:
    """Where each part has a second, re-encoded picture under another name, a label that was mixed up contradicts it."""
    wrong = set(random.Random(1).sample(range(100), round(share * 100)))
    for number in range(100):
        label, other = ("ok", "scratch") if number < 60 else ("scratch", "ok")
        add(texture(number), label, part=f"part{number}")
        add(texture(number), other if number in wrong else label, part=f"again{number}", suffix=".jpg")
    snapshot = build_snapshot(store, "lid")
    assert Counter(item.reason for item in snapshot.refused) == {"contradictory_labels": 2 * len(wrong)}


def test_one_part_in_two_groups_is_kept_together_or_refused(labelled: Store, add: Add) -> None:
    """A physical part never teaches and judges, even if its pictures came under two groups."""
    with labelled.begin() as session:
        session.add_all([SplitRow(product="lid", group=g, split=s) for g, s in (("g1", "golden"), ("g2", "train"))])
    seen = add(texture(300), "ok", part="twice", group="g1")
    other = add(texture(301), "ok", part="twice", group="g2")
    snapshot = build_snapshot(labelled, "lid")
    assert refused(snapshot) == {other: ("same_part", f"golden picture {seen}: part twice")}


def test_what_has_no_usable_label_is_refused_with_its_reason(labelled: Store, add: Add) -> None:
    """Contradictions, "cannot tell" and rare classes are counted, never silent."""
    contradicted, unclear = add(texture(300), part="300"), add(texture(301), part="301")
    with labelled.begin() as session:
        session.add_all(SplitRow(product="lid", group=f"dent{n}", split="train") for n in range(3))
    rare = {add(texture(302 + n), "dent", part=f"dent{n}", group=f"dent{n}") for n in range(3)}
    with labelled.begin() as session:
        record_answers(
            session,
            [
                answer(contradicted, "ok", origin_id="1", annotator="ann"),
                answer(contradicted, "dent", origin_id="2", annotator="bob"),
                answer(unclear, None, origin_id="3", annotator="ann"),
            ],
        )
    snapshot = build_snapshot(labelled, "lid")
    expected = {contradicted: "contradictory_labels", unclear: "cannot_tell"} | dict.fromkeys(rare, "rare_class")
    assert {picture: reason for picture, (reason, _) in refused(snapshot).items()} == expected
    assert refused(snapshot)[contradicted][1] == "ann: ok; bob: dent"
    assert snapshot.classes == ["ok", "scratch"]
    assert build_snapshot(labelled, "lid", min_per_class=2).classes == ["ok", "scratch", "dent"]


def test_golden_pictures_of_a_class_too_rare_to_learn_stay(labelled: Store, add: Add) -> None:
    """What the model cannot know escapes all the same, and a gate that never saw it could not say so."""
    with labelled.begin() as session:
        sides = {"g1": "golden", "g2": "train", "g3": "validation"}
        session.add_all(SplitRow(product="lid", group=group, split=side) for group, side in sides.items())
    seen, *others = (add(texture(300 + n), "dent", part=f"dent{n}", group=f"g{n}") for n in (1, 2, 3))
    snapshot = build_snapshot(labelled, "lid")
    assert snapshot.classes == ["ok", "scratch"]
    assert [(e.picture, e.split) for e in snapshot.examples if e.label == "dent"] == [(seen, Split.GOLDEN)]
    assert {picture: reason for picture, (reason, _) in refused(snapshot).items()} == dict.fromkeys(others, "rare_class")


def test_a_missing_picture_stops_the_snapshot(labelled: Store) -> None:
    """Nothing is skipped: the error names the picture, and no side is given away."""
    with labelled.begin(read_only=True) as session:
        gone = session.scalars(select(PictureRow.sha256).order_by(PictureRow.sha256)).first()
    labelled.blobs.delete(f"pictures/{gone}")
    with pytest.raises(MissingPictureError, match=str(gone)):
        build_snapshot(labelled, "lid")
    with labelled.begin(read_only=True) as session:
        assert session.scalars(select(SplitRow)).all() == []


def test_too_few_labels_are_a_usage_error_with_the_counts(store: Store, add: Add) -> None:
    """What is there, and what is needed, in words."""
    add(texture(1), "ok", part="1")
    with pytest.raises(UsageError, match="ok 1, scratch 0, dent 0, from 1 labelled"):
        build_snapshot(store, "lid")


def test_a_changed_snapshot_is_noticed(labelled: Store, tmp_path: Path) -> None:
    """One moved label in the file, and it is no longer that snapshot."""
    snapshot = build_snapshot(labelled, "lid")
    file = tmp_path / "blobs" / "snapshots" / f"{snapshot.digest}.json"
    file.write_bytes(file.read_bytes().replace(b'"label":"ok"', b'"label":"dent"', 1))
    with pytest.raises(IntegrityError, match="damaged"):
        load_snapshot(labelled, snapshot.digest)
    with pytest.raises(UsageError, match="no snapshot"):
        load_snapshot(labelled, "0" * 64)


def test_every_look_at_the_golden_set_is_counted(labelled: Store) -> None:
    """The count rises by one, per snapshot, and cannot be set back."""
    with labelled.begin() as session:
        assert [look_at_golden(session, "s", "me", "gate 1") for _ in range(3)] == [1, 2, 3]
        assert look_at_golden(session, "t", "me", "gate 1") == 1
    with pytest.raises(AppendOnlyError), labelled.begin() as session:
        session.execute(update(GoldenLookRow).values(who="nobody"))


def test_pictures_without_a_descriptor_are_described_again(labelled: Store, add: Add) -> None:
    """Rows of an importer that kept none are compared all the same."""
    build_snapshot(labelled, "lid")
    with labelled.begin() as session:
        session.execute(update(PictureRow).values(descriptor=None))
        session.add(SplitRow(product="lid", group="copy", split="train"))
    add(texture(0), "ok", part="copy", suffix=".bmp")
    with labelled.begin() as session:
        session.execute(update(SplitRow).where(SplitRow.group == "part0").values(split="golden"))
    assert [item.reason for item in build_snapshot(labelled, "lid").refused] == ["near_duplicate"]
    assert encode(texture(0), ".bmp")[:2] == b"BM"


@pytest.mark.real_data
def test_a_real_set_becomes_a_snapshot(real_data: Path, store: Store) -> None:
    """Two hundred real pictures: its test rows are golden, nothing is lost."""
    items = read_directory(real_data / "deeppcb_crops", "ok")[::50]
    with store.begin() as session:
        save_product(session, PRODUCT.model_copy(update={"classes": classes_of(items, "ok")}))
    report = import_items(store, "lid", items, **LIMITS)
    snapshot = build_snapshot(store, "lid")
    assert len(snapshot.examples) + len(snapshot.refused) == report.new
    assert min(len(snapshot.of(side)) for side in Split) > 10
