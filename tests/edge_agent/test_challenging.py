"""A challenger looks at what was answered, answers nobody, and holds nobody up."""

import time
from pathlib import Path

import pytest

from edge_agent.camera import Frame
from edge_agent.runtime import Inference, OnnxRuntime
from inspection.contracts import Decision, Manifest, sha256_hex
from tests.edge_agent.helpers import FakeHub, Image, bundle, picture
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
            return self._checked(answer.scores * 3, answer.defect_maps, len(frames))
        return answer


def test_a_failing_challenger_costs_nothing_but_its_view(rig: Rig) -> None:
    """The champion's verdict stands, and the failure is counted."""
    rig.make_runtime = Torn
    rig.run([Frame(picture(1), "good")])
    assert rig.by_part["good"].decision is Decision.OK
    assert rig.by_part["good"].challenger is None
    assert rig.counters()["challenger_failed"] == 1
