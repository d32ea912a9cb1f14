"""One verified bundle or HOLD, at every instant; every refusal leaves the old one running."""

import errno
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_agent.agent import policy_of
from edge_agent.camera import Frame
from edge_agent.config import write_config
from edge_agent.enrolling import enrol
from edge_agent.errors import DeviceError, HubError
from edge_agent.inspecting import Identity, Inspected, inspect
from edge_agent.runtime import OnnxRuntime
from edge_agent.shelf import Shelf
from edge_agent.updater import Updater
from inspection.contracts import AgentState, Band, Decision, Mode, Region, TargetKind, sha256_hex
from tests.edge_agent.helpers import DEVICE, PRODUCT, STATION, Authority, FakeHub, bundle, config, picture, recipe

ONE, TWO = bundle(1), bundle(2, gain=0.2)
WHO = Identity(DEVICE, STATION, PRODUCT, "boot")


@dataclass
class Device:
    """A state folder and the updater of the process that runs now."""

    state: Path
    hub: FakeHub
    limits: dict[str, Any] = field(default_factory=lambda: {"probation_verdicts": 3})
    sequence: int = 0

    def boot(self) -> "Device":
        """A new process; the old one is simply gone."""
        self.updater = Updater(
            Shelf(self.state), self.hub, policy_of(config(self.hub.authority.root, **self.limits)), OnnxRuntime
        )
        self.updater.start()
        return self

    def polled(self) -> "Device":
        """One poll."""
        self.updater.poll()
        return self

    @property
    def runs(self) -> str | None:
        """Digest of what decides now."""
        return self.updater.active.loaded.digest if self.updater.active.loaded else None

    def inspect(self, *, scratch: int = 0) -> Inspected:
        """One trigger."""
        self.sequence += 1
        inspected = inspect(Frame(picture(3, scratch=scratch), "p"), self.updater.active, WHO, self.sequence)
        self.updater.note(inspected)
        return inspected

    def fail(self, times: int) -> None:
        """Verdicts whose bundle failed, as a model that throws makes them."""
        for _ in range(times):
            made = self.inspect()
            self.updater.note(Inspected(made.verdict, bundle_failed=True))


@contextmanager
def full_disk() -> Iterator[None]:
    """Nothing that the shelf remembers can be written."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge_agent.shelf.write_durably", full)
        yield


@pytest.fixture
def device(tmp_path: Path, hub: FakeHub) -> Device:
    """A device that has never run anything."""
    return Device(tmp_path, hub).boot()


def test_a_new_device_holds_and_cannot_say_ok(device: Device) -> None:
    """No bundle: HOLD, and ERROR for a perfect part."""
    verdict = device.polled().inspect().verdict
    assert device.updater.state is AgentState.HOLD
    assert (verdict.decision, verdict.reason) == (Decision.ERROR, "no verified bundle")


def test_a_bundle_is_installed_proves_itself_and_survives_a_restart(device: Device) -> None:
    """HOLD, PROBATION, RUNNING; and the same after a restart without any hub."""
    device.hub.assign(1, ONE)
    assert device.polled().updater.state is AgentState.PROBATION
    assert [device.inspect().verdict.decision for _ in range(3)] == [Decision.OK] * 3
    assert device.updater.state is AgentState.RUNNING
    device.hub.current = None
    assert device.boot().runs == sha256_hex(ONE)
    assert device.updater.state is AgentState.RUNNING
    assert device.inspect(scratch=255).verdict.defect_class == "scratch"


def no_tar(*_: object, **__: object) -> None:
    raise AssertionError("the tar was opened")


@pytest.mark.parametrize("position", [0, 1, 257, 5000, len(TWO) // 2, len(TWO) - 1])
def test_a_flipped_byte_is_refused_before_the_tar_is_opened(
    device: Device, position: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old bundle goes on, the reason is told, and honest bytes are accepted later."""
    device.hub.assign(1, ONE)
    device.polled()
    device.hub.assign(2, TWO, version=2)
    flipped = bytearray(TWO)
    flipped[position] ^= 1
    device.hub.targets[sha256_hex(TWO)] = bytes(flipped)
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", no_tar)
        device.polled()
    assert device.runs == sha256_hex(ONE)
    assert "SHA-256" in str(device.updater.problem)
    device.hub.targets[sha256_hex(TWO)] = TWO
    assert device.polled().runs == sha256_hex(TWO)
    assert device.updater.problem is None


def test_an_unsigned_release_is_refused_before_its_bytes_are_fetched(device: Device) -> None:
    """No envelope, no download."""
    device.hub.assign(1, ONE)
    device.hub.envelopes[sha256_hex(ONE)] = b"{}"
    assert device.polled().runs is None
    assert "fetch" not in device.hub.requests


def test_an_older_assignment_is_refused_also_after_a_restart(device: Device) -> None:
    """A replayed serial changes nothing."""
    old = device.hub.authority.assignment(1, ONE)
    device.hub.publish(ONE)
    device.hub.assign(2, TWO, version=2)
    device.polled()
    device.hub.current = old
    for replayed in (device.polled(), device.boot().polled()):
        assert replayed.runs == sha256_hex(TWO)
        assert "older" in str(replayed.updater.problem)


def test_a_deliberate_return_is_a_higher_serial(device: Device) -> None:
    """An older version comes back when a newer assignment says so."""
    for serial, data, version in ((1, ONE, 1), (2, TWO, 2), (3, ONE, 1)):
        device.hub.assign(serial, data, version=version)
        assert device.polled().runs == sha256_hex(data)


@pytest.mark.parametrize(
    "bad",
    [
        bundle(2, wrong_self_test=True),
        bundle(2, model_bytes=b"no onnx"),
        bundle(2, extra={"extra.txt": b"x"}),
        b"signed, but no tar",
    ],
)
def test_a_bad_bundle_is_refused_for_good(device: Device, bad: bytes) -> None:
    """Signed but failing here: the old one goes on, the digest is reported, and not tried again."""
    device.hub.assign(1, ONE)
    device.polled()
    device.hub.assign(2, bad, version=2)
    device.polled()
    assert device.runs == sha256_hex(ONE)
    assert device.updater.refused[0].startswith(sha256_hex(bad))
    fetched = device.hub.requests.count("fetch")
    assert device.boot().polled().runs == sha256_hex(ONE)
    assert device.hub.requests.count("fetch") == fetched


def test_a_bundle_for_another_product_is_refused(device: Device) -> None:
    """Although well signed for that product."""
    other = bundle(product="gadget")
    device.hub.publish(other, product="gadget")
    device.hub.current = device.hub.authority.assignment(1, other)
    assert device.polled().runs is None


def test_failing_in_probation_goes_back_and_stays_back(device: Device) -> None:
    """The previous bundle decides again, and the assignment that still asks for the bad one is refused."""
    device.hub.assign(1, ONE)
    device.polled()
    for _ in range(3):
        device.inspect()
    device.hub.assign(2, TWO, version=2)
    device.polled()
    device.fail(1)
    assert device.runs == sha256_hex(ONE)
    assert device.polled().runs == sha256_hex(ONE)
    assert "in probation" in device.updater.refused[0]
    assert device.boot().polled().runs == sha256_hex(ONE)


def test_the_first_bundle_failing_in_probation_leaves_hold(device: Device) -> None:
    """There is nothing to go back to."""
    device.hub.assign(1, ONE)
    device.polled()
    device.fail(1)
    assert device.updater.state is AgentState.HOLD
    assert device.inspect().verdict.decision is Decision.ERROR


def test_camera_faults_do_not_count_against_a_bundle(device: Device) -> None:
    """A black frame says nothing about the model."""
    device.hub.assign(1, ONE)
    device.polled()
    for sequence in range(50):
        device.updater.note(inspect(Frame(None, "p", fault="black"), device.updater.active, WHO, sequence + 1))
    assert device.updater.state is AgentState.PROBATION


def test_dying_in_probation_goes_back(device: Device) -> None:
    """Three processes that never stopped cleanly are enough; a clean stop does not count."""
    device.hub.assign(1, ONE)
    device.polled()
    for _ in range(3):
        device.inspect()
    device.hub.assign(2, TWO, version=2)
    device.polled()
    for _ in range(6):
        device.updater.stop()
        device.boot()
    assert device.runs == sha256_hex(TWO)
    for _ in range(3):
        device.boot()
    assert device.runs == sha256_hex(ONE)
    assert "died" in device.updater.refused[0]


def test_a_computer_that_goes_down_does_not_blame_a_bundle(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten power cuts before the first verdict: each start is on another run of the kernel, so no process died."""
    device.hub.assign(1, ONE)
    device.polled()
    for _ in range(3):
        device.inspect()
    device.hub.assign(2, TWO, version=2)
    device.polled()
    for cut in range(10):
        monkeypatch.setattr("edge_agent.updater.kernel_boot_id", lambda cut=cut: f"run {cut}")
        device.boot()
    assert device.runs == sha256_hex(TWO)


def test_frames_that_do_not_fit_the_recipe_prove_nothing(device: Device) -> None:
    """A wrong camera neither refuses a good bundle for good, nor lets it pass its probation."""
    region = Region(x=60, y=0, width=60, height=40)
    narrow = recipe().model_copy(update={"region": region}).canonical()
    device.hub.publish(narrow, kind=TargetKind.RECIPE)
    device.hub.publish(ONE)
    device.hub.current = device.hub.authority.assignment(1, ONE, recipe_data=narrow)
    device.polled()
    for _ in range(50):
        assert "do not fit" in str(device.inspect().verdict.reason)
    assert device.updater.state is AgentState.PROBATION
    assert device.updater.refused == []


def test_an_older_assignment_stays_refused_when_the_installed_file_is_lost(device: Device) -> None:
    """What was seen is kept apart: a replayed assignment must not come back with the loss of one file."""
    device.hub.assign(1, ONE)
    old = device.hub.current
    device.polled()
    device.hub.assign(2, TWO, version=2)
    new = device.hub.current
    device.polled()
    (device.state / "installed.json").write_bytes(b"torn")
    device.hub.current = old
    device.boot().polled()
    assert device.runs is None
    assert "serial" in str(device.updater.problem)
    device.hub.current = new
    assert device.polled().runs == sha256_hex(TWO)


def test_a_torn_record_of_what_was_seen_is_written_anew(device: Device) -> None:
    """It holds nothing that `installed.json` does not: it must not keep updates away."""
    device.hub.assign(1, ONE)
    device.polled()
    (device.state / "seen.json").write_bytes(b"torn")
    device.hub.assign(2, TWO, version=2)
    assert device.polled().runs == sha256_hex(TWO)
    (device.state / "installed.json").unlink()
    assert device.boot().updater.installed.seen_serial == 2


def test_a_device_that_moves_to_another_hub_believes_its_first_serial(device: Device) -> None:
    """Serials of the old root mean nothing there; enrolled again under the same root they still do."""
    device.hub.assign(7, ONE)
    device.polled()
    write_config(device.state, config(device.hub.authority.root))
    other = FakeHub(Authority())
    other.assign(1, TWO)
    for hub, runs in ((device.hub, ONE), (other, TWO)):
        who = {"hub": "http://hub", "code": "K7", "device": DEVICE, "station": STATION}
        enrol(hub, **who, state=device.state, camera=None, force=True)
        device.hub = hub
        assert device.boot().polled().runs == sha256_hex(runs)


def challenged(device: Device) -> Device:
    """ONE has proved itself; TWO challenges it."""
    device.hub.publish(TWO, version=2)
    device.hub.assign(1, ONE, challenger=TWO)
    device.polled()
    for _ in range(3):
        device.inspect()
    return device


def challenges(device: Device) -> bool:
    return device.updater.active.challenger is not None


def test_a_challenger_that_kills_the_process_is_refused(device: Device) -> None:
    """Three deaths, and the station's own bundle goes on without it; the poll does not bring it back."""
    challenged(device)
    for _ in range(2):
        assert challenges(device.boot())
    assert not challenges(device.boot())
    assert (device.runs, device.updater.state) == (sha256_hex(ONE), AgentState.RUNNING)
    assert "as challenger" in device.updater.refused[0]
    fetched = device.hub.requests.count("fetch")
    assert not challenges(device.polled())
    assert not challenges(device.boot())
    assert device.hub.requests.count("fetch") == fetched
    assert "stays refused" in str(device.polled().updater.problem)
    device.hub.assign(2, ONE)
    device.polled()
    assert device.updater.problem is None


def test_a_challengers_deaths_are_not_blamed_on_the_bundle_in_probation(device: Device) -> None:
    """Both are new and the process dies before its first verdict: the challenger goes first, then the bundle has its own
    three starts."""
    device.hub.assign(1, ONE)
    device.polled()
    for _ in range(3):
        device.inspect()
    three = bundle(3, gain=0.3)
    device.hub.publish(TWO, version=2)
    device.hub.publish(three, version=3)
    device.hub.current = device.hub.authority.assignment(2, TWO, version=2, challenger=three)
    device.polled()
    for _ in range(3):
        device.boot()
    assert (device.runs, challenges(device)) == (sha256_hex(TWO), False)
    assert [refused[:64] for refused in device.updater.refused] == [sha256_hex(three)]
    for _ in range(3):
        device.boot()
    assert device.runs == sha256_hex(ONE)


@pytest.mark.parametrize("reason", ["power cut", "clean stop", "enough views", "another challenger"])
def test_deaths_that_say_nothing_against_a_challenger(device: Device, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The computer went down, or the agent was stopped, or it had looked at enough frames, or it was not there."""
    challenged(device)
    three = bundle(3, gain=0.3)
    device.hub.publish(three, version=2)
    for number in range(8):
        if reason == "clean stop":
            device.updater.stop()
        elif reason == "enough views":
            for _ in range(3):
                device.updater.note_view(sha256_hex(TWO))
        elif reason == "power cut":
            monkeypatch.setattr("edge_agent.updater.kernel_boot_id", lambda number=number: f"run {number}")
        else:
            device.hub.assign(number + 2, ONE, challenger=[TWO, three][number % 2])
        device.boot().polled()
    assert device.updater.refused == []
    assert challenges(device)


def test_a_challenger_whose_start_cannot_be_noted_is_left_out(device: Device) -> None:
    """On a full disk the station's own bundle judges; the challenger is back when there is room."""
    challenged(device)
    with full_disk():
        assert (device.boot().runs, challenges(device)) == (sha256_hex(ONE), False)
    assert challenges(device.polled())
    assert device.updater.installed.challenger_starts == 2


def test_a_challenger_that_is_to_be_refused_does_not_end_a_start_on_a_full_disk(device: Device) -> None:
    """What was to be noted of it is noted when there is room; until then it is left out."""
    challenged(device)
    for _ in range(2):
        device.boot()
    with full_disk():
        assert (device.boot().runs, challenges(device)) == (sha256_hex(ONE), False)
    assert device.boot().updater.refused[0].startswith(sha256_hex(TWO))


def test_views_that_cannot_be_noted_are_trouble_and_noted_later(device: Device) -> None:
    """The challenger's thread is not torn by a full disk, and a good challenger is not blamed for it."""
    challenged(device)
    with full_disk():
        for _ in range(3):
            device.updater.note_view(sha256_hex(TWO))
    assert "cannot be written" in str(device.updater.problem)
    assert device.updater.installed.challenger_starts == 1
    device.updater.note_view(sha256_hex(TWO))
    assert device.updater.installed.challenger_starts == 0


def test_a_start_with_a_challenger_is_counted_once(device: Device) -> None:
    """Also when its file was damaged and came again, or the bundle beside it changed."""
    challenged(device)
    (device.state / "bundles" / sha256_hex(TWO) / "content").write_bytes(b"torn")
    device.boot().polled()
    device.hub.assign(2, ONE, challenger=TWO, mode=Mode.SHADOW)
    assert challenges(device.polled())
    assert device.updater.installed.challenger_starts == 2


def test_views_of_another_challenger_do_not_count(device: Device) -> None:
    """One that is still looked at while a new one is switched in."""
    challenged(device)
    for _ in range(3):
        for _ in range(3):
            device.updater.note_view(sha256_hex(ONE))
        device.boot()
    assert not challenges(device)


def test_a_broken_challenger_is_fetched_again_and_holds_nobody_up(device: Device) -> None:
    """Its file is damaged on the disk: the champion judges on, and the next poll brings the challenger back."""
    device.hub.publish(TWO, version=2)
    device.hub.assign(1, ONE, challenger=TWO)
    device.polled()
    (device.state / "bundles" / sha256_hex(TWO) / "content").write_bytes(b"torn")
    device.boot()
    assert device.runs == sha256_hex(ONE)
    assert device.updater.active.challenger is None
    device.polled()
    assert device.updater.active.challenger is not None
    assert device.runs == sha256_hex(ONE)


def test_power_cuts_do_not_blame_a_bundle_that_judges(device: Device) -> None:
    """A process that made a verdict was alive: however often the power goes, the bundle stays."""
    device.limits = {"probation_verdicts": 1000}
    device.hub.assign(1, ONE)
    device.boot().polled()
    device.hub.assign(2, TWO, version=2)
    device.polled()
    for _ in range(10):
        device.inspect()
        device.boot()
    assert device.runs == sha256_hex(TWO)


def test_the_first_bundle_is_never_a_dead_end(device: Device) -> None:
    """Dying before a verdict with nothing to go back to: HOLD, then fetched and self-tested again."""
    device.hub.assign(1, ONE)
    device.polled()
    for _ in range(3):
        device.boot()
    assert device.runs is None
    assert device.updater.refused == []
    assert device.polled().runs == sha256_hex(ONE)


class DeadError(BaseException):
    """Stands for the process dying: nothing in the agent catches it."""


def ends_in_its_self_test(device: Device, *, stopped: bool = False) -> None:
    """The process dies, or is stopped, while it tests a bundle: the disk says what it said just then."""
    shelf, said = Shelf(device.state), []

    def end(*_: object) -> Any:
        if stopped:
            device.updater.stop()
        said.append(shelf.installed())
        raise DeadError

    device.updater._targets._make_runtime = end
    with pytest.raises(DeadError):
        device.polled()
    shelf.remember(said[0])  # a real end runs no `finally`


def test_dying_in_the_self_test_is_not_repeated_for_ever(device: Device) -> None:
    """A model that takes the process down is tried twice."""
    device.hub.assign(1, ONE)
    for _ in range(2):
        ends_in_its_self_test(device.boot())
    device.boot().polled()
    assert device.runs is None
    assert "self-test" in device.updater.refused[0]


@pytest.mark.parametrize("stopped", [True, False], ids=["clean stop", "power cut"])
def test_an_end_of_the_self_test_that_blames_nobody(device: Device, stopped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent was stopped in the middle of it, or the computer went down, again and again: it is tested once more."""
    device.hub.assign(1, ONE)
    for number in range(4):
        if not stopped:
            monkeypatch.setattr("edge_agent.updater.kernel_boot_id", lambda number=number: f"run {number}")
        ends_in_its_self_test(device.boot(), stopped=stopped)
    assert device.boot().polled().runs == sha256_hex(ONE)
    assert device.updater.refused == []


def test_a_self_test_that_cannot_be_judged_does_not_end_a_start_on_a_full_disk(device: Device) -> None:
    """The bundle is refused at the next start with room, and not tested before."""
    device.hub.assign(1, ONE)
    for _ in range(2):
        ends_in_its_self_test(device.boot())
    with full_disk():
        assert device.boot().polled().runs is None
    assert "self-test" in device.boot().updater.refused[0]


def test_a_probation_goes_on_while_the_disk_is_full(device: Device) -> None:
    """Verdicts and starts that cannot be noted are trouble, and no end; with room it passes with the next verdict."""
    device.hub.assign(1, ONE)
    device.polled()
    with full_disk():
        device.boot()
        for _ in range(5):
            assert device.inspect().verdict.decision is Decision.OK
        assert device.updater.state is AgentState.PROBATION
        assert "cannot be written" in str(device.updater.problem)
        device.fail(3)  # it has passed: what comes later is counted no more
    assert device.runs == sha256_hex(ONE)
    device.inspect()
    assert device.updater.state is AgentState.RUNNING
    assert device.boot().updater.state is AgentState.RUNNING


def test_a_bundle_that_failed_its_probation_decides_no_more_on_a_full_disk(device: Device) -> None:
    """Its refusal cannot be noted: the loop is told, and until then nothing is passed."""
    device.hub.assign(1, ONE)
    device.polled()
    with full_disk():
        with pytest.raises(DeviceError, match=r"installed\.json cannot be written"):
            device.fail(1)
        assert device.runs is None
        assert device.inspect().verdict.decision is Decision.ERROR


def test_an_update_without_room_is_not_begun(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """In words, with both numbers; the old bundle goes on, and the next poll tries again."""
    device.hub.assign(1, ONE)
    device.polled()
    device.hub.assign(2, TWO, version=2)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=7 * 2**20))
        device.polled()
    assert device.runs == sha256_hex(ONE)
    assert "9 MiB are needed for the update, 7 are free" in str(device.updater.problem)
    assert device.hub.requests.count("fetch") == 1
    assert device.polled().runs == sha256_hex(TWO)


def test_a_disk_that_fills_up_during_a_download_gets_its_room_back(device: Device) -> None:
    """What came is deleted at once; trouble in words, tried again at the next poll, and not a second later."""
    device.hub.assign(1, ONE)
    device.polled()
    device.hub.assign(2, TWO, version=2)
    staging = device.state / "staging"

    def fills_up(what: str) -> None:
        if what == "fetch":
            assert list(staging.iterdir())
            raise OSError(errno.ENOSPC, "No space left on device")

    (staging / "of-a-crash.part").write_bytes(b"half")
    device.hub.trouble = fills_up
    device.polled()
    assert list(staging.iterdir()) == []
    assert "No space left on device" in str(device.updater.problem)
    device.hub.trouble = lambda _: None
    assert device.polled().runs == sha256_hex(TWO)


def test_a_download_is_written_once(tmp_path: Path) -> None:
    """The checked file itself becomes the target: an update needs its length in room, not twice that."""
    shelf = Shelf(tmp_path)
    part = shelf.staging_file("d1")
    part.write_bytes(ONE)
    written = part.stat().st_ino
    shelf.put(TargetKind.BUNDLE, "d1", b"release")
    assert (tmp_path / "bundles" / "d1" / "content").stat().st_ino == written
    assert shelf.get(TargetKind.BUNDLE, "d1") == (ONE, b"release")


@pytest.mark.parametrize("what", ["bundle", "recipe"])
def test_a_target_that_lost_its_content_on_the_shelf_is_fetched_again(device: Device, what: str) -> None:
    """It was fetched and not yet in force: no refusal, and no waiting for ever."""
    strict = recipe(2, inconclusive=0.0, ng=0.0).canonical()
    device.hub.publish(strict, version=1, kind=TargetKind.RECIPE)
    device.hub.assign(1, ONE, recipe_data=strict)
    digest = sha256_hex(ONE if what == "bundle" else strict)
    (device.state / f"{what}s" / digest).mkdir(parents=True)
    (device.state / f"{what}s" / digest / "release.json").write_bytes(device.hub.envelopes[digest])
    assert device.polled().runs is None
    assert "cannot be read" in str(device.updater.problem)
    assert device.updater.refused == []
    assert device.polled().runs == sha256_hex(ONE)


@pytest.mark.parametrize("name", ["content", "release.json"])
def test_a_bundle_that_rotted_on_the_disk_falls_back_and_heals(device: Device, name: str) -> None:
    """The previous bundle runs at the next start; the poll fetches the right one again."""
    device.hub.assign(1, ONE)
    device.polled()
    for _ in range(3):
        device.inspect()
    device.hub.assign(2, TWO, version=2)
    device.polled()
    path = device.state / "bundles" / sha256_hex(TWO) / name
    rotten = bytearray(path.read_bytes())
    rotten[len(rotten) // 2] ^= 1
    path.write_bytes(rotten)
    assert device.boot().runs == sha256_hex(ONE)
    assert device.polled().runs == sha256_hex(TWO)


def test_all_rotten_is_hold_until_the_hub_answers(device: Device) -> None:
    """No verified bundle on the disk: HOLD, not the best of the broken."""
    device.hub.assign(1, ONE)
    device.polled()
    (device.state / "bundles" / sha256_hex(ONE) / "content").write_bytes(b"rot")
    assert device.boot().updater.state is AgentState.HOLD
    assert device.polled().runs == sha256_hex(ONE)


def test_a_damaged_record_is_hold_and_heals(device: Device) -> None:
    """`installed.json` full of junk: HOLD, then assigned again."""
    device.hub.assign(1, ONE)
    device.polled()
    (device.state / "installed.json").write_bytes(b"junk")
    assert device.boot().runs is None
    assert device.polled().runs == sha256_hex(ONE)


def test_a_recipe_moves_without_the_model(device: Device) -> None:
    """A new threshold decides with the same session, no probation, and survives a restart."""
    device.hub.assign(1, ONE)
    device.polled()
    for _ in range(3):
        device.inspect()
    strict = recipe(2, inconclusive=0.0, ng=0.0).canonical()
    device.hub.publish(strict, version=1, kind=TargetKind.RECIPE)
    before = device.updater.active.loaded
    device.hub.assign(2, ONE, recipe_data=strict)
    after = device.polled().updater.active.loaded
    assert before is not None
    assert after is not None
    assert after.runtime is before.runtime
    assert device.updater.state is AgentState.RUNNING
    assert device.inspect().verdict.decision is Decision.NG
    assert device.boot().inspect().verdict.recipe_digest == sha256_hex(strict)


@pytest.mark.parametrize(
    "changes", [{"product": "gadget"}, {"thresholds": {"scratch": Band(inconclusive=0.3, ng=0.7)}}, {"thresholds": {}}]
)
def test_a_wrong_recipe_is_refused_and_not_blamed_on_the_bundle(device: Device, changes: dict[str, Any]) -> None:
    """For another product, or blind to a defect class: the old recipe goes on, the bundle is not refused."""
    device.hub.assign(1, ONE)
    device.polled()
    wrong = recipe(2).model_copy(update=changes).canonical()
    device.hub.publish(wrong, version=1, kind=TargetKind.RECIPE)
    device.hub.assign(2, ONE, recipe_data=wrong)
    assert device.polled().runs == sha256_hex(ONE)
    assert [r[:64] for r in device.updater.refused] == [sha256_hex(wrong)]
    assert device.inspect().verdict.decision is Decision.OK


def test_a_mode_moves_without_the_model(device: Device) -> None:
    """Collect and shadow are one signed serial away, and keep the running bundle."""
    device.hub.assign(1, ONE)
    device.polled()
    device.hub.assign(2, ONE, mode=Mode.COLLECT)
    verdict = device.polled().inspect().verdict
    assert (verdict.decision, verdict.reason) == (Decision.INCONCLUSIVE, "station is in collect mode")
    assert device.runs == sha256_hex(ONE)
    device.hub.assign(3, ONE, mode=Mode.SHADOW)
    assert device.polled().inspect().verdict.mode is Mode.SHADOW


def test_without_a_bundle_nothing_is_passed(device: Device) -> None:
    """How a first rollout is taken back: the station stops judging, at once and after a restart."""
    device.hub.assign(1, ONE)
    device.polled()
    device.hub.current = device.hub.authority.assignment(2, None)
    assert device.polled().runs is None
    assert device.inspect().verdict.decision is Decision.ERROR
    assert device.boot().inspect().verdict.decision is Decision.ERROR


@pytest.mark.parametrize("at", ["assignment", "envelope", "fetch"])
def test_a_hub_that_goes_away_changes_nothing(device: Device, at: str) -> None:
    """Wherever it breaks, the old bundle runs; when it is back, the new one does."""
    device.hub.assign(1, ONE)
    device.polled()
    device.hub.assign(2, TWO, version=2)

    def broken(what: str) -> None:
        if what == at:
            raise HubError("cable cut")

    device.hub.trouble = broken
    with pytest.raises(HubError):
        device.polled()
    assert device.runs == sha256_hex(ONE)
    device.hub.trouble = lambda _: None
    assert device.polled().runs == sha256_hex(TWO)


def test_what_no_slot_names_is_deleted(device: Device) -> None:
    """The disk holds the current and the previous bundle, and no download leftovers."""
    three = bundle(3, gain=0.3)
    finish: Callable[[], list[Inspected]] = lambda: [device.inspect() for _ in range(3)]  # noqa: E731  # short
    for serial, data in enumerate((ONE, TWO, three), start=1):
        device.hub.assign(serial, data, version=serial)
        device.polled()
        finish()
    kept = {p.name for p in (device.state / "bundles").iterdir()}
    assert kept == {sha256_hex(TWO), sha256_hex(three)}
    assert list((device.state / "staging").iterdir()) == []
