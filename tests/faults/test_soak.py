"""Twenty parts a second with uploads, polls and new bundles: memory, threads and descriptors stay where they were.

What is compared: medians over the window after the warm-up and over the last one of equal length, under the same load.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.camera.folder import FolderCamera
from inspection.contracts import Decision
from tests.conftest import faults_are_long
from tests.faults.hubs import HubServer
from tests.faults.rig import Device, Feeder, hub_holds, is_bad, must_hold, settle
from tests.faults.sizes import Size, size_of

SECONDS = 1800.0 if faults_are_long() else 20.0
_WARM_SHARE = 0.3  # of the time; the first bundles, pools and caches are filled by then
_WINDOW_SHARE = 0.15
_EVERY_SECONDS = 0.25
_NEW_BUNDLE_SECONDS = 30.0 if faults_are_long() else 2.5
_KEEP_FILES = 500
_MIB_TOLERANCE = 12.0  # what the allocator may keep of a bundle that has gone: one model and one frame more than before
_DESCRIPTORS_TOLERANCE = 2  # a connection to the hub that just opens while another just closes

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(2 * 3600 if faults_are_long() else 300)]


def test_a_soak_leaves_memory_threads_and_descriptors_where_they_were(
    device: Device, server: HubServer, say: Callable[[str], None]
) -> None:
    """After the warm-up nothing grows; at the end the ledger closes and everything has arrived."""
    seen: list[Size] = []
    with Feeder(device, every=0.05, keep=_KEEP_FILES) as feeder:
        device.start()
        began = due = time.monotonic()
        version = 1
        while (now := time.monotonic()) < began + SECONDS:
            if now > due:
                version, due = version + 1, due + _NEW_BUNDLE_SECONDS
                server.assign(version, version)
                server.hub.reports.clear()  # this process is not the one that is looked at
            time.sleep(_EVERY_SECONDS)
            seen.append(size_of(device.pid))
        feeder.stop()
    settle(device, feeder.parts)
    device.stop()
    window, warm = int(len(seen) * _WINDOW_SHARE), int(len(seen) * _WARM_SHARE)
    before, after = median_of(seen[warm : warm + window]), median_of(seen[-window:])
    say(f"{SECONDS:.0f} s, {len(feeder.parts)} parts, {version} bundles: {before} then {after}")
    assert after.rss_mib <= before.rss_mib + _MIB_TOLERANCE
    assert after.threads <= before.threads
    assert after.descriptors <= before.descriptors + _DESCRIPTORS_TOLERANCE
    assert after.children <= before.children
    decisions = must_hold(device, feeder.parts)
    hub_holds(server, feeder.parts)
    assert decisions[Decision.NG] == sum(map(is_bad, feeder.parts))
    assert decisions[Decision.ERROR] == 0


def median_of(sizes: list[Size]) -> Size:
    """The middle of each figure."""
    return Size(
        statistics.median(size.rss_mib for size in sizes),
        int(statistics.median(size.threads for size in sizes)),
        int(statistics.median(size.descriptors for size in sizes)),
        int(statistics.median(size.children for size in sizes)),
    )


def test_a_folder_whose_files_come_and_go_is_not_remembered_for_ever(tmp_path: Path) -> None:
    """Whoever takes judged files away keeps the agent small too: ten a second are 300 million names a year."""
    camera = FolderCamera(tmp_path, max_bytes=100, max_pixels=100, forget_seconds=0.05)
    for number in range(300):
        path = tmp_path / f"part-{number:07}.png"
        path.write_bytes(b"no picture")
        assert camera.next(5) is not None
        path.unlink()
        time.sleep(0.001)
    assert len(camera._delivered) < 200
