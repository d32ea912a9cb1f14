"""A challenger looks at what was answered, answers nobody, and holds nobody up."""

import time
from pathlib import Path

import pytest

from edge_agent import keeper
from edge_agent.bundle import open_bundle
from edge_agent.camera import Frame
from edge_agent.challenging import Challenging
from edge_agent.database import Database
from edge_agent.errors import DeviceError
from edge_agent.inspecting import Loaded
from edge_agent.journal import Journal
from edge_agent.keeper import Keeper
from edge_agent.outbox import Outbox
from edge_agent.runtime import Inference, OnnxRuntime, checked
from inspection.contracts import Decision, Manifest, Mode, Purpose, Verdict, sha256_hex
from tests.edge_agent.helpers import CLASSES, FakeHub, Image, bundle, picture
from tests.edge_agent.test_journal import verdict
from tests.edge_agent.test_loop import Rig

CHAMPION, CHALLENGER = bundle(), bundle(2, gain=0.5)
DOUBTED_BY_CHAMPION_ONLY = 175  # a red peak: score 0.38 with a gain of 0.1, 0.08 with 0.5


@pytest.fixture
def rig(tmp_path: Path, hub: FakeHub) -> Rig:
    """An agent that is assigned a champion and a challenger."""
    hub.publish(CHALLENGER, version=2)
    hub.assign(1, CHAMPION, challenger=CHALLENGER)
    return Rig(tmp_path, hub)


def test_the_challengers_view_travels_with_the_verdict_and_decides_nothing(rig: Rig) -> None:
    """Where the two would tell the line different things the picture is kept, and both views are in one row."""
    rig.run([Frame(picture(1, scratch=DOUBTED_BY_CHAMPION_ONLY), "doubt")])
    verdict = rig.by_part["doubt"]
    assert verdict.decision is Decision.INCONCLUSIVE
    assert verdict.bundle_digest == sha256_hex(CHAMPION)
    assert verdict.challenger is not None
    assert verdict.challenger.bundle_digest == sha256_hex(CHALLENGER)
    assert verdict.challenger.decision is Decision.OK
    assert verdict.challenger.scores["good"] > 0.9
    assert rig.line.told == [("doubt", False)]
    assert rig.ledger().closes


def test_a_disagreement_on_a_part_that_passed_is_kept(tmp_path: Path, hub: FakeHub) -> None:
    """The champion said OK and the challenger did not: that picture is worth asking about."""
    hub.publish(CHAMPION, version=2)
    hub.assign(1, CHALLENGER, challenger=CHAMPION)
    rig = Rig(tmp_path, hub)
    rig.run([Frame(picture(1, scratch=DOUBTED_BY_CHAMPION_ONLY), "passed"), Frame(picture(2), "good")])
    assert rig.line.told == [("passed", True), ("good", True)]
    assert [(note.verdict_id, note.why) for note in hub.notes] == [(rig.by_part["passed"].id, "disagree")]
    assert rig.by_part["passed"].frame_sha256 == hub.notes[0].sha256


class Slow(OnnxRuntime):
    """The challenger's inference takes a while."""

    def __init__(self, model: bytes, manifest: Manifest) -> None:
        super().__init__(model, manifest)
        self._seconds = 0.3 if manifest.version == 2 else 0.0

    def infer(self, frames: Image) -> Inference:
        """Sleep first."""
        time.sleep(self._seconds)
        return super().infer(frames)


def test_what_it_cannot_look_at_in_time_is_skipped_and_counted(rig: Rig) -> None:
    """Ten frames at once and a slow challenger: the line is not held up, every row is sealed, skips are counted."""
    rig.make_runtime = Slow
    started = time.monotonic()
    rig.run([Frame(picture(seed), f"p{seed}") for seed in range(10)])
    looked = [v for v in rig.by_part.values() if v.challenger is not None]
    counters = rig.counters()
    assert len(rig.by_part) == 10
    assert 1 <= len(looked) < 10
    assert counters["challenger_skipped"] == 10 - len(looked)
    assert time.monotonic() - started < 10 * 0.3 + 2  # self-tests and the last look included
    assert rig.ledger().closes


def test_with_a_takt_it_starts_only_what_it_can_finish(rig: Rig) -> None:
    """After one look it knows how long it takes; a takt shorter than that leaves it no time."""
    rig.make_runtime = Slow
    rig.config = rig.config.overridden(takt_seconds=0.05)
    rig.pause_seconds = 0.5
    rig.run([Frame(picture(seed), f"p{seed}") for seed in range(3)])
    assert [rig.by_part[f"p{seed}"].challenger is not None for seed in range(3)] == [True, False, False]


class Chosen:
    """As much of a loaded bundle as is looked at to choose."""

    def __init__(self, digest: str) -> None:
        self.digest = digest


def test_a_challenger_that_was_slow_once_is_asked_again_and_blames_no_other(tmp_path: Path) -> None:
    """Something else took the processor for a moment; and its successor begins with a clean sheet."""
    database = Database(tmp_path / "journal.db")
    journal = Journal(database, max_pending=10, keep_rows=10)
    outbox = Outbox(database, tmp_path / "outbox", max_bytes=10**6, min_free_bytes=0)
    asked = Challenging(
        database, journal, Keeper(database, journal, outbox, queue_frames=1), takt_seconds=1.0, note_view=lambda _: None
    )
    asked._expected = ("slow", 2.0)
    judged = verdict(1)
    slow, other = Chosen("slow"), Chosen("other")
    assert asked.choose(judged, slow, 0.1) is None  # type: ignore[arg-type]
    assert asked.choose(judged, other, 0.1) is other  # type: ignore[arg-type, comparison-overlap]
    assert any(asked.choose(judged, slow, 0.1) is not None for _ in range(100))  # type: ignore[arg-type]
    database.close()


class Torn(OnnxRuntime):
    """The challenger passes its self-test and fails afterwards."""

    def __init__(self, model: bytes, manifest: Manifest) -> None:
        super().__init__(model, manifest)
        self._left = len(manifest.self_test) if manifest.version == 2 else 10**6

    def infer(self, frames: Image) -> Inference:
        """A wrong answer once the self-test is over."""
        self._left -= 1
        answer = super().infer(frames)
        if self._left < 0:
            return checked([answer.scores * 3, answer.defect_maps], len(frames), len(CLASSES))
        return answer


def test_a_failing_challenger_costs_nothing_but_its_view(rig: Rig) -> None:
    """The champion's verdict stands, and the failure is counted."""
    rig.make_runtime = Torn
    rig.run([Frame(picture(1), "good")])
    assert rig.by_part["good"].decision is Decision.OK
    assert rig.by_part["good"].challenger is None
    assert rig.counters()["challenger_failed"] == 1


class TornOnce(Torn):
    """One wrong answer, then right ones again."""

    def infer(self, frames: Image) -> Inference:
        """The first after the self-test is wrong."""
        if self._left < 0:
            self._left = 10**6
        return super().infer(frames)


def test_a_challenger_that_is_well_again_is_no_trouble_any_more(rig: Rig) -> None:
    """What was reported of its one failure goes with the next view."""
    rig.make_runtime = TornOnce
    rig.pause_seconds = 0.3
    rig.run([Frame(picture(seed), f"p{seed}") for seed in range(3)])
    assert rig.counters()["challenger_failed"] == 1
    assert rig.counters()["challenger_agreed"] >= 1
    assert rig.hub.reports[-1].last_error is None


def test_a_camera_that_waits_loses_no_picture_to_a_challenger(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures are stored slowly: the files of a folder wait, whoever looks at them."""

    def slow(image: Image) -> bytes:
        time.sleep(0.15)
        return encode(image)

    encode = keeper.encode_png
    monkeypatch.setattr(keeper, "encode_png", slow)
    hub.publish(CHALLENGER, version=2)
    hub.assign(1, CHAMPION, challenger=CHALLENGER)
    rig = Rig(tmp_path, hub, keep_queue_frames=1)
    rig.run([Frame(picture(seed, scratch=255), f"p{seed}") for seed in range(10)])
    assert "pictures_dropped" not in rig.counters()
    assert len(rig.hub.notes) == 10
    assert any(v.challenger is not None for v in rig.by_part.values())


def test_nobody_is_compared_with_a_verdict_that_no_bundle_made(rig: Rig) -> None:
    """In collect mode nothing was decided: there is nothing to disagree with."""
    rig.hub.assign(2, CHAMPION, challenger=CHALLENGER, mode=Mode.COLLECT)
    rig.run([Frame(picture(1), "good")])
    assert rig.by_part["good"].challenger is None
    assert [note.why for note in rig.hub.notes] == ["collect"]
    assert not [name for name in rig.counters() if name.startswith("challenger")]


def test_nobody_is_compared_on_a_known_part(database: Database, journal: Journal, outbox: Outbox) -> None:
    """A challenge is no part of the line: no disagreement on it is kept, and none is counted."""
    kept = Keeper(database, journal, outbox, queue_frames=1)
    challenging = Challenging(database, journal, kept, takt_seconds=None, note_view=lambda _: None)
    opened = open_bundle(CHALLENGER)
    loaded = Loaded(opened, opened.recipe, OnnxRuntime(opened.model, opened.manifest))
    known = verdict(1).model_copy(update={"purpose": Purpose.CHALLENGE})
    assert challenging.choose(known, loaded, 0.0) is None
    assert challenging.choose(verdict(2), loaded, 0.0) is loaded


@pytest.mark.parametrize(("audit_share", "why"), [(0.0, "disagree"), (1.0, "audit")])
def test_a_disagreement_says_more_than_nearness_to_a_threshold(
    tmp_path: Path, hub: FakeHub, audit_share: float, why: str
) -> None:
    """Near a threshold and judged otherwise: a disagreement; an audit stays one, since it is a random sample."""
    hub.publish(CHAMPION, version=2)
    hub.assign(1, CHALLENGER, challenger=CHAMPION, audit_share=audit_share)
    rig = Rig(tmp_path, hub, near_threshold_margin=0.29)
    rig.run([Frame(picture(1, scratch=DOUBTED_BY_CHAMPION_ONLY), "near")])
    assert rig.counters()["challenger_disagreed"] == 1
    assert [note.why for note in hub.notes] == [why]


class Full(Database):
    """A journal whose disk takes nothing more once it is ``full``."""

    full = False

    def _once(self, work):  # type: ignore[no-untyped-def]  # as in the class it stands for
        if self.full:
            raise DeviceError("disk is full")
        return super()._once(work)

    def write(self, *, durable: bool = True):  # type: ignore[no-untyped-def]  # ditto
        if self.full:
            raise DeviceError("disk is full")
        return super().write(durable=durable)


class Given(Keeper):
    """Remembers what it was handed."""

    def offer(self, verdict: Verdict, image: Image, why: str, *, wait: bool) -> None:
        """Into a list."""
        self.given = [*getattr(self, "given", []), (verdict.id, why, wait)]


def test_a_count_that_cannot_be_written_costs_no_picture_and_no_end(
    tmp_path: Path, database: Database, journal: Journal, outbox: Outbox
) -> None:
    """The picture is handed on before anything is counted, and an end that cannot count ends all the same."""
    full, given = Full(tmp_path / "journal.db"), Given(database, journal, outbox, queue_frames=1)
    challenging = Challenging(full, journal, given, takt_seconds=None, note_view=lambda _: None)
    opened = open_bundle(CHALLENGER)
    loaded, made = Loaded(opened, opened.recipe, OnnxRuntime(opened.model, opened.manifest)), verdict(1, Decision.NG)
    challenging.offer(made, picture(1, scratch=255), "ng", loaded, wait=True)
    assert challenging.choose(verdict(2), loaded, 0.0) is None  # it is busy: skipped, and to be counted
    full.full = True
    challenging.worker.start()
    challenging.stop()
    assert given.given == [(made.id, "ng", True)]
    full.close()
