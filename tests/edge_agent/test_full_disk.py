"""On a full disk the journal comes first: the ballast, then pictures, are given up so that an agent starts and goes on."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_agent.agent import Agent
from edge_agent.ballast import BALLAST_NAME, Ballast
from edge_agent.database import Database
from edge_agent.errors import DeviceError
from edge_agent.journal import Journal
from edge_agent.outbox import Outbox
from inspection.contracts import Decision, Verdict
from tests.edge_agent.helpers import FakeHub, config, picture, png
from tests.edge_agent.test_journal import verdict


def test_a_journal_that_finds_no_room_to_open_asks_for_some(tmp_path: Path) -> None:
    """A folder in the file's place stands for the full disk: opening fails until somebody takes it away."""
    (tmp_path / "j.db").mkdir()
    with pytest.raises(DeviceError, match="cannot be opened"):
        Database(tmp_path / "j.db")

    def relieve() -> bool:
        (tmp_path / "j.db").rmdir()
        return True

    database = Database(tmp_path / "j.db", relief=relieve)
    assert database.number("SELECT COUNT(*) FROM verdicts") == 0
    database.close()


def test_a_start_on_a_full_disk_gives_up_the_ballast_first(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the journal is opened, since opening writes too; with room it stays."""
    settings = config(hub.authority.root, ballast_bytes=100_000)
    assert Ballast(tmp_path / BALLAST_NAME, 100_000).restore(0)
    Agent(tmp_path, settings, "b1", hub).close()
    assert (tmp_path / BALLAST_NAME).exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4096))
    agent = Agent(tmp_path, settings, "b2", hub)
    assert not (tmp_path / BALLAST_NAME).exists()
    agent.close()


class Bounded:
    """A database whose file may not grow until `relieve` was called: SQLite then says what a full disk says."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.relieved = 0
        database.relief = self.relieve
        self._grow_to(database.number("PRAGMA page_count"))

    def _grow_to(self, pages: int) -> None:
        with self._database.write() as db:
            db.execute(f"PRAGMA max_page_count = {pages}")

    def relieve(self) -> bool:
        """Room for all."""
        self.relieved += 1
        self._grow_to(1_000_000)
        return True


def test_what_a_start_writes_may_cost_room_too(database: Database, journal: Journal, outbox: Outbox) -> None:
    """Sealing what a crash left open, and the start itself, get the room that a verdict would get."""
    for sequence in range(1, 151):
        journal.record(verdict(sequence, Decision.NG), source=None, sealed=False)
        outbox.put(verdict(sequence).id, png(picture()), "ng")
    disk = Bounded(database)
    assert journal.seal_orphans() == 150
    assert disk.relieved == 1
    assert Verdict.parse(journal.pending(1)[0].body).frame_sha256 is not None
    disk = Bounded(database)
    journal.begin_boot("b", "1", {"cpu": "x" * 100_000})
    assert disk.relieved == 1
    assert journal.boot("b") is not None
