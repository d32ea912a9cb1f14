"""Every trigger: one durable row, then the line is told, and only a clean OK says OK."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent.agent import Agent
from edge_agent.camera import Frame
from edge_agent.camera.folder import FolderCamera
from edge_agent.database import DATABASE_NAME, Database
from edge_agent.errors import DeviceError, HubError
from edge_agent.inspecting import Inspected, verdict_id
from edge_agent.journal import Journal
from edge_agent.runtime import OnnxRuntime
from edge_agent.shelf import Shelf
from edge_agent.signals.file import FileSignal
from edge_agent.signals.port import clean_ok
from edge_agent.targets import MakeRuntime
from edge_agent.trigger import Request
from edge_agent.trigger.free import FreeRunning
from edge_agent.wires import Wires
from inspection.contracts import Decision, Mode, Purpose, Verdict, sha256_hex
from tests.edge_agent.helpers import DEVICE, FakeHub, bundle, config, picture, png, recipe, write_picture
from tests.edge_agent.test_camera import LIMITS, Silent


class Line:
    """A signal that remembers, and looks whether the row was there before it was told."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self.told: list[tuple[str, bool]] = []
        self.safe_said: list[str] = []
        self.rows_first = True
        self.broken = False

    def tell(self, verdict: Verdict) -> None:
        """Check the order, then remember."""
        database = Database(self._state / DATABASE_NAME)
        self.rows_first &= database.number("SELECT COUNT(*) FROM verdicts WHERE id = ?", (verdict.id,)) == 1
        database.close()
        if self.broken:
            raise DeviceError("PLC is off")
        self.told.append((verdict.part, clean_ok(verdict)))

    def begin(self, request: Request) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""

    def safe(self, reason: str) -> None:
        """Remember."""
        self.safe_said.append(reason)


class Paced(Silent):
    """Delivers the given frames with a pause before each; they wait for us like files."""

    def __init__(self, frames: list[Frame], pause_seconds: float) -> None:
        super().__init__(list(frames), patient=True)
        self._pause_seconds = pause_seconds

    def next(self, timeout_seconds: float, *, since: float | None = None) -> Frame | None:
        """The next of them."""
        time.sleep(self._pause_seconds)
        return super().next(timeout_seconds, since=since)


class Rig:
    """A whole agent in this process, on a fake hub."""

    def __init__(self, state: Path, hub: FakeHub, **limits: Any) -> None:
        self.state, self.hub = state, hub
        self.line = Line(state)
        self.config = config(hub.authority.root, **limits)
        self.make_runtime: MakeRuntime = OnnxRuntime
        self.pause_seconds = 0.0

    def run(self, frames: list[Frame] | FolderCamera, count: int | None = None, boot: str = "boot") -> None:
        """Run until ``count`` triggers are done (default: all frames)."""
        camera = Paced(frames, self.pause_seconds) if isinstance(frames, list) else frames
        agent = Agent(self.state, self.config, boot, self.hub)
        trigger = FreeRunning(camera, deadline_seconds=1)
        count = count if count is not None else len(camera._frames)  # type: ignore[union-attr]  # a list was given
        try:
            agent.run(camera, Wires(trigger, self.line), self.make_runtime, threading.Event(), max_triggers=count)
        finally:
            agent.close()

    def ledger(self) -> Any:
        """The ledger on the disk."""
        database = Database(self.state / DATABASE_NAME)
        found = Journal(database, max_pending=10, keep_rows=10).ledger()
        database.close()
        return found

    def counters(self) -> dict[str, int]:
        """The counters on the disk."""
        database = Database(self.state / DATABASE_NAME)
        found = Journal(database, max_pending=10, keep_rows=10).counters()
        database.close()
        return found

    @property
    def by_part(self) -> dict[str, Verdict]:
        """What the hub holds."""
        return {v.part: v for v in self.hub.verdicts.values()}


@pytest.fixture
def rig(tmp_path: Path, hub: FakeHub) -> Rig:
    """An agent whose hub assigns a bundle."""
    hub.assign(1, bundle())
    return Rig(tmp_path, hub)


def test_parts_get_their_decisions_and_the_line_hears_them(rig: Rig) -> None:
    """OK, NG, INCONCLUSIVE and ERROR; only OK says OK; every row is there before the line is told."""
    rig.run(
        [
            Frame(picture(1), "good"),
            Frame(picture(2, scratch=255), "bad"),
            Frame(picture(3, scratch=181), "doubt"),
            Frame(None, "torn", fault="torn.png: damaged"),
        ]
    )
    found = {part: v.decision for part, v in rig.by_part.items()}
    assert found == {
        "good": Decision.OK,
        "bad": Decision.NG,
        "doubt": Decision.INCONCLUSIVE,
        "torn": Decision.ERROR,
    }
    assert rig.line.told == [("good", True), ("bad", False), ("doubt", False), ("torn", False)]
    assert rig.line.rows_first
    assert rig.line.safe_said == ["starting", "stopped"]
    assert rig.by_part["torn"].reason == "torn.png: damaged"
    assert rig.ledger().closes


def test_verdicts_are_complete_and_their_key_follows_from_the_trigger(rig: Rig) -> None:
    """Id, sequence, digests, thresholds, timings, and the picture's digest for what was kept."""
    rig.run([Frame(picture(1), "good"), Frame(picture(2, scratch=255), "bad")], boot="b1")
    bad = rig.by_part["bad"]
    assert bad.id == verdict_id(DEVICE, "b1", 2)
    assert (bad.boot, bad.sequence) == ("b1", 2)
    assert bad.bundle_digest == sha256_hex(bundle())
    assert bad.recipe_digest == recipe().digest
    assert bad.thresholds == recipe().thresholds
    assert {"decode", "infer", "judge", "total"} <= set(bad.timings_ms)
    assert bad.regions
    assert bad.frame_sha256 is not None
    assert rig.hub.pictures == {bad.frame_sha256: png_of(picture(2, scratch=255))}
    assert [(n.verdict_id, n.why) for n in rig.hub.notes] == [(bad.id, "ng")]
    assert rig.by_part["good"].frame_sha256 is None


def png_of(image: Any) -> bytes:
    from edge_agent.pictures import encode_png

    return encode_png(image)


def test_corrupt_and_black_files_never_say_ok(rig: Rig, tmp_path: Path) -> None:
    """Whatever lies in the folder, one verdict each, and the loop goes on."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"")
    (folder / "b.png").write_bytes(png(picture(1))[:200])
    write_picture(folder, "c.png", picture(1) * 0)
    write_picture(folder, "d.png", picture(1))
    camera = FolderCamera(folder, **LIMITS)
    rig.run(camera, 4)
    assert rig.line.told == [("a", False), ("b", False), ("c", False), ("d", True)]
    assert [rig.by_part[p].decision for p in "abc"] == [Decision.ERROR] * 3


@pytest.mark.parametrize(("mode", "decision"), [(Mode.SHADOW, Decision.OK), (Mode.COLLECT, Decision.INCONCLUSIVE)])
def test_only_mode_judge_answers_the_line(rig: Rig, mode: Mode, decision: Decision) -> None:
    """In shadow and collect a perfect part leaves the output at NG."""
    rig.hub.assign(2, bundle(), mode=mode)
    rig.run([Frame(picture(1), "good")])
    assert rig.by_part["good"].decision is decision
    assert rig.by_part["good"].mode is mode
    assert rig.line.told == [("good", False)]
    assert [n.why for n in rig.hub.notes] == (["collect"] if mode is Mode.COLLECT else [])


def test_a_silent_plc_does_not_lose_the_verdict(rig: Rig) -> None:
    """The row stands, and the loop goes on."""
    rig.line.broken = True
    rig.run([Frame(picture(1), "a"), Frame(picture(2), "b")])
    assert set(rig.by_part) == {"a", "b"}


def test_a_full_disk_stops_the_agent_at_ng(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """No durable row, no OK: the agent leaves with an error and the output safe."""

    def full(*_: object, **__: object) -> None:
        raise DeviceError("disk is full")

    monkeypatch.setattr(Journal, "record", full)
    with pytest.raises(DeviceError):
        rig.run([Frame(picture(1), "a")])
    assert rig.line.told == []
    assert rig.line.safe_said == ["starting", "stopped"]


def test_without_a_hub_parts_are_judged_and_sent_later(rig: Rig) -> None:
    """The network is gone after the bundle came: nothing is lost, nothing comes twice."""
    rig.run([Frame(picture(1), "a")], boot="b1")

    def gone(_: str) -> None:
        raise HubError("no network")

    rig.hub.trouble = gone
    rig.run([Frame(picture(i, scratch=255), f"p{i}") for i in range(5)], boot="b2")
    assert set(rig.by_part) == {"a"}
    assert rig.ledger().pending == 10
    rig.hub.trouble = lambda _: None
    rig.run([Frame(picture(9), "z")], boot="b3")
    assert set(rig.by_part) == {"a", "z", *(f"p{i}" for i in range(5))}
    assert len(rig.hub.pictures) == 5
    assert (rig.ledger().pending, rig.ledger().closes) == (0, True)


def test_the_report_says_what_the_running_process_did(rig: Rig) -> None:
    """Verdicts by digest over all boots, a ledger that closes, the serial, the camera."""
    for boot in ("b1", "b2"):
        rig.run([Frame(picture(i), f"{boot}-{i}") for i in range(3)], boot=boot)
    report = rig.hub.reports[-1]
    assert report.verdicts_by_digest == {sha256_hex(bundle()): 6}
    assert report.assignment_serial == 1
    assert report.bundle_digest == sha256_hex(bundle())
    assert report.ledger.closes
    assert report.ledger.ok == 6
    assert report.camera["kind"] == "silent"


class Endless(Silent):
    """The same two pictures over and over, until told to end."""

    def __init__(self) -> None:
        super().__init__([], patient=True)
        self.count = 0

    def next(self, timeout_seconds: float, *, since: float | None = None) -> Frame:
        """A part of middling redness: OK or NG depends on the bundle."""
        self.count += 1
        return Frame(picture(1, scratch=190), f"p{self.count}")


def test_a_switch_under_load_never_mixes_bundles(tmp_path: Path, hub: FakeHub) -> None:
    """While bundles change, every verdict has the scores, thresholds and recipe of the one bundle it names."""
    bundles = {sha256_hex(b): (b, gain, v) for v, gain in ((1, 0.05), (2, 0.2)) for b in [bundle(v, gain=gain)]}
    order = list(bundles)
    hub.assign(1, bundles[order[0]][0])
    made = config(hub.authority.root, probation_verdicts=1).overridden(poll_seconds=0.02)
    agent = Agent(tmp_path, made, "boot", hub)
    camera, stop = Endless(), threading.Event()

    def switch() -> None:
        for serial in range(2, 12):
            data, _, version = bundles[order[serial % 2]]
            hub.assign(serial, data, version=version)
            time.sleep(0.15)
        stop.set()

    switcher = threading.Thread(target=switch)
    switcher.start()
    done = agent.run(
        camera, Wires(FreeRunning(camera, deadline_seconds=1), Line(tmp_path)), OnnxRuntime, stop, max_triggers=None
    )
    switcher.join()
    agent.close()
    verdicts = sorted(hub.verdicts.values(), key=lambda v: v.sequence)
    assert [v.sequence for v in verdicts] == list(range(1, done + 1))
    assert {v.bundle_digest for v in verdicts} == set(order)
    from tests.edge_agent.helpers import expected_scores

    for verdict in verdicts:
        _, gain, version = bundles[str(verdict.bundle_digest)]
        assert verdict.scores == pytest.approx(expected_scores(picture(1, scratch=190), gain), abs=1e-4)
        assert verdict.recipe_digest == recipe(version).digest


def test_an_end_that_goes_wrong_is_still_an_end(rig: Rig, hub: FakeHub) -> None:
    """Whatever the last words meet, what comes after them is done: a clean stop is not counted as a death."""
    ended = False

    def odd(what: str) -> None:
        if what == "report" and ended:
            raise RuntimeError("nobody expected this")

    class Ending(Line):
        def safe(self, reason: str) -> None:
            nonlocal ended
            ended = reason == "stopped"

    hub.trouble, rig.line = odd, Ending(rig.state)
    with pytest.raises(RuntimeError):
        rig.run([], 0)
    assert Shelf(rig.state).installed().probation
    assert Shelf(rig.state).installed().starts_in_probation == 0


class Onlooker:
    """A watcher that does something when the loop goes round, as systemd's does."""

    purpose = Purpose.PRODUCTION

    def __init__(self, does: Callable[[], None]) -> None:
        self._does = does

    def seen(self, frame: Frame, inspected: Inspected) -> None:
        """Nothing."""

    def alive(self) -> None:
        """It went round."""
        self._does()


def test_the_loop_does_not_wait_for_a_long_download(rig: Rig, hub: FakeHub) -> None:
    """In HOLD it gives the first poll one HTTP time-out, then goes round beside it: systemd hears READY from the loop."""
    went_round, waited = threading.Event(), []
    hub.trouble = lambda what: waited.append(went_round.wait(20)) if what == "fetch" else None
    settings = config(hub.authority.root, http_timeout_seconds=0.2)
    agent = Agent(rig.state, settings, "boot", hub)
    camera = Paced([Frame(picture(n), f"p{n}") for n in range(40)], 0.1)
    trigger, watchers = FreeRunning(camera, deadline_seconds=1), [Onlooker(went_round.set)]
    agent.run(camera, Wires(trigger, rig.line), OnnxRuntime, threading.Event(), max_triggers=40, watchers=watchers)
    agent.close()
    assert waited == [True]
    assert rig.by_part["p0"].reason == "no verified bundle"
    assert rig.by_part["p39"].decision is Decision.OK


def test_a_stop_is_heard_while_the_first_bundle_is_waited_for(rig: Rig, hub: FakeHub) -> None:
    """SIGTERM does not take an HTTP time-out: the loop ends while the poll still hangs."""
    stop, ended, polled = threading.Event(), threading.Event(), []

    class Ending(Line):
        def safe(self, reason: str) -> None:
            if reason == "stopped":
                ended.set()

    def hang(what: str) -> None:
        if what == "assignment":
            stop.set()
            polled.append(ended.wait(8))

    hub.trouble = hang
    agent = Agent(rig.state, config(hub.authority.root), "boot", hub)
    camera = Paced([Frame(picture(1), "p")], 0.0)
    agent.run(camera, Wires(FreeRunning(camera, deadline_seconds=1), Ending(rig.state)), OnnxRuntime, stop, max_triggers=1)
    agent.close()
    assert polled[0]
    assert hub.verdicts == {}


def test_the_file_signal_is_a_line_per_verdict(rig: Rig, tmp_path: Path) -> None:
    """Another program can follow it."""
    path = tmp_path / "signal.jsonl"
    rig.line = FileSignal(path)  # type: ignore[assignment]  # another signal in its place
    rig.run([Frame(picture(1), "a"), Frame(picture(1, scratch=255), "b")])
    import json

    outputs = [json.loads(line)["output"] for line in path.read_text().splitlines()]
    assert outputs == ["NG", "OK", "NG", "NG"]


def test_what_comes_later_than_the_takt_is_an_error_and_counted(rig: Rig) -> None:
    """The part has gone: a clean OK that nobody heard in time is none, and its row says how late it was."""
    rig.config = rig.config.overridden(takt_seconds=1e-9)
    rig.run([Frame(picture(1), "good")])
    late = rig.by_part["good"]
    assert late.decision is Decision.ERROR
    assert "late" in str(late.reason)
    assert late.scores
    assert rig.line.told == [("good", False)]
    assert rig.counters()["late"] == 1


def test_an_ok_that_was_written_too_slowly_is_not_told(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk took longer than the takt: the row stands, the line hears NG, and that is counted."""
    record = Journal.record

    def slow(self: Journal, *args: Any, **kwargs: Any) -> None:
        record(self, *args, **kwargs)
        time.sleep(1.0)

    monkeypatch.setattr(Journal, "record", slow)
    rig.config = rig.config.overridden(takt_seconds=1.0)
    rig.run([Frame(picture(1), "good")])
    assert rig.by_part["good"].decision is Decision.OK
    assert rig.line.told == [("good", False)]
    assert rig.counters()["told_late"] == 1
    assert "late" not in rig.counters()


def test_a_camera_without_a_picture_is_not_called_late(rig: Rig) -> None:
    """Somebody must look at the cable, not at the computer; and the takt is not waited beyond."""

    class Gone(Silent):
        def next(self, timeout_seconds: float, *, since: float | None = None) -> Frame | None:
            assert timeout_seconds <= 0.05
            time.sleep(timeout_seconds)
            return None

    asked: list[Request] = [Request(part="p")]

    class Once(FreeRunning):
        def next(self) -> Request | None:
            return asked.pop() if asked else None

    rig.config = rig.config.overridden(takt_seconds=0.05)
    camera = Gone([])
    agent = Agent(rig.state, rig.config, "boot", rig.hub)
    wires = Wires(Once(camera, deadline_seconds=1), rig.line)
    agent.run(camera, wires, OnnxRuntime, threading.Event(), max_triggers=1)
    agent.close()
    found = rig.by_part["p"]
    assert found.error_code == "no_frame"
    assert "cable" in str(found.reason)
    assert "late" in str(found.reason)
    assert rig.counters()["late"] == 1
