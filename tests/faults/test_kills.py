"""kill -9 at any moment under load, with bundles changing meanwhile: nothing lost, nothing twice, nothing passed."""

import random
import time
from collections import Counter
from collections.abc import Callable

import pytest

from inspection.contracts import Decision
from tests.conftest import faults_are_long
from tests.faults.hubs import HubServer
from tests.faults.rig import Device, Feeder, hub_holds, is_bad, must_hold, settle, until

KILLS = 1000 if faults_are_long() else 8
_EARLY = 0.3  # share of the kills that come while it starts
_START_SECONDS = 1.5
_WORK_SECONDS = 0.6
_NEW_BUNDLE_EVERY = 4
_PROVED = 30  # verdicts after which the first bundle's probation has passed

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(4 * 3600 if faults_are_long() else 300)]


def phase_of(device: Device, logged_bytes: int) -> str:
    """What the kill hit, as far as what lies there tells."""
    if not device.has_said("started", logged_bytes):
        return "before it was ready"
    states = Counter(row.state for row in device.rows())
    if any(device.state.rglob(".*.tmp")):
        return "while a file was written"
    if any((device.state / "staging").glob("*")):
        return "while an update was staged"
    if states["open"]:
        return "while a picture was kept"
    return "while verdicts were sent" if states["sealed"] else "between two parts"


def wait_for_a_moment(device: Device, draw: random.Random) -> None:
    """Some time in its start, or some time after the first part it judged."""
    if draw.random() < _EARLY:
        time.sleep(draw.uniform(0.0, _START_SECONDS))
        return
    device.goes_on(every=0.005)
    time.sleep(draw.uniform(0.0, _WORK_SECONDS))


def test_kill_9_at_random_moments_under_load(device: Device, server: HubServer, say: Callable[[str], None]) -> None:
    """Killed again and again on one folder: each part has one verdict here and at the hub, and the newest bundle runs."""
    seed = random.randrange(2**32)
    draw, phases = random.Random(seed), Counter[str]()
    with Feeder(device, every=0.02, ahead=40) as feeder:
        device.start()
        device.goes_on(_PROVED)
        device.stop()
        for number in range(KILLS):
            if number % _NEW_BUNDLE_EVERY == 1:
                server.assign(10 + number, 10 + number)
            logged = device.logged_bytes
            device.start()
            wait_for_a_moment(device, draw)
            device.kill()
            phases[phase_of(device, logged)] += 1
        feeder.stop()
    last = server.assign(100_000, 100_000)
    device.start()
    until(lambda: server.digest() == last, "the newest bundle")
    feeder.write(3)
    settle(device, feeder.parts)
    device.stop()
    say(f"{KILLS} kills (seed {seed}), {len(feeder.parts)} parts: {dict(phases.most_common())}")
    decisions = must_hold(device, feeder.parts)
    hub_holds(server, feeder.parts)
    scratched = sum(map(is_bad, feeder.parts))
    assert decisions == Counter({Decision.OK: len(feeder.parts) - scratched, Decision.NG: scratched})
