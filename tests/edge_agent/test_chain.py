"""The chain notices what was changed, removed or inserted; it survives any history; an old file is taken over whole."""

import contextlib
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_agent import migrations
from edge_agent.database import Database
from edge_agent.errors import DeviceError, HubError
from edge_agent.journal import Journal
from edge_agent.outbox import Outbox
from edge_agent.uploader import Uploader
from edge_agent.verifying import ChainCheck, verify
from inspection.contracts import Decision, PictureNote, Receipt, Verdict
from tests.edge_agent.helpers import Authority, FakeHub, picture, png
from tests.edge_agent.test_journal import uploader, verdict

AUTHORITY = Authority()


class ForgetfulHub(FakeHub):
    """A hub that asks for a verdict it lost, as the real one does."""

    def send_picture(self, note: PictureNote, data: bytes) -> Receipt | None:  # type: ignore[override]  # the port's own answer
        """None for a picture of a verdict it does not hold."""
        return super().send_picture(note, data) if note.verdict_id in self.verdicts else None


class History(RuleBasedStateMachine):
    """Everything that happens to a journal, in any order. Hypothesis looks for an order that breaks a promise."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.hub = ForgetfulHub(AUTHORITY)
        self.seen: set[str] = set()
        self.sequence = self.triggers = 0
        self.opened: list[Verdict] = []
        self.start()

    def start(self) -> None:
        """Open the file as a starting agent does."""
        self.database = Database(self.folder / "j.db")
        self.journal = Journal(self.database, max_pending=6, keep_rows=4, chain_slack=3)
        self.outbox = Outbox(self.database, self.folder / "out", max_bytes=20_000, min_free_bytes=0)
        self.outbox.sweep()
        self.journal.seal_orphans()
        self.opened = []

    def teardown(self) -> None:
        """Leave nothing."""
        self.database.close()
        shutil.rmtree(self.folder)

    @property
    def uploader(self) -> Uploader:
        """A fresh one: its suspects are not the matter here."""
        return uploader(self.journal, self.outbox, self.hub)

    @rule(decision=st.sampled_from(Decision), sealed=st.booleans(), boot=st.sampled_from("ab"))
    def record(self, decision: Decision, sealed: bool, boot: str) -> None:
        """A trigger."""
        self.sequence += 1
        made = verdict(self.sequence, decision, boot=boot)
        self.journal.record(made, source=None, sealed=sealed)
        self.triggers += 1
        self.seen.add(made.id)
        if not sealed:
            self.opened.append(made)

    @rule(number=st.integers(1, 5))
    def missed(self, number: int) -> None:
        """Triggers nobody served."""
        self.journal.count_missed(number)
        self.triggers += number

    @precondition(lambda self: self.opened)
    @rule(why=st.sampled_from(["ng", "audit", "collect"]), sealed=st.booleans())
    def keep(self, why: str, sealed: bool) -> None:
        """A picture; a crash may come before its row is sealed."""
        made = self.opened.pop()
        with contextlib.suppress(DeviceError):
            digest = self.outbox.put(made.id, png(picture(made.sequence)), why)
            if sealed:
                self.journal.seal(made.model_copy(update={"frame_sha256": digest}))

    @rule()
    def upload(self) -> None:
        """The hub is there."""
        with contextlib.suppress(HubError):
            self.uploader.drain_once()

    @precondition(lambda self: self.sequence)
    @rule()
    def refuse(self) -> None:
        """The hub refuses the newest part."""
        self.hub.refuse_parts = {f"p{self.sequence}"}
        self.upload()

    @rule()
    def relent(self) -> None:
        """The hub takes everything again."""
        self.hub.refuse_parts = set()
        self.journal.requeue()

    @rule()
    def lose(self) -> None:
        """The hub is restored from an old backup: what it gave a receipt for is its loss, unless it is asked for again."""
        self.hub.verdicts.clear()
        self.seen &= self.here("WHERE state != 'uploaded'")

    @rule()
    def trim(self) -> None:
        """The file is kept small, in the smallest steps."""
        while self.journal.trim(2):
            assert self.journal.ledger().closes
            assert verify(self.database) == ChainCheck(True, self.entries())

    @rule(length=st.integers(1, 20_000))
    def shed(self, length: int) -> None:
        """The disk is full."""
        self.outbox.shed(length)

    @rule()
    def crash(self) -> None:
        """The process dies and starts again."""
        self.database.close()
        self.start()

    def entries(self) -> int:
        """How many entries the chain has."""
        return self.database.number("SELECT COUNT(*) FROM chain")

    def here(self, where: str = "") -> set[str]:
        """Verdicts that are still in the file."""
        return {str(row[0]) for row in self.database.read(f"SELECT id FROM verdicts {where}")}

    @invariant()
    def the_ledger_closes(self) -> None:
        """Both identities, and no trigger is lost."""
        ledger = self.journal.ledger()
        assert ledger.closes, ledger
        assert ledger.triggers == self.triggers

    @invariant()
    def the_chain_holds(self) -> None:
        """Every entry and every row."""
        assert verify(self.database) == ChainCheck(True, self.entries())

    @invariant()
    def nothing_is_lost_uncounted(self) -> None:
        """What is neither here nor at the hub was evicted, and counted."""
        lost = self.seen - self.here() - self.hub.verdicts.keys()
        assert len(lost) <= self.journal.counters().get("evicted", 0)


History.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
test_any_history_keeps_ledger_and_chain = History.TestCase


@pytest.fixture
def written(tmp_path: Path, hub: FakeHub) -> Iterator[Database]:
    """A journal with rows in every state, sealed bodies, missed triggers, and a chain that was shortened."""
    database = Database(tmp_path / "j.db")
    journal = Journal(database, max_pending=100, keep_rows=5, chain_slack=0)
    for sequence in range(1, 31):
        journal.record(verdict(sequence, Decision.NG), source=None, sealed=False)
        journal.seal(verdict(sequence, Decision.NG).model_copy(update={"frame_sha256": f"{sequence:064x}"}))
        if sequence == 20:
            journal.mark_refused(verdict(2).id)
            journal.mark_uploaded([verdict(n).id for n in range(1, 21)])
    journal.count_missed(3)
    while journal.trim(3):
        pass
    assert database.number("SELECT MIN(n) FROM chain") > 1
    assert verify(database).ok
    yield database
    database.close()


NEWEST = "(SELECT MAX(row) FROM verdicts)"


@pytest.mark.parametrize(
    ("tampering", "words"),
    [
        (f"UPDATE verdicts SET decision = 'OK' WHERE row = {NEWEST}", "another id, part or decision"),
        (f"UPDATE verdicts SET part = 'x' WHERE row = {NEWEST}", "another id, part or decision"),
        (f"UPDATE verdicts SET body = substr(body, 2) WHERE row = {NEWEST}", "damaged"),
        (f"UPDATE verdicts SET body = '{{}}', sample = 0 WHERE row = {NEWEST}", "was changed"),
        (f"UPDATE verdicts SET n = n - 1 WHERE row = {NEWEST}", "was changed"),
        ("UPDATE verdicts SET body = x'00' WHERE id = '" + verdict(2).id + "'", "damaged"),
        (f"DELETE FROM verdicts WHERE row = {NEWEST}", "is gone, but only"),
        ("INSERT INTO verdicts (id, part, decision, body, state) VALUES ('i', 'p', 'OK', x'7b7d', 'sealed')", "no entry"),
        ("DELETE FROM chain WHERE n = (SELECT MAX(n) - 2 FROM chain)", "are missing"),
        ("DELETE FROM chain WHERE n = (SELECT MIN(n) FROM chain)", "which no trim names"),
        ("UPDATE chain SET digest = zeroblob(32) WHERE n = (SELECT MAX(n) FROM chain)", "does not follow"),
        ("UPDATE chain SET key = '4' WHERE kind = 'missed'", "does not follow"),
        ("UPDATE chain SET link = zeroblob(32) WHERE n = (SELECT MIN(n) FROM chain)", "does not follow"),
        ("DELETE FROM samples", "damaged"),
    ],
)
def test_tampering_is_noticed(written: Database, tampering: str, words: str) -> None:
    """Whatever is done to a row or an entry without recomputing the chain."""
    with written.write() as db:
        assert db.execute(tampering).rowcount > 0
    found = verify(written)
    assert not found.ok
    assert words in str(found.reason)


def test_an_older_body_put_back_is_noticed(database: Database, journal: Journal) -> None:
    """The recorded body was true once; the seal came after it."""
    journal.record(verdict(1, Decision.NG), source=None, sealed=False)
    (older,) = database.read("SELECT body, n FROM verdicts")
    journal.seal(verdict(1, Decision.NG).model_copy(update={"frame_sha256": "1" * 64}))
    with database.write() as db:
        db.execute("UPDATE verdicts SET body = ?, n = ?", older)
    assert "older body" in str(verify(database).reason)


def test_a_shorter_body_is_the_same_body(tmp_path: Path) -> None:
    """Packed against the first body of its boot, each row gives back its canonical bytes, over restarts too."""
    made = [verdict(n, d, boot=b) for b in "xy" for n, d in enumerate([*Decision] * 3, start=1)]
    for start in (0, 6, 12):
        database = Database(tmp_path / "j.db")
        journal = Journal(database, max_pending=10, keep_rows=10)
        for one in made[start : start + 6] if start < 12 else made[12:]:
            journal.record(one, source=None, sealed=True)
        database.close()
    database = Database(tmp_path / "j.db")
    assert [p.body for p in Journal(database, max_pending=99, keep_rows=0).pending(99)] == [v.canonical() for v in made]
    packed = database.number("SELECT SUM(LENGTH(body)) FROM verdicts")
    assert packed < sum(len(v.canonical()) for v in made) / 3
    database.close()


def test_a_rotten_row_does_not_hold_up_the_others(database: Database, journal: Journal) -> None:
    """It is set aside, counted, and said by the check."""
    for sequence in (1, 2, 3):
        journal.record(verdict(sequence), source=None, sealed=True)
    with database.write() as db:
        db.execute("UPDATE verdicts SET body = x'00' WHERE row = 2")
    assert [p.id for p in journal.pending(10)] == [verdict(1).id, verdict(3).id]
    assert (journal.ledger().evicted, journal.ledger().closes) == (1, True)
    assert verify(database).first_bad == 2


def old_file(path: Path) -> dict[str, Verdict]:
    """A journal as the first agent wrote it: rows and pictures in every state; three uploaded ones already forgotten."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode=WAL")
    for statement in migrations._FIRST:
        db.execute(statement)
    states = ["uploaded", "uploaded", "refused", "evicted", "open", "sealed"]
    made = {state: verdict(n, Decision.NG) for n, state in enumerate(states, start=4)}
    for row, state in enumerate(states, start=4):
        one = verdict(row, Decision.NG)
        db.execute("INSERT INTO verdicts VALUES (?, ?, ?, ?, ?, ?)", (row, one.id, one.part, "NG", one.canonical(), state))
    for name, refused, why in (("uploaded", 0, "ng"), ("refused", 1, "ng"), ("evicted", 1, "audit"), ("open", 0, "audit")):
        row = (made[name].id, f"{made[name].sequence:064x}", 7, why, {"ng": 4, "audit": 3}[why], refused)
        db.execute("INSERT INTO pictures (verdict_id, sha256, length, why, priority, refused) VALUES (?,?,?,?,?,?)", row)
    counted = {"triggers": 11, "NG": 9, "missed": 2, "stored": 13, "uploaded": 5, "evicted": 4, "refused": 2, "late": 1}
    db.executemany("INSERT INTO counters VALUES (?, ?)", counted.items())
    db.execute("INSERT INTO delivered VALUES ('dir', 'a.png')")
    db.execute("INSERT INTO by_digest VALUES (?, 9)", ("a" * 64,))
    db.commit()
    db.close()
    return made


def test_an_old_file_is_taken_over_whole(tmp_path: Path) -> None:
    """Every row, picture, counter and name is there, the ledger closes, the chain begins, and it goes on."""
    made = old_file(tmp_path / "j.db")
    for _ in range(2):  # the second time there is nothing to do
        database = Database(tmp_path / "j.db")
        journal = Journal(database, max_pending=100, keep_rows=1)
        outbox = Outbox(database, tmp_path / "out", max_bytes=10**6, min_free_bytes=0)
        ledger = journal.ledger()
        assert ledger.model_dump() == {
            "triggers": 11,
            "ok": 0,
            "ng": 9,
            "inconclusive": 0,
            "error": 0,
            "missed": 2,
            "stored": 13,
            "uploaded": 5,
            "pending": 4,
            "evicted": 4,
        }
        assert ledger.closes
        assert verify(database).ok
        assert journal.delivered("dir", ["a.png"]) == {"a.png"}
        assert journal.verdicts_by_digest() == {"a" * 64: 9}
        assert [p.verdict_id for p in outbox.pending(9)] == [made["uploaded"].id]
        assert journal.find(made["refused"].part) == [made["refused"]]
        database.close()
    database = Database(tmp_path / "j.db")
    journal = Journal(database, max_pending=100, keep_rows=1)
    assert journal.seal_orphans() == 1
    assert Verdict.parse(journal.pending(9)[0].body).frame_sha256 == f"{made['open'].sequence:064x}"
    journal.record(verdict(99), source=None, sealed=True)
    while journal.trim():
        pass
    assert journal.ledger().closes
    assert verify(database).ok
    database.close()


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    """Its meaning is not guessed at, and it is left as it is."""
    db = sqlite3.connect(tmp_path / "j.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(DeviceError, match="newer agent"):
        Database(tmp_path / "j.db")
    db = sqlite3.connect(tmp_path / "j.db")
    assert json.dumps(db.execute("SELECT name FROM sqlite_master").fetchall()) == "[]"
    db.close()
