"""The data layer's own SQL gives the same answers on SQLite and on PostgreSQL."""

import random
import threading
from datetime import UTC, datetime

import cv2
import numpy as np
import pytest

from inspection.contracts import Limits, Verdict
from inspection.data.intake import accept_picture, accept_verdicts
from inspection.data.labels import Answer, count_new_labels, current_labels, last_label_id, record_answers, retract
from inspection.data.product import Product
from inspection.data.products import save_product
from inspection.data.selection import choose
from inspection.data.snapshots import build_snapshot, load_snapshot, look_at_golden
from inspection.errors import PictureError
from inspection.store.session import Store

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = {"max_bytes": 1_000_000, "max_pixels": 1_000_000}


def picture(seed: int) -> bytes:
    coarse = np.random.default_rng(seed).integers(40, 215, (12, 12, 3)).astype(np.uint8)
    return cv2.imencode(".png", cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_CUBIC))[1].tobytes()


def take(store: Store, seed: int) -> str:
    names = {"product": "lid", "part": f"part{seed}", "group": f"part{seed}", "station": "s", "source": "agent"}
    return accept_picture(store, picture(seed), **names, **LIMITS).sha256


def answer(sha256: str, label: str | None, origin_id: str) -> Answer:
    return Answer("lid", sha256, "label_studio", origin_id, label, "ann", NOW)


def verdict(sha256: str, number: int) -> Verdict:
    body = {
        "id": f"v{number}",
        "device": "d",
        "boot": "b",
        "sequence": number,
        "station": "s",
        "product": "lid",
        "part": "1",
    }
    body |= {"captured_at": NOW, "decision": "NG", "scores": {"ok": 0.2, "dent": 0.8}, "frame_sha256": sha256}
    return Verdict.model_validate(body | {"agent_version": "0.1"})


@pytest.fixture
def filled(store: Store) -> list[str]:
    """Thirty pictures, the first twenty labelled; every fourth is a dent."""
    limits = Limits(escape_rate=0.01, overkill_rate=0.05)
    with store.begin() as session:
        save_product(session, Product(name="lid", good_class="ok", classes=["ok", "dent"], limits=limits))
    pictures = [take(store, seed) for seed in range(30)]
    with store.begin() as session:
        record_answers(session, [answer(p, "ok" if n % 2 else "dent", str(n)) for n, p in enumerate(pictures[:20])])
    return pictures


def test_labels_are_recorded_corrected_and_withdrawn(store: Store, filled: list[str]) -> None:
    """Latest state by origin, counts since a mark, and nothing twice."""
    with store.begin() as session:
        mark = last_label_id(session, "lid")
        assert record_answers(session, [answer(filled[0], "dent", "0")]).new == 0
        assert record_answers(session, [answer(filled[0], "ok", "0")]).new == 1
        assert retract(session, "label_studio", "1")
        labels = current_labels(session, "lid")
        assert (labels[filled[0]].label, filled[1] in labels, len(labels)) == ("ok", False, 19)
        assert count_new_labels(session, "lid", mark) == 2


def test_snapshots_and_looks(store: Store, filled: list[str]) -> None:
    """Built, loaded, the same again, and looked at."""
    snapshot = build_snapshot(store, "lid")
    assert build_snapshot(store, "lid").digest == snapshot.digest
    assert load_snapshot(store, snapshot.digest) == snapshot
    assert {example.picture for example in snapshot.examples} == set(filled[:20])
    with store.begin() as session:
        assert [look_at_golden(session, snapshot.digest, "me", "test") for _ in range(2)] == [1, 2]


def test_choices_come_from_unlabelled_pictures_with_a_verdict(store: Store, filled: list[str]) -> None:
    """The ranked query works on both databases."""
    with store.begin() as session:
        receipts = accept_verdicts(session, [verdict(p, n + 1) for n, p in enumerate(filled[15:25])])
        again = accept_verdicts(session, [verdict(filled[15], 1)])
    with store.begin(read_only=True) as session:
        chosen = choose(session, "lid", budget=50, rng=random.Random(0))
    assert {r.new for r in receipts} == {True}
    assert [r.new for r in again] == [False]
    assert {c.picture for c in chosen} == set(filled[20:25])


def test_a_refused_picture_is_counted_once(store: Store, filled: list[str]) -> None:
    """Also when two refusals race."""
    names = {"product": "lid", "part": "1", "group": "1", "station": "s", "source": "agent"}

    def refuse() -> None:
        with pytest.raises(PictureError):
            accept_picture(store, b"nothing", **names, **LIMITS)

    threads = [threading.Thread(target=refuse) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.begin(read_only=True) as session:
        count = session.connection().exec_driver_sql("SELECT count(*) FROM quarantine").scalar()
    assert count == 1


def test_two_pulls_at_once_record_each_answer_once(store: Store, filled: list[str]) -> None:
    """Concurrent syncs of the same annotations do not double them."""
    answers = [answer(p, "dent", f"new{n}") for n, p in enumerate(filled[20:])]
    recorded: list[int] = []

    def pull() -> None:
        with store.begin() as session:
            recorded.append(record_answers(session, answers).new)

    threads = [threading.Thread(target=pull) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(recorded) == [0, 0, 0, 10]


def test_two_snapshots_at_once_are_one(store: Store, filled: list[str]) -> None:
    """Sides are settled by one of them; the other follows."""
    built: list[str] = []
    threads = [threading.Thread(target=lambda: built.append(build_snapshot(store, "lid").digest)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(built), len(set(built))) == (3, 1)
