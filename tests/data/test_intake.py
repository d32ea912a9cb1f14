"""Pictures and verdicts come in exactly once; what is refused is counted."""

from pathlib import Path

import pytest
from sqlalchemy import select

from inspection.contracts import Decision, Verdict
from inspection.data.intake import (
    MAX_QUARANTINED_BYTES,
    RefusedVerdictError,
    accept_picture,
    accept_verdicts,
    read_or_quarantine,
)
from inspection.data.products import save_product
from inspection.errors import InputError, PictureError, UsageError
from inspection.store.session import Store
from inspection.store.tables import PictureRow, QuarantineRow, VerdictRow, utc_now
from tests.data.conftest import LIMITS, PRODUCT, encode, texture

FROM = {"product": "lid", "part": "1", "group": "1", "station": "s1", "source": "agent"}


def verdict(**changes: object) -> Verdict:
    values: dict[str, object] = {
        "id": "v1",
        "device": "d1",
        "boot": "b1",
        "sequence": 1,
        "station": "s1",
        "product": "lid",
        "part": "1",
        "captured_at": utc_now(),
        "decision": "NG",
        "defect_class": "dent",
        "scores": {"ok": 0.25, "scratch": 0.05, "dent": 0.7},
        "agent_version": "0.1",
    }
    return Verdict.model_validate(values | changes)


def quarantined(store: Store) -> list[QuarantineRow]:
    with store.begin(read_only=True) as session:
        return list(session.scalars(select(QuarantineRow).order_by(QuarantineRow.id)))


def test_a_picture_is_kept_once(store: Store) -> None:
    """The same bytes again are known, and the first part and group count."""
    data = encode(texture(1))
    first = accept_picture(store, data, **FROM, **LIMITS)
    second = accept_picture(store, data, **{**FROM, "part": "2", "group": "2"}, **LIMITS)
    with store.begin(read_only=True) as session:
        row = session.scalars(select(PictureRow)).one()
    assert (first.new, second.new, first.sha256 == second.sha256 == row.sha256) == (True, False, True)
    assert (row.part, row.width, store.blobs.get(f"pictures/{row.sha256}")) == ("1", 96, data)


def test_a_refused_picture_is_counted_and_leaves_nothing_else(store: Store) -> None:
    """One quarantine row with code and source, its bytes kept, no picture; repeating it does not count twice."""
    cut = encode(texture(1))[:300]
    for _ in range(2):
        with pytest.raises(PictureError):
            accept_picture(store, cut, **FROM, **LIMITS)
    (row,) = quarantined(store)
    assert (row.code, row.source, row.length) == ("truncated", "agent s1", 300)
    assert store.blobs.get(f"quarantine/{row.sha256}") == cut
    with store.begin(read_only=True) as session:
        assert session.scalars(select(PictureRow)).all() == []


def test_quarantine_keeps_at_most_a_megabyte(store: Store) -> None:
    """A huge file cannot fill the disk through quarantine."""
    huge = b"x" * (MAX_QUARANTINED_BYTES + 5)
    with pytest.raises(PictureError):
        accept_picture(store, huge, **FROM, **LIMITS)
    (row,) = quarantined(store)
    assert (row.code, row.length) == ("too_large", len(huge))
    assert len(store.blobs.get(f"quarantine/{row.sha256}")) == MAX_QUARANTINED_BYTES


def test_a_file_too_large_is_counted_without_being_read_whole(store: Store, tmp_path: Path) -> None:
    """Its size is asked first: a sparse terabyte is refused in a moment, with its beginning kept."""
    huge = tmp_path / "huge.png"
    with huge.open("wb") as out:
        out.truncate(2**40)
    for _ in range(2):
        with pytest.raises(PictureError, match=str(2**40)) as caught:
            read_or_quarantine(store, huge, origin="import huge.png", max_bytes=64_000_000)
    (row,) = quarantined(store)
    assert (caught.value.code, row.code, row.length) == ("too_large", "too_large", 2**31 - 1)
    assert str(2**40) in row.detail
    assert len(store.blobs.get(f"quarantine/{row.sha256}")) == MAX_QUARANTINED_BYTES


def test_a_file_that_cannot_be_read_is_a_counted_refusal(store: Store, tmp_path: Path) -> None:
    """One bad sector is one picture, not the end of the import."""
    with pytest.raises(PictureError, match=r"gone\.png cannot be read") as caught:
        read_or_quarantine(store, tmp_path / "gone.png", origin="import gone.png", max_bytes=1)
    assert caught.value.code == "unreadable"
    assert [(row.code, row.source) for row in quarantined(store)] == [("unreadable", "import gone.png")]


def test_an_unknown_product_is_refused_with_nothing_written(store: Store) -> None:
    """The nearest product is named."""
    with pytest.raises(UsageError, match="did you mean lid"):
        accept_picture(store, encode(texture(1)), **{**FROM, "product": "lids"}, **LIMITS)
    assert quarantined(store) == []


def test_one_picture_belongs_to_one_product(store: Store) -> None:
    """The same bytes for another product are refused and counted."""
    with store.begin() as session:
        save_product(session, PRODUCT.model_copy(update={"name": "box"}))
    data = encode(texture(1))
    accept_picture(store, data, **FROM, **LIMITS)
    with pytest.raises(PictureError, match="lid"):
        accept_picture(store, data, **{**FROM, "product": "box"}, **LIMITS)
    assert [row.code for row in quarantined(store)] == ["other_product"]


def test_a_verdict_is_kept_exactly_once(store: Store) -> None:
    """Sending it again gives the same receipt, marked as known."""
    sent = verdict()
    with store.begin() as session:
        (first,) = accept_verdicts(session, [sent])
    with store.begin() as session:
        (second,) = accept_verdicts(session, [Verdict.parse(sent.canonical())])
        row = session.scalars(select(VerdictRow)).one()
    assert (first.new, second.new, first.sha256) == (True, False, sent.digest)
    assert second.sha256 == first.sha256
    assert row.defect_score == pytest.approx(0.75)
    assert Verdict.model_validate(row.body) == sent


@pytest.mark.parametrize(("said", "kept"), [({}, "production"), ({"purpose": "challenge"}, "challenge")])
def test_why_a_part_was_shown_can_be_searched(store: Store, said: dict[str, object], kept: str) -> None:
    """A verdict that does not say, as older agents send it, is about a part of the line."""
    with store.begin() as session:
        accept_verdicts(session, [verdict(**said)])
    with store.begin(read_only=True) as session:
        assert session.scalars(select(VerdictRow.purpose)).one() == kept


@pytest.mark.parametrize("changes", [{"decision": Decision.OK}, {"id": "v2"}, {"sequence": 2}])
def test_a_rewritten_verdict_is_refused(store: Store, changes: dict[str, object]) -> None:
    """Another body under the same key or id is a contradiction, and the first one stays."""
    sent = verdict()
    with store.begin() as session:
        accept_verdicts(session, [sent])
    with pytest.raises(RefusedVerdictError, match="another verdict") as caught, store.begin() as session:
        accept_verdicts(session, [verdict(id="v9", sequence=9), sent.model_copy(update=changes)])
    assert (caught.value.code, caught.value.verdict.id) == ("verdict_conflict", changes.get("id", sent.id))
    with store.begin(read_only=True) as session:
        assert session.scalars(select(VerdictRow.sha256)).one() == sent.digest


def test_a_batch_tells_what_was_new(store: Store) -> None:
    """Receipts come in order; the same verdict twice in one batch is one row, and a missing picture is not named."""
    with store.begin() as session:
        known, other = verdict(), verdict(id="v2", sequence=2, frame_sha256="0" * 64)
        accept_verdicts(session, [known])
        receipts = accept_verdicts(session, [other, known, other])
        rows = session.scalars(select(VerdictRow).order_by(VerdictRow.id)).all()
    assert [(r.key, r.new) for r in receipts] == [("v2", True), (known.id, False), ("v2", False)]
    assert len(rows) == 2
    assert [row.picture for row in rows if row.id == "v2"] == [None]


def test_a_verdict_of_an_unknown_product_is_bad_input(store: Store) -> None:
    """The agent is told what is wrong, with a code that can be counted."""
    with pytest.raises(InputError, match="no product 'box'") as caught, store.begin() as session:
        accept_verdicts(session, [verdict(product="box")])
    assert caught.value.code == "unknown_product"


def test_an_error_verdict_has_no_score(store: Store) -> None:
    """Without scores nothing is made up."""
    with store.begin() as session:
        accept_verdicts(session, [verdict(decision="ERROR", scores={}, defect_class=None)])
        assert session.scalars(select(VerdictRow.defect_score)).one() is None
