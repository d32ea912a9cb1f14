"""A disk that is full or read-only, while the agent runs and when it starts: NG while it lasts, and nothing is lost."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_agent.camera import Camera
from edge_agent.config import load_config
from edge_agent.database import Database
from edge_agent.doctor import CHECKS, Patient
from edge_agent.errors import DeviceError
from edge_agent.journal import Journal
from edge_agent.runtime import OnnxRuntime
from edge_agent.signals.file import FileSignal
from edge_agent.transport import DirectoryTransport
from inspection.contracts import Decision
from tests.conftest import faults_are_long
from tests.edge_agent.helpers import Authority
from tests.edge_agent.test_journal import verdict as a_verdict
from tests.faults.disks import Hog, failing_disk, small_disk
from tests.faults.hubs import HubServer
from tests.faults.rig import Device, Feeder, Hasty, ending, hub_holds, must_hold, settle, until

ROUNDS = 20 if faults_are_long() else 1
PROBATIONS = [False, True] if faults_are_long() else [True]  # whether the bundle has just begun to prove itself
_FULL_SECONDS = 2.0
_RESTART_SECONDS = 0.2
_NO_REST_ROWS = 3000
_MIB = 1024 * 1024

pytestmark = [
    pytest.mark.mounts,
    pytest.mark.fault,
    pytest.mark.slow,
    pytest.mark.timeout(3600 if faults_are_long() else 300),
]


def says_ng(device: Device) -> bool:
    """The line's output is NG after the agent has left."""
    return device.outputs()[-1]["output"] == "NG"


def live_on(device: Device, seconds: float) -> list[int]:
    """What systemd does: start it again whenever it ends. Returns its exit codes; whenever it left, it left NG behind."""
    codes, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert device.process is not None
        code = device.process.poll()
        if code is not None:
            codes.append(code)
            assert code < 0 or says_ng(device)  # a kill says nothing any more
            time.sleep(_RESTART_SECONDS)
            device.start()
        time.sleep(0.02)
    return codes


def start_again(device: Device) -> None:
    """After a kill, until it has begun or given up."""
    device.kill()
    logged, process = device.logged_bytes, device.start()
    until(lambda: process.poll() is not None or device.has_said("started", logged), "a start on a full disk")


def restarted(device: Device) -> None:
    """Started, when it has ended."""
    assert device.process is not None
    if device.process.poll() is not None:
        device.start()


def goes_on(device: Device) -> None:
    """The agent judges some parts; it may be on its way out from the last trouble, and is started again then."""
    enough = device.count() + 25
    until(lambda: restarted(device) or device.count() >= enough, "parts after the trouble")


def at_work(device: Device, server: HubServer, version: int, *, probation: bool) -> None:
    """It has judged some parts, with a bundle that has proved itself, or with one that has just begun to."""
    goes_on(device)
    if probation:
        digest = server.assign(version, version)
        until(lambda: (found := device.status())["probation"] and found["bundle"] == digest, "a new bundle")
        device.goes_on()


@pytest.mark.parametrize("probation", PROBATIONS)
def test_a_disk_that_is_full_for_a_while(
    tmp_path: Path, authority: Authority, server: HubServer, say: Callable[[str], None], probation: bool
) -> None:
    """Somebody else's log takes every byte there is: the agent goes on or says NG and 1, in words; then it catches up."""
    disk, codes = tmp_path / "disk", list[int]()
    bounds = {"ballast_bytes": _MIB, "outbox_max_bytes": 8 * _MIB}
    with (
        small_disk(disk, 160),
        ending(Device(tmp_path, authority, server.address, state=disk / "state", **bounds)) as device,
    ):
        with Feeder(device, every=0.05) as feeder:
            device.start()
            for number in range(ROUNDS):
                at_work(device, server, 2 + number, probation=probation)
                with Hog(disk) as hog:
                    until(lambda: hog.full > 1, "a full disk")
                    if (number + probation) % 2:
                        start_again(device)  # on a full disk
                    codes += [code for code in live_on(device, _FULL_SECONDS) if code >= 0]
            goes_on(device)
            feeder.stop()
        settle(device, feeder.parts)
        device.stop()
        counters = device.status()["counters"]
        say(f"full {ROUNDS} times, left with {codes}, {counters.get('pictures_dropped', 0)} pictures not kept")
        decisions = must_hold(device, feeder.parts, evicted=counters.get("evicted", 0))
    assert sorted(verdict.part for verdict in server.hub.verdicts.values()) == sorted(feeder.parts)
    assert decisions[Decision.ERROR] == 0
    assert set(codes) <= {1}
    assert "Traceback" not in device.words(), device.words()


@pytest.mark.parametrize("probation", PROBATIONS)
def test_a_disk_that_turns_read_only(
    tmp_path: Path, authority: Authority, server: HubServer, say: Callable[[str], None], probation: bool
) -> None:
    """As a failing disk does: the agent leaves with 1 and NG, each start on it too, in words; repaired, it catches up."""
    with (
        failing_disk(tmp_path) as disk,
        ending(Device(tmp_path, authority, server.address, state=disk.at / "state", ballast_bytes=_MIB)) as device,
    ):
        with Feeder(device, every=0.05) as feeder:
            for number in range(ROUNDS):
                device.start()
                at_work(device, server, 2 + number, probation=probation)
                disk.fail()
                assert disk.read_only
                assert "read-only" in disk_troubles(device)
                leaves_with_1(device)
                device.start()
                leaves_with_1(device)
                disk.repair()
            feeder.stop()
        device.start()
        settle(device, feeder.parts)
        device.stop()
        decisions = must_hold(device, feeder.parts, told_again=ROUNDS)  # see `FailingDisk.fail`
    said = device.words()
    say(f"read-only {ROUNDS} times, {len(feeder.parts)} parts; it said: {said.splitlines()[-1]}")
    hub_holds(server, feeder.parts, told_again=ROUNDS)
    assert decisions[Decision.ERROR] == 0
    assert "read-only" in said
    assert "Traceback" not in said, said


def leaves_with_1(device: Device) -> None:
    """And leaves NG behind."""
    assert device.process is not None
    assert device.process.wait(60) == 1, device.tail()
    assert says_ng(device)


def no_camera() -> Camera:
    """Nobody asks for it."""
    raise AssertionError("the disk's check opened the camera")


def disk_troubles(device: Device) -> str:
    """What `edge-agent doctor` says of the disk."""
    transport = DirectoryTransport(device.root)
    patient = Patient(device.state, load_config(device.state), transport, OnnxRuntime, no_camera)
    return " ".join(map(str, CHECKS["disk"](patient)))


def test_a_line_that_found_no_room_spoils_no_other(tmp_path: Path) -> None:
    """On a disk that is full half-way through a line the next one begins anew: no OK is read on, no NG is lost."""
    verdict, failed = a_verdict(1), 0
    with small_disk(tmp_path / "disk", 1):
        signal = FileSignal(tmp_path / "disk" / "told.jsonl")
        signal.safe("starting")
        with Hog(tmp_path / "disk") as hog:
            until(lambda: hog.full, "a full disk")
            for _ in range(200):
                try:
                    signal.tell(verdict)
                except DeviceError:
                    failed += 1
        signal.safe("stopped")
        lines = (tmp_path / "disk" / "told.jsonl").read_text().splitlines()
    assert failed
    assert [json.loads(line)["output"] for line in lines] == ["NG", *["OK"] * (200 - failed), "NG"]


def test_the_log_of_a_journal_that_never_rests_stays_short(tmp_path: Path) -> None:
    """A long backlog is worked off, or sent, without a pause: the write-ahead log begins anew all the same."""
    database = Hasty(tmp_path / "journal.db")
    journal, longest = Journal(database, max_pending=_NO_REST_ROWS, keep_rows=0), 0
    with checkpointing(database):
        for sequence in range(1, _NO_REST_ROWS + 1):
            journal.record(a_verdict(sequence), source=None, sealed=True)
            longest = max(longest, (tmp_path / "journal.db-wal").stat().st_size)
    database.close()
    assert longest < 40 * _MIB  # 80 MiB is where whoever commits folds it back, and the line waits


@contextmanager
def checkpointing(database: Database) -> Iterator[None]:
    """As the housekeeper does it, only more often, since more is written here."""
    over = threading.Event()

    def fold() -> None:
        while not over.wait(0.05):
            database.checkpoint()

    thread = threading.Thread(target=fold)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
