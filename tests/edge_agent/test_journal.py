"""The ledger closes whatever happens, and nothing leaves this device without its receipt."""

import contextlib
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.database import Database
from edge_agent.errors import DeviceError, HubError
from edge_agent.inspecting import verdict_id
from edge_agent.journal import Journal
from edge_agent.keeper import Keeper
from edge_agent.lanes import Backoff
from edge_agent.ledger import LedgerWatch
from edge_agent.machine import describe
from edge_agent.outbox import Outbox
from edge_agent.uploader import Uploader
from edge_agent.verifying import verify
from inspection.contracts import ChallengerView, Decision, Purpose, Receipt, Verdict
from tests.edge_agent.helpers import DEVICE, NOW, PRODUCT, STATION, Authority, FakeHub, picture, png


def verdict(sequence: int, decision: Decision = Decision.OK, *, boot: str = "b") -> Verdict:
    return Verdict(
        id=verdict_id(DEVICE, boot, sequence),
        device=DEVICE,
        boot=boot,
        sequence=sequence,
        station=STATION,
        product=PRODUCT,
        part=f"p{sequence}",
        captured_at=NOW,
        decision=decision,
        bundle_digest="a" * 64,
        agent_version="0",
    )


def uploader(journal: Journal, outbox: Outbox, hub: FakeHub, *, batch: int = 10) -> Uploader:
    return Uploader(journal, outbox, hub, batch=batch, backoff=Backoff(0.01, 0.02))


AUTHORITY = Authority()
WAITS_FOR_EVER = (
    "SELECT COUNT(*) FROM pictures p JOIN verdicts v ON v.id = p.verdict_id "
    "WHERE p.state = 'pending' AND v.state = 'refused'"
)
ACTIONS = st.lists(
    st.sampled_from([*Decision, "missed", "picture", "upload", "bad upload", "trim", "restart"]), max_size=25
)


@given(ACTIONS)
@settings(max_examples=40, deadline=None)
def test_the_ledger_closes_after_any_history(tmp_path_factory: pytest.TempPathFactory, actions: list[str]) -> None:
    """Both identities hold after every step of any history, restarts and evictions included."""
    folder = tmp_path_factory.mktemp("ledger")
    hub = FakeHub(AUTHORITY)
    database = Database(folder / "j.db")
    triggers = 0
    for step, action in enumerate(actions, start=1):
        journal = Journal(database, max_pending=3, keep_rows=2)
        outbox = Outbox(database, folder / "out", max_bytes=25_000, min_free_bytes=0)
        if isinstance(action, Decision):
            journal.record(verdict(step, action), source=None, sealed=True)
            triggers += 1
        elif action == "missed":
            journal.count_missed(2)
            triggers += 2
        elif action == "picture":
            journal.record(verdict(step, Decision.NG), source=None, sealed=False)
            outbox.put(verdict(step).id, png(picture(step)), "ng")
            journal.seal(verdict(step, Decision.NG))
            triggers += 1
        elif action == "upload":
            uploader(journal, outbox, hub).drain_once()
        elif action == "bad upload":
            hub.refuse_parts = {f"p{step - 1}"}
            uploader(journal, outbox, hub).drain_once()
        elif action == "trim":
            journal.trim()
        else:
            database.close()
            database = Database(folder / "j.db")
            journal = Journal(database, max_pending=3, keep_rows=2)
            journal.seal_orphans()
        ledger = journal.ledger()
        assert ledger.closes, (action, ledger)
        assert ledger.triggers == triggers
        assert database.number(WAITS_FOR_EVER) == 0
        assert verify(database).ok
    database.close()


def test_one_trigger_has_one_row(journal: Journal) -> None:
    """A second row under the same key is refused and counts nothing."""
    journal.record(verdict(1), source=None, sealed=True)
    with pytest.raises(sqlite3.IntegrityError):
        journal.record(verdict(1), source=None, sealed=True)
    assert journal.ledger().triggers == 1


def test_counts_by_digest_survive_a_restart(tmp_path: Path) -> None:
    """Success of a rollout is said in verdicts made, over all boots."""
    for boot in ("x", "y"):
        database = Database(tmp_path / "j.db")
        journal = Journal(database, max_pending=10, keep_rows=10)
        journal.record(verdict(1, boot=boot), source=None, sealed=True)
        counts = journal.verdicts_by_digest()
        database.close()
    assert counts == {"a" * 64: 2}


def test_known_parts_are_in_the_ledger_but_prove_no_bundle(journal: Journal) -> None:
    """A rollout moves on by parts of the line: those of a challenge are triggers like others, and not counted for it."""
    journal.record(verdict(1), source=None, sealed=True)
    journal.record(verdict(2).model_copy(update={"purpose": Purpose.CHALLENGE}), source=None, sealed=True)
    assert journal.verdicts_by_digest() == {"a" * 64: 1}
    assert (journal.ledger().triggers, journal.ledger().closes) == (2, True)


def test_delivered_names_are_kept_while_the_file_is_there(journal: Journal) -> None:
    """A file that was taken away is forgotten, so the table stays as small as the folder."""
    journal.record(verdict(1), source=("dir", "a.png"), sealed=True)
    journal.record(verdict(2), source=("dir", "b.png"), sealed=True)
    assert journal.delivered("dir", ["a.png", "c.png"]) == {"a.png"}
    assert journal.delivered("dir", ["a.png", "b.png"]) == {"a.png"}
    assert journal.delivered("other", ["a.png"]) == set()


def test_an_open_row_waits_for_its_picture_and_a_restart_seals_it(journal: Journal) -> None:
    """Not uploaded half; sealed without the picture when a crash took it."""
    journal.record(verdict(1), source=None, sealed=False)
    assert journal.pending(10) == []
    assert journal.seal_orphans() == 1
    assert [p.id for p in journal.pending(10)] == [verdict(1).id]


def test_an_open_row_that_rotted_does_not_hold_up_a_start(journal: Journal, outbox: Outbox, database: Database) -> None:
    """Set aside and counted, whatever is wrong with it; the others are sealed, and so is what comes after."""
    for sequence in range(1, 6):
        journal.record(verdict(sequence, Decision.NG, boot=f"b{sequence}"), source=None, sealed=False)
        if sequence != 2:
            outbox.put(verdict(sequence, boot=f"b{sequence}").id, png(picture(sequence)), "ng")
    with database.write() as db:
        db.execute("UPDATE verdicts SET body = x'00' WHERE row IN (1, 2)")  # does not unpack
        db.execute("UPDATE verdicts SET body = x'7b7d', sample = 0 WHERE row = 3")  # unpacks to no verdict
        db.execute("UPDATE verdicts SET body = 'words' WHERE row = 4")
    restarted = Journal(database, max_pending=1000, keep_rows=1000)
    assert restarted.seal_open([*sorted(restarted.open_ids()), "nobody's"]) == 1
    assert [p.id for p in restarted.pending(9)] == [verdict(5, boot="b5").id]
    assert restarted.open_ids() == set()
    assert (restarted.counters()["refused"], restarted.ledger().evicted, restarted.ledger().closes) == (7, 7, True)
    assert outbox.depth() == 1  # three went with their verdicts


def test_an_open_row_whose_sample_is_gone_is_not_sealed_as_it_lies_there(journal: Journal, database: Database) -> None:
    """Its packed bytes are no verdict, and must not become one."""
    journal.record(verdict(1), source=None, sealed=False)
    with database.write() as db:
        db.execute("DELETE FROM samples")
    restarted = Journal(database, max_pending=1000, keep_rows=1000)
    assert restarted.seal_orphans() == 0
    assert restarted.ledger().evicted == 1


@pytest.mark.parametrize("challenged", [True, False])
def test_a_challengers_view_outlives_a_power_cut(journal: Journal, database: Database, challenged: bool) -> None:
    """It is nowhere else: a row that is sealed again without it would be another verdict for the hub. Other seals may be
    lost, since they are made again to the same body."""
    view = ChallengerView(bundle_digest="c" * 64, decision=Decision.NG, infer_ms=1.0) if challenged else None
    journal.record(verdict(1), source=None, sealed=False)
    said: list[str] = []
    database._connection.set_trace_callback(said.append)
    journal.seal(verdict(1).model_copy(update={"challenger": view}))
    database._connection.set_trace_callback(None)
    assert ("PRAGMA synchronous=NORMAL" in said) is not challenged
    assert Verdict.parse(journal.pending(1)[0].body).challenger == view


def test_receipts_with_another_digest_delete_nothing(journal: Journal, outbox: Outbox, hub: FakeHub) -> None:
    """Verdicts and pictures stay until the hub names exactly their bytes."""
    journal.record(verdict(1, Decision.NG), source=None, sealed=False)
    digest = outbox.put(verdict(1).id, png(picture()), "ng")
    journal.seal(verdict(1, Decision.NG).model_copy(update={"frame_sha256": digest}))
    hub.lie = lambda receipt: receipt.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(HubError, match="no receipt with the right digest"):
        uploader(journal, outbox, hub).drain_once()
    assert len(journal.pending(10)) == 1
    hub.lie = lambda receipt: receipt if receipt.kind == "verdict" else receipt.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(HubError, match="got a receipt for"):
        uploader(journal, outbox, hub).drain_once()
    assert outbox.depth() == 1
    assert outbox.pending(1)[0].path.exists()
    hub.lie = lambda receipt: receipt
    assert uploader(journal, outbox, hub).drain_once() == 1
    assert outbox.depth() == 0
    assert not outbox.sweep()
    assert hub.pictures == {digest: png(picture())}


def test_a_receipt_for_another_key_is_none(journal: Journal, outbox: Outbox, hub: FakeHub) -> None:
    """The right digest under another id confirms nothing."""
    journal.record(verdict(1), source=None, sealed=True)
    hub.lie = lambda receipt: Receipt(kind="verdict", key="other", sha256=receipt.sha256, new=True)
    with pytest.raises(HubError):
        uploader(journal, outbox, hub).drain_once()
    assert len(journal.pending(10)) == 1


def test_one_refused_verdict_does_not_hold_up_the_others(journal: Journal, outbox: Outbox, hub: FakeHub) -> None:
    """The batch is halved until the bad one is alone; it is set aside, counted, and not sent again."""
    for sequence in range(1, 8):
        journal.record(verdict(sequence), source=None, sealed=True)
    outbox.put(verdict(5).id, png(picture()), "ng")
    hub.refuse_parts = {"p5"}
    uploader(journal, outbox, hub).drain_once()
    assert {v.part for v in hub.verdicts.values()} == {"p1", "p2", "p3", "p4", "p6", "p7"}
    asked = len(hub.requests)
    assert uploader(journal, outbox, hub).drain_once() == 0
    assert len(hub.requests) == asked
    assert journal.counters()["refused"] == 2
    assert journal.ledger().closes


def test_a_verdict_and_its_picture_are_set_aside_at_once(journal: Journal, outbox: Outbox, hub: FakeHub) -> None:
    """No crash comes between the two; both are counted, and both are sent again when people say so."""
    journal.record(verdict(1, Decision.NG), source=None, sealed=True)
    outbox.put(verdict(1).id, png(picture()), "ng")
    for _ in range(2):
        journal.mark_refused(verdict(1).id)
        assert (outbox.depth(), journal.counters()["refused"]) == (0, 2)
        assert (journal.ledger().evicted, journal.ledger().pending, journal.ledger().closes) == (2, 0, True)
    assert journal.requeue() == 2
    while uploader(journal, outbox, hub).drain_once():
        pass
    assert (len(hub.notes), journal.ledger().uploaded, journal.ledger().closes) == (1, 2, True)


def test_a_picture_whose_verdict_rotted_does_not_wait_for_it(journal: Journal, outbox: Outbox, database: Database) -> None:
    """Set aside with it, and counted."""
    journal.record(verdict(1, Decision.NG), source=None, sealed=True)
    outbox.put(verdict(1).id, png(picture()), "ng")
    with database.write() as db:
        db.execute("UPDATE verdicts SET body = x'00'")
    assert journal.pending(9) == []
    assert (outbox.depth(), journal.counters()["refused"]) == (0, 2)
    assert (journal.ledger().evicted, journal.ledger().closes) == (2, True)


def test_an_unreachable_hub_loses_nothing_and_doubles_nothing(journal: Journal, outbox: Outbox, hub: FakeHub) -> None:
    """Also when the answer is lost after the hub has stored."""
    for sequence in range(1, 4):
        journal.record(verdict(sequence), source=None, sealed=True)

    def lost(receipt: Receipt) -> Receipt:
        raise HubError("cable cut after storing")

    hub.lie = lost
    with pytest.raises(HubError):
        uploader(journal, outbox, hub).drain_once()
    hub.lie = lambda receipt: receipt
    assert uploader(journal, outbox, hub).drain_once() == 3
    assert len(hub.verdicts) == 3


def test_pictures_go_before_verdicts_and_the_least_telling_first(
    journal: Journal, database: Database, tmp_path: Path
) -> None:
    """A full outbox drops audit before NG, counts it, takes nothing less telling in its place, and keeps every verdict."""
    size = len(png(picture(0)))
    small = Outbox(database, tmp_path / "small", max_bytes=int(size * 2.5), min_free_bytes=0)
    for sequence, why in enumerate(["audit", "ng", "ng", "audit"], start=1):
        journal.record(verdict(sequence), source=None, sealed=True)
        with contextlib.nullcontext() if sequence < 4 else pytest.raises(DeviceError, match="no room"):
            small.put(verdict(sequence).id, png(picture(sequence)), why)
    for sequence in range(1, 5):
        journal.mark_uploaded([verdict(sequence).id])
    assert [p.why for p in small.pending(10)] == ["ng", "ng"]
    ledger = journal.ledger()
    assert (ledger.evicted, ledger.triggers, ledger.closes) == (1, 4, True)


def test_one_file_serves_two_verdicts(journal: Journal, outbox: Outbox, hub: FakeHub) -> None:
    """Equal pictures are one file, which stays until both are uploaded."""
    for sequence in (1, 2):
        journal.record(verdict(sequence), source=None, sealed=True)
        outbox.put(verdict(sequence).id, png(picture()), "ng")
    uploader(journal, outbox, hub, batch=1).drain_once()
    assert outbox.pending(10) == []
    assert outbox.depth() == 1
    uploader(journal, outbox, hub, batch=1).drain_once()
    assert outbox.depth() == 0
    assert len(hub.notes) == 2


def test_a_damaged_picture_is_not_sent(journal: Journal, outbox: Outbox, hub: FakeHub) -> None:
    """A file that rotted on the disk is set aside, not sent under a digest it does not have."""
    journal.record(verdict(1), source=None, sealed=True)
    outbox.put(verdict(1).id, png(picture()), "ng")
    journal.mark_uploaded([verdict(1).id])
    outbox.pending(1)[0].path.write_bytes(b"rot")
    uploader(journal, outbox, hub).drain_once()
    assert hub.pictures == {}
    assert journal.counters()["refused"] == 1


def test_the_keeper_seals_with_the_digest_or_without(database: Database, journal: Journal, outbox: Outbox) -> None:
    """Every verdict handed over is sealed; a live camera is never held up by a full queue."""
    keeper = Keeper(database, journal, outbox, queue_frames=1)
    for sequence in (1, 2):
        journal.record(verdict(sequence), source=None, sealed=False)
        keeper.offer(verdict(sequence), picture(sequence), "ng", wait=False)
    assert [Verdict.parse(p.body).frame_sha256 for p in journal.pending(10)] == [None]
    assert journal.counters()["pictures_dropped"] == 1
    keeper.worker.start()
    keeper.stop()
    first = Verdict.parse(journal.pending(10)[0].body)
    assert first.frame_sha256 is not None
    assert outbox.depth() == 1


def test_a_row_left_open_is_sealed_without_a_restart(database: Database, journal: Journal, outbox: Outbox) -> None:
    """Nobody holds it: sealed at the second look, with its picture when that is in the outbox; never while it is queued."""
    keeper = Keeper(database, journal, outbox, queue_frames=2)
    for sequence in (1, 2, 3):
        journal.record(verdict(sequence, Decision.NG), source=None, sealed=False)
    digest = outbox.put(verdict(2).id, png(picture(2)), "ng")
    keeper.offer(verdict(3, Decision.NG), picture(3), "ng", wait=False)
    assert [keeper.seal_strays(), keeper.seal_strays(), keeper.seal_strays()] == [0, 2, 0]
    assert [Verdict.parse(p.body).frame_sha256 for p in journal.pending(10)] == [None, digest]
    keeper.worker.start()
    keeper.stop()
    assert journal.open_ids() == set()
    assert Verdict.parse(journal.pending(10)[2].body).frame_sha256 is not None


def test_a_trial_of_a_part_is_found_by_its_name(journal: Journal, outbox: Outbox, hub: FakeHub) -> None:
    """Newest first, word for word, with the picture that is kept after its receipt."""
    first, second = (verdict(n, Decision.NG).model_copy(update={"part": "SN7"}) for n in (1, 2))
    journal.record(first, source=None, sealed=True)
    journal.record(verdict(3), source=None, sealed=True)
    journal.record(second, source=None, sealed=True)
    outbox.put(second.id, png(picture(2)), "ng")
    uploader(journal, outbox, hub).drain_once()
    assert journal.find("SN7") == [second, first]
    assert journal.find("SN8") == []
    kept = outbox.picture_of(second.id)
    assert kept is not None
    assert kept.read_bytes() == png(picture(2))
    assert outbox.picture_of(first.id) is None


def test_a_start_remembers_what_it_ran_on(journal: Journal) -> None:
    """A passport names processor and libraries of each verdict's boot."""
    journal.begin_boot("b", "1.2", describe())
    found = journal.boot("b")
    assert found is not None
    assert found.agent_version == "1.2"
    assert {"cpu", "python", "onnxruntime", "numpy"} <= found.machine.keys()
    assert journal.boot("other") is None


def test_clocks_may_jump(journal: Journal, outbox: Outbox, hub: FakeHub) -> None:
    """Ten years forward and back between parts: rows keep their order, all go up, the ledger closes."""
    years = (2025, 2035, 2015, 2025)
    for sequence, year in enumerate(years, start=1):
        jumped = verdict(sequence).model_copy(update={"captured_at": NOW.replace(year=year)})
        journal.record(jumped, source=None, sealed=True)
    assert [Verdict.parse(p.body).captured_at.year for p in journal.pending(10)] == list(years)
    assert uploader(journal, outbox, hub).drain_once() == 4
    assert journal.ledger().closes


def test_the_line_is_red_when_a_row_is_lost(database: Database, journal: Journal) -> None:
    """The line compares counters with rows: it names what does not add up, is counted once, and is green again after."""
    for sequence in (1, 2):
        journal.record(verdict(sequence, Decision.NG), source=None, sealed=True)
    watch = LedgerWatch(database, journal, every_seconds=60)
    assert watch.check().text == (
        "ledger closes: 2 triggers = 0 OK + 2 NG + 0 inconclusive + 0 error + 0 missed; "
        "2 stored = 0 uploaded + 2 pending + 0 evicted"
    )
    row = database.read("SELECT * FROM verdicts WHERE row = 1")[0]
    with database.write() as db:
        db.execute("DELETE FROM verdicts WHERE row = 1")
    for _ in range(2):
        assert not watch.check().closes
    assert watch.line.text.count("(1 missing)") == 2
    assert watch.worker.failure == watch.line.text
    assert journal.counters()["ledger_breaks"] == 1
    with database.write() as db:
        db.execute(f"INSERT INTO verdicts VALUES ({', '.join('?' * len(row))})", row)
    assert watch.check().closes
    assert watch.worker.failure is None


@given(st.integers(0, 60))
def test_the_pause_is_capped(failures: int) -> None:
    """However often the hub was away."""
    backoff = Backoff(0.5, 60.0, failures=failures)
    assert 0 <= backoff.next_seconds() <= min(60.0, 0.5 * 2**failures)
