"""Pictures: bounded, the most telling longest, nothing dropped without being counted."""

import errno
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_agent.ballast import Ballast
from edge_agent.database import Database
from edge_agent.errors import DeviceError
from edge_agent.housekeeping import Housekeeper
from edge_agent.journal import Journal
from edge_agent.outbox import Outbox
from edge_agent.ranks import RANKS
from inspection.contracts import Decision
from tests.edge_agent.helpers import FakeHub, picture, png
from tests.edge_agent.test_journal import uploader, verdict

SIZE = 10_000


def data(number: int) -> bytes:
    """A picture's worth of bytes."""
    return number.to_bytes(4, "big") * (SIZE // 4)


def kept(database: Database) -> list[str]:
    """Reasons of the pictures here, in the order they came."""
    return [str(row[0]) for row in database.read("SELECT why FROM pictures ORDER BY row")]


def fill(journal: Journal, outbox: Outbox, whys: list[str]) -> None:
    """A verdict and a picture for each reason."""
    for sequence, why in enumerate(whys, start=1):
        journal.record(verdict(sequence, Decision.NG), source=None, sealed=True)
        outbox.put(verdict(sequence).id, data(sequence), why)


def test_the_least_telling_goes_first(journal: Journal, database: Database, tmp_path: Path) -> None:
    """Sent before collect before near before audit before disagreement before inconclusive before NG."""
    outbox = Outbox(database, tmp_path / "o", max_bytes=len(RANKS) * SIZE, min_free_bytes=0)
    whys = sorted(RANKS, key=lambda why: RANKS[why], reverse=True)
    assert whys == ["ng", "inconclusive", "disagree", "audit", "near_threshold", "collect"]
    fill(journal, outbox, whys)
    journal.mark_uploaded([verdict(1).id])
    outbox.mark_sent(verdict(1).id)
    expected = ["ng", *reversed(whys)]  # the first picture is sent: it goes before all that wait
    for number in range(len(whys)):
        before = Counter(kept(database))
        journal.record(verdict(100 + number, Decision.NG), source=None, sealed=True)
        outbox.put(verdict(100 + number).id, data(100 + number), "ng")
        assert before + Counter(["ng"]) - Counter(kept(database)) == Counter([expected[number]])
        assert outbox.stored_bytes() <= len(RANKS) * SIZE
        assert journal.ledger().closes
    assert kept(database) == ["ng"] * len(whys)
    assert journal.ledger().evicted == len(whys) - 1
    assert journal.counters()["gone_uploaded"] == 1


def test_nothing_goes_for_something_less_telling(journal: Journal, database: Database, tmp_path: Path) -> None:
    """An OK sample finds no room among NG pictures; what it would have cost stays, also when all of it would not do."""
    outbox = Outbox(database, tmp_path / "o", max_bytes=2 * SIZE, min_free_bytes=0)
    fill(journal, outbox, ["ng", "collect"])
    journal.record(verdict(3), source=None, sealed=True)
    with pytest.raises(DeviceError, match="no room"):
        outbox.put(verdict(3).id, data(3) * 2, "audit")
    assert kept(database) == ["ng", "collect"]
    outbox.put(verdict(3).id, data(3), "audit")
    assert kept(database) == ["ng", "audit"]
    assert len(list((tmp_path / "o").iterdir())) == 2
    assert journal.ledger().closes


def test_room_is_left_for_updates(journal: Journal, database: Database, tmp_path: Path) -> None:
    """Pictures leave the reserve and the least free bytes alone, however small the outbox is."""
    free = Outbox(database, tmp_path / "o", max_bytes=10**9, min_free_bytes=0).free_disk_bytes()
    outbox = Outbox(database, tmp_path / "o", max_bytes=10**9, min_free_bytes=1, reserve_bytes=10 * free)
    journal.record(verdict(1), source=None, sealed=True)
    with pytest.raises(DeviceError, match="no room"):
        outbox.put(verdict(1).id, data(1), "ng")
    assert list((tmp_path / "o").iterdir()) == []


def test_a_sent_picture_stays_until_its_room_is_needed(journal: Journal, outbox: Outbox, hub: FakeHub) -> None:
    """Uploaded, not waiting any more, and still here for a replay."""
    fill(journal, outbox, ["ng"])
    assert uploader(journal, outbox, hub).drain_once() == 2
    assert (outbox.depth(), journal.ledger().pending, journal.ledger().uploaded) == (0, 0, 2)
    assert outbox.picture_of(verdict(1).id) is not None
    assert outbox.sweep() == 0
    assert outbox.shed(1)
    assert outbox.picture_of(verdict(1).id) is None
    assert (journal.ledger().uploaded, journal.ledger().evicted, journal.ledger().closes) == (2, 0, True)


def test_a_crash_between_file_and_row_is_settled(journal: Journal, outbox: Outbox, tmp_path: Path) -> None:
    """A file without a row goes; a row without a file is counted as evicted."""
    fill(journal, outbox, ["ng", "ng"])
    lost = outbox.picture_of(verdict(1).id)
    assert lost is not None
    lost.unlink()
    (tmp_path / "outbox" / ".x.png.7.tmp").write_bytes(b"half")
    assert outbox.sweep() == 2
    assert (outbox.depth(), journal.ledger().evicted, journal.ledger().closes) == (1, 1, True)
    assert outbox.stored_bytes() == SIZE


def test_set_aside_pictures_can_be_sent_again(journal: Journal, outbox: Outbox, hub: FakeHub) -> None:
    """What was refused counts as evicted until it is queued again; then all of it arrives."""
    fill(journal, outbox, ["ng", "audit"])
    hub.refuse_parts = {"p1"}
    uploader(journal, outbox, hub).drain_once()
    assert (journal.ledger().evicted, journal.counters()["refused"], journal.ledger().closes) == (2, 2, True)
    hub.refuse_parts = set()
    assert journal.requeue() == 2
    assert (journal.ledger().evicted, journal.ledger().pending, journal.ledger().closes) == (0, 2, True)
    while uploader(journal, outbox, hub).drain_once():
        pass
    assert sorted(note.why for note in hub.notes) == ["audit", "ng"]
    assert (journal.ledger().pending, journal.ledger().uploaded, journal.requeue()) == (0, 4, 0)


def test_a_long_outage_evicts_in_small_steps(database: Database, outbox: Outbox, hub: FakeHub) -> None:
    """Beyond the bound the oldest waiting rows go, some at a time, counted, with their pictures; set-aside ones first."""
    journal = Journal(database, max_pending=5, keep_rows=0)
    fill(journal, outbox, ["ng"] * 12)
    hub.refuse_parts = {"p12"}
    uploader(journal, outbox, hub, batch=12)._send(journal.pending(12)[11:])
    assert [journal.trim(4), journal.trim(4), journal.trim(4)] == [4, 3, 0]
    assert [p.id for p in journal.pending(99)] == [verdict(n).id for n in range(7, 12)]
    assert (journal.ledger().evicted, journal.ledger().closes) == (14, True)
    uploader(journal, outbox, hub).drain_once()
    assert [journal.trim(4), journal.trim(4)] == [1, 0]  # an uploaded row goes, but not before its picture is sent


def test_the_ballast_goes_first_and_comes_back(journal: Journal, database: Database, tmp_path: Path) -> None:
    """A full disk costs the ballast, then pictures; both are put back or stop going when there is room again."""
    outbox = Outbox(database, tmp_path / "o", max_bytes=10**9, min_free_bytes=0)
    ballast = Ballast(tmp_path / "ballast", 100_000)
    keeper = Housekeeper(database, journal, outbox, ballast, min_free_bytes=0)
    fill(journal, outbox, ["ng"])
    assert ballast.missing
    keeper.worker.attempt()
    assert not ballast.missing
    assert (tmp_path / "ballast").stat().st_blocks * 512 >= 100_000
    assert database.relief()
    assert ballast.missing
    assert kept(database) == ["ng"]
    assert database.relief()
    assert kept(database) == []
    assert not database.relief()
    keeper.worker.attempt()
    assert not ballast.missing
    assert keeper.worker.failure is None
    assert not Ballast(tmp_path / "b2", 10**6).restore(10**18)
    assert list(tmp_path.glob("b2*")) == []


def test_the_ballast_costs_no_picture_while_the_disk_has_room(journal: Journal, database: Database, tmp_path: Path) -> None:
    """An outbox that is as full as it may be is no full disk."""
    outbox = Outbox(database, tmp_path / "o", max_bytes=3 * SIZE, min_free_bytes=0)
    keeper = Housekeeper(database, journal, outbox, Ballast(tmp_path / "ballast", 2 * SIZE), min_free_bytes=0)
    fill(journal, outbox, ["ng", "ng", "ng"])
    keeper.worker.attempt()
    assert (tmp_path / "ballast").exists()
    assert kept(database) == ["ng", "ng", "ng"]


def test_the_ballast_gets_the_room_of_pictures_on_a_full_disk(journal: Journal, database: Database, tmp_path: Path) -> None:
    """Free space alone decides, and no more goes than must."""
    outbox = Outbox(database, tmp_path / "o", max_bytes=10**9, min_free_bytes=0)
    fill(journal, outbox, ["audit", "ng", "ng"])
    outbox.free_disk_bytes = lambda: 3 * SIZE - outbox.stored_bytes()  # type: ignore[method-assign]  # a disk of three pictures
    assert outbox.make_disk_room(SIZE)
    assert kept(database) == ["ng", "ng"]
    assert not outbox.make_disk_room(4 * SIZE)
    assert kept(database) == ["ng", "ng"]
    assert journal.ledger().closes


class Refusing(Database):
    """A disk that writes nothing down any more while it is ``full``."""

    full = False

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """DeviceError, or as ever."""
        if self.full:
            raise DeviceError("disk is full")
        with super().write(durable=durable) as db:
            yield db


def test_a_picture_whose_row_could_not_go_is_still_counted_rightly(tmp_path: Path) -> None:
    """Its file went, its row did not: however often that happens, what is stored does not seem less than it is."""
    database = Refusing(tmp_path / "j.db")
    journal, outbox = (
        Journal(database, max_pending=9, keep_rows=9),
        Outbox(database, tmp_path / "o", max_bytes=10**9, min_free_bytes=0),
    )
    fill(journal, outbox, ["audit", "ng"])
    database.full = True
    for _ in range(3):
        with pytest.raises(DeviceError):
            outbox.shed(1)
    database.full = False
    assert outbox.stored_bytes() == 2 * SIZE
    assert outbox.shed(1)
    assert outbox.stored_bytes() == SIZE
    assert kept(database) == ["ng"]
    database.close()


def test_a_disk_where_nothing_can_be_deleted_gives_no_relief(
    journal: Journal, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read-only: whoever asked for room hears that there is none, and nothing else."""
    outbox = Outbox(database, tmp_path / "o", max_bytes=10**9, min_free_bytes=0)
    keeper = Housekeeper(database, journal, outbox, Ballast(tmp_path / "ballast", SIZE), min_free_bytes=0)
    fill(journal, outbox, ["ng"])

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", read_only)
    assert not keeper.relieve()
    assert kept(database) == ["ng"]
    assert outbox.stored_bytes() == SIZE


def test_equal_pictures_are_one_file(journal: Journal, outbox: Outbox) -> None:
    """It goes with the last row that needs it, and counts once."""
    for sequence in (1, 2):
        journal.record(verdict(sequence), source=None, sealed=True)
        outbox.put(verdict(sequence).id, png(picture()), "ng")
    size = len(png(picture()))
    assert outbox.stored_bytes() == size
    assert outbox._evict_one(99)
    assert outbox.stored_bytes() == size
    assert outbox.picture_of(verdict(2).id) is not None
    assert outbox._evict_one(99)
    assert outbox.stored_bytes() == 0
    assert journal.ledger().closes
