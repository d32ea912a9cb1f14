"""The wall clock jumps by ten years and back while the agent runs, and is wrong when it starts: nothing leans on it."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from inspection.contracts import Decision
from tests.conftest import faults_are_long
from tests.faults.hubs import HubServer
from tests.faults.rig import Device, Feeder, hub_holds, must_hold, settle, until

TEN_YEARS = 10 * 365.25 * 86_400
JUMPS = [TEN_YEARS, -TEN_YEARS, 0.0] * (20 if faults_are_long() else 1)
_PARTS = 15  # judged and uploaded after each jump
_TAKT_SECONDS = 60.0  # no computer is that slow, and ten years are longer

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(3600 if faults_are_long() else 300)]


class Clock:
    """The wall clock of the processes that are started with its environment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.set(0.0)
        folder = Path(__file__).parent / "shifted"
        self.environment = {"PYTHONPATH": str(folder), "ESCAPEMENT_TEST_CLOCK": str(path)}

    def set(self, off_by_seconds: float) -> None:
        """Jump."""
        with self._path.open("r+b" if self._path.exists() else "w+b") as file:
            file.write(struct.pack("d", off_by_seconds))


def test_the_clock_jumps_by_ten_years(
    device: Device, server: HubServer, tmp_path: Path, say: Callable[[str], None]
) -> None:
    """Verdicts, takt, uploads, signatures and assignments go on as if nothing had happened; so does the next start."""
    clock = Clock(tmp_path / "clock")
    device.env = clock.environment
    device.set(takt_seconds=_TAKT_SECONDS)
    serial = 1
    with Feeder(device, every=0.04, ahead=40) as feeder:
        clock.set(-TEN_YEARS)  # its battery is empty
        device.start()
        until(lambda: len(server.hub.verdicts) > _PARTS, "uploads with a clock of years ago")
        for jump in JUMPS:
            clock.set(jump)
            held, serial = len(server.hub.verdicts), serial + 1
            digest = server.assign(serial, serial)
            until(lambda: server.digest() == digest, "an assignment after a jump")  # noqa: B023  # called here
            until(lambda: len(server.hub.verdicts) > held + _PARTS, "uploads after a jump")  # noqa: B023
            assert server.hub.reports[-1].last_error is None
        device.stop()
        clock.set(TEN_YEARS)
        device.start()
        device.goes_on(_PARTS)
        feeder.stop()
        settle(device, feeder.parts)
        clock.set(-TEN_YEARS)
        device.stop()
    years = sorted({verdict.captured_at.year for verdict in server.hub.verdicts.values()})
    say(f"{len(JUMPS)} jumps, {len(feeder.parts)} parts with stamps of {years}")
    assert years[-1] - years[0] >= 19
    decisions = must_hold(device, feeder.parts)
    hub_holds(server, feeder.parts)
    assert decisions[Decision.ERROR] == 0
    assert "late" not in device.status()["counters"]
