"""The hub is gone for three days at ten triggers a second: everything waits, within bounds, and drains exactly once.

The days are not waited for: the verdicts are written by the journal's own code, without waiting for the disk each time.
"""

import itertools
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_agent.config import load_config
from edge_agent.database import DATABASE_NAME
from edge_agent.inspecting import verdict_id
from edge_agent.journal import Journal
from edge_agent.outbox import Outbox
from inspection.contracts import Band, Decision, Verdict
from tests.conftest import faults_are_long
from tests.edge_agent.helpers import DEVICE, NOW, PRODUCT, STATION, Authority, picture, png
from tests.faults.hubs import HubServer, LeanHub, short
from tests.faults.rig import Device, Feeder, Hasty, ending, hub_holds, must_be_whole, must_hold, put, settle, until

ROWS = 72 * 3600 * 10 if faults_are_long() else 5_000
BOUND = 100_000 if faults_are_long() else 1_000  # rows that may wait, where twice as many come
_PICTURE_EVERY = 50 if not faults_are_long() else 5_000
_OUTBOX_BYTES = 600_000  # some 60 pictures
_DRAIN_SECONDS = 3 * 3600.0 if faults_are_long() else 90.0
_IN_HAND = 8  # what a lane holds and tries while it is given up on the disk: that arrives although it counts as evicted
_STOP_SECONDS, _LONGEST_SECONDS = 60.0, 300.0  # TimeoutStopSec of infra/edge-agent.service
_BURST, _BURSTS_BEFORE, _BURSTS_MEANWHILE = 20, 6, 20

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(4 * 3600 if faults_are_long() else 300)]


def past(sequence: int) -> Verdict:
    """A verdict of the days without a hub, as long as a real one."""
    decision = Decision.NG if sequence % _PICTURE_EVERY == 0 else Decision.OK
    score = 0.9 if decision is Decision.NG else (sequence % 97) / 1000
    return Verdict(
        id=verdict_id(DEVICE, "past", sequence),
        device=DEVICE,
        boot="past",
        sequence=sequence,
        station=STATION,
        product=PRODUCT,
        part=f"past-{sequence:08}",
        captured_at=NOW,
        decision=decision,
        defect_class="scratch" if decision is Decision.NG else None,
        scores={"good": 1.0 - score, "scratch": score, "dent": 0.0},
        thresholds={"*": Band(inconclusive=0.3, ng=0.7)},
        bundle_digest="a" * 64,
        recipe_digest="b" * 64,
        timings_ms={"decode": 0.5 + sequence % 7 / 10, "infer": 3.0 + sequence % 11 / 10, "judge": 0.2, "total": 4.1},
        agent_version="0.1.0",
    )


def fill(device: Device, rows: int) -> None:
    """So many verdicts wait, and a picture of each that is NG, as far as there is room."""
    database = Hasty(device.state / DATABASE_NAME)
    journal = Journal(database, max_pending=10 * rows, keep_rows=1000)
    outbox = Outbox(database, device.state / "outbox", max_bytes=_OUTBOX_BYTES, min_free_bytes=0)
    for sequence in range(1, rows + 1):
        verdict = past(sequence)
        with_picture = verdict.decision is Decision.NG
        journal.record(verdict, source=None, sealed=not with_picture)
        if with_picture:
            digest = outbox.put(verdict.id, png(picture(sequence)), "ng")
            journal.seal(verdict.model_copy(update={"frame_sha256": digest}))
        if sequence % 5000 == 0:
            database.checkpoint()
    database.close()


class Line:
    """The line's side of a named pipe: hears each verdict at once."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._descriptor = os.open(path, os.O_RDWR)  # also to write, so that it never ends
        self._thread = threading.Thread(target=self._run, name="line", daemon=True)
        self._thread.start()
        self.heard: list[float] = []

    def _run(self) -> None:
        while data := os.read(self._descriptor, 65_536):
            self.heard += [time.monotonic()] * data.count(b"\n") if data != b"end" else []
            if data.endswith(b"end"):
                return

    def close(self) -> None:
        """Hang up."""
        os.write(self._descriptor, b"end")
        self._thread.join()
        os.close(self._descriptor)


@contextmanager
def listening(path: Path) -> Iterator[Line]:
    """A line that hangs up at the end."""
    line = Line(path)
    try:
        yield line
    finally:
        line.close()


class Parts:
    """Live parts in bursts: while one lasts the agent never waits, so the time between two answers is what a part costs."""

    def __init__(self, device: Device, line: Line) -> None:
        self._device, self._line = device, line
        self.written = 0

    def burst(self) -> list[float]:
        """Milliseconds per part."""
        begun = len(self._line.heard)
        for _ in range(_BURST):
            self.written += 1
            put(self._device.pictures, f"live-{self.written:06}.png", png(picture(self.written)))
        until(lambda: len(self._line.heard) >= begun + _BURST, "answers to a burst", every=0.002)
        heard = self._line.heard[begun : begun + _BURST]
        return [(after - before) * 1e3 for before, after in itertools.pairwise(heard)]


@pytest.fixture
def gone(authority: Authority) -> Iterator[HubServer]:
    """A hub that has assigned a bundle, and will go away."""
    server = HubServer(LeanHub(authority))
    server.assign(1, 1)
    yield server
    server.down()


def held(server: HubServer) -> dict[bytes, bytes]:
    """What the hub holds."""
    assert isinstance(server.hub, LeanHub)
    return server.hub.held


def outbox_bytes(device: Device) -> int:
    """What the pictures take."""
    return sum(path.stat().st_size for path in (device.state / "outbox").iterdir())


def drain(device: Device, server: HubServer, line: Line) -> tuple[Parts, str]:
    """Live parts before the hub is back, and until it has all the rows that waited. How it went, in words."""
    device.start()
    parts = Parts(device, line)
    parts.burst()  # warm
    before = [ms for _ in range(_BURSTS_BEFORE) for ms in parts.burst()]
    assert outbox_bytes(device) <= _OUTBOX_BYTES
    server.up()
    began = time.monotonic()
    meanwhile: list[float] = []
    for _ in range(_BURSTS_MEANWHILE):
        burst = parts.burst()
        if len(held(server)) >= ROWS:
            break
        meanwhile += burst
    assert meanwhile, "it was over before it could be measured"
    until(lambda: len(held(server)) >= ROWS, "all of them", _DRAIN_SECONDS, every=0.1)
    rate = ROWS / (time.monotonic() - began)
    until(lambda: device.status()["ledger"]["pending"] == 0, "all of it gone", every=0.2)
    ratio = statistics.median(meanwhile) / statistics.median(before)
    return parts, f"{rate:.0f} rows a second; a part took {in_words(before)} before, {in_words(meanwhile)}: x {ratio:.2f}"


def in_words(values: list[float]) -> str:
    """Median and tail."""
    return f"{statistics.median(values):.1f} ms (p99 {sorted(values)[int(len(values) * 0.99)]:.1f})"


def test_three_days_without_a_hub_drain_exactly_once(
    tmp_path: Path, authority: Authority, gone: HubServer, say: Callable[[str], None]
) -> None:
    """Every verdict arrives, pictures as far as there was room, and the line does not feel it."""
    with ending(Device(tmp_path, authority, gone.address, outbox_max_bytes=_OUTBOX_BYTES)) as device:
        device.start()
        until(lambda: gone.digest() is not None, "the bundle")
        device.stop()
        gone.down()
        began = time.monotonic()
        fill(device, ROWS)
        filled = time.monotonic() - began
        device.told.unlink()
        with listening(device.told) as line:
            parts, words = drain(device, gone, line)
            device.stop()
        say(f"{ROWS} rows, written in {filled:.0f} s, left at {words}")
        ledger = must_be_whole(device)
        assert gone.errors == []
        assert len(held(gone)) == ROWS + parts.written
        assert ledger["uploaded"] == ROWS + parts.written + len(gone.hub.pictures)
        assert ledger["evicted"] == ROWS // _PICTURE_EVERY - len(gone.hub.pictures) > 0  # counted, each


def test_more_than_may_wait_goes_oldest_first_and_counted(
    tmp_path: Path, authority: Authority, gone: HubServer, say: Callable[[str], None]
) -> None:
    """Twice as many verdicts as the bound: the newest half arrives, the other is counted as evicted."""
    bound = BOUND
    bounds = {"outbox_max_verdicts": bound, "outbox_max_bytes": _OUTBOX_BYTES, "journal_keep_rows": 100}
    with ending(Device(tmp_path, authority, gone.address, **bounds)) as device:
        gone.down()
        fill(device, 2 * bound)
        device.start()
        until(lambda: device.count() <= bound, "within the bound", every=0.1)
        assert device.status()["ledger_closes"]
        gone.up()
        until(lambda: device.status()["ledger"]["pending"] == 0, "all of it gone", every=0.2)
        device.stop()
        ledger = must_be_whole(device)
        assert gone.errors == []
        say(f"{2 * bound} rows, at most {bound}: {ledger}")
        newest = {short(verdict_id(DEVICE, "past", number)) for number in range(bound + 1, 2 * bound + 1)}
        assert newest <= held(gone).keys()
        assert len(held(gone)) <= bound + _IN_HAND


if faults_are_long():  # the way out takes ten seconds by design

    def test_a_hub_that_hangs_holds_up_neither_the_line_nor_a_stop(device: Device, server: HubServer) -> None:
        """It takes every request and answers none: parts are judged, and SIGTERM is obeyed within what systemd waits."""
        over = threading.Event()

        def hang(_: str) -> None:
            over.wait(_LONGEST_SECONDS)

        device.set(limits={**load_config(device.state).limits.model_dump(), "http_timeout_seconds": 60.0})
        with Feeder(device, every=0.05) as feeder:
            device.start()
            device.goes_on(25)
            server.hub.trouble = hang
            device.goes_on(25)
            feeder.stop()
        began = time.monotonic()
        device.stop()
        took = time.monotonic() - began
        over.set()
        server.hub.trouble = lambda _: None
        assert device.outputs()[-1]["output"] == "NG"
        assert took < _STOP_SECONDS, "systemd would have killed it"
        device.start()
        settle(device, feeder.parts)
        device.stop()
        must_hold(device, feeder.parts)
        hub_holds(server, feeder.parts)
