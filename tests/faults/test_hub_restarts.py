"""The hub itself, as a program on SQLite, dies and comes back while a device uploads: nothing lost, nothing twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from edge_agent.config import load_config, write_config
from edge_agent.transport import HttpTransport
from inspection.contracts import Decision, Limits, sha256_hex
from inspection.data.product import Product
from inspection.data.products import add_station, save_product
from inspection.settings import load_settings
from inspection.store.session import Store
from inspection.store.tables import AssignmentRow, BundleRow, QuarantineRow, VerdictRow
from tests.conftest import faults_are_long
from tests.edge_agent.helpers import CLASSES, DEVICE, PRODUCT, STATION, Authority, bundle
from tests.faults.rig import Device, Feeder, ending, must_hold, settle, until
from tests.ports import free_port

RESTARTS = 50 if faults_are_long() else 5
_UP_SECONDS = 1.0
_NURSERY = """
import os, sys
from inspection.hub.__main__ import main
for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        sys.exit(main(sys.argv[1:]))
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""  # imports once, so that each hub after the first is there in a moment: a process of its own all the same
_SETTLE_SECONDS = 1800.0 if faults_are_long() else 180.0  # what failed again and again alone is tried ever more rarely
_CLEAN_EVERY = 3  # every third end is a stop, the others are kills

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(3600 if faults_are_long() else 300)]


class Hub:
    """The hub's program on a folder, with one product, one station, and a bundle assigned to it."""

    def __init__(self, state: Path, authority: Authority) -> None:
        state.mkdir()
        self.address = f"http://127.0.0.1:{free_port()}"
        (state / "settings.json").write_text(json.dumps({"hub_url": self.address}))
        self._settings = load_settings(state, {})
        self._seed(authority, bundle())
        self._pid = 0
        with (state / "hub.log").open("ab") as log:
            command = [sys.executable, "-c", _NURSERY, "--state", str(state)]
            pipe = subprocess.PIPE
            self._nursery = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True)

    def _seed(self, authority: Authority, data: bytes) -> None:
        limits = Limits(escape_rate=0.05, overkill_rate=0.1)
        with self.store() as store, store.begin() as session:
            save_product(session, Product(name=PRODUCT, good_class="good", classes=CLASSES, limits=limits))
            add_station(session, STATION, PRODUCT)
            store.blobs.put("targets", data)
            envelope = authority.envelope(data)
            known = {"kind": "bundle", "product": PRODUCT, "name": "tiny", "version": 1, "length": len(data)}
            session.add(BundleRow(sha256=sha256_hex(data), envelope=envelope, **known))
            session.add(AssignmentRow(station=STATION, serial=1, envelope=authority.assignment(1, data)))

    def store(self) -> Store:
        """Its rows and pictures."""
        return Store.open(self._settings.database_url, self._settings.blob_url)

    def enrol(self, device: Device, authority: Authority) -> None:
        """A token of this hub, and the keys that signed the bundle."""
        transport = HttpTransport(self.address, None, timeout_seconds=20)
        try:
            enrolled = transport.enrol(self._settings.secrets.enrolment_code.get_secret_value(), DEVICE, STATION)
        finally:
            transport.close()
        known = enrolled.model_copy(update={"trust": authority.root})
        write_config(device.state, load_config(device.state).model_copy(update={"enrolment": known}))

    def start(self) -> None:
        """Until it answers."""
        self._pid = int(self._ask())
        until(self._answers, "the hub")

    def _ask(self) -> str:
        assert self._nursery.stdin is not None
        self._nursery.stdin.write("one more\n")
        self._nursery.stdin.flush()
        return self._said()

    def _said(self) -> str:
        assert self._nursery.stdout is not None
        return self._nursery.stdout.readline().strip()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.address}/healthz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def end(self, *, cleanly: bool = False) -> None:
        """Stop or kill it."""
        if self._pid:
            os.kill(self._pid, signal.SIGTERM if cleanly else signal.SIGKILL)
            assert self._said() == "ended"
        self._pid = 0

    def close(self) -> None:
        """End everything."""
        self.end()
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.close()
        self._nursery.wait(60)
        self._nursery.stdout.close()


@pytest.fixture
def hub(tmp_path: Path, authority: Authority) -> Iterator[Hub]:
    """Running."""
    made = Hub(tmp_path / "hub", authority)
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def device(tmp_path: Path, authority: Authority, hub: Hub) -> Iterator[Device]:
    """Enrolled there."""
    with ending(Device(tmp_path, authority, hub.address, upload_batch_verdicts=5)) as made:
        hub.enrol(made, authority)
        yield made


def test_a_hub_that_dies_again_and_again_loses_and_doubles_nothing(
    device: Device, hub: Hub, say: Callable[[str], None]
) -> None:
    """Killed and stopped at random moments under uploads: one row per verdict, each picture held, nothing quarantined."""
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    with Feeder(device, every=0.05, ahead=200) as feeder:
        device.start()
        device.goes_on(10)
        for number in range(RESTARTS):
            time.sleep(draw.uniform(0.0, _UP_SECONDS))
            hub.end(cleanly=number % _CLEAN_EVERY == 2)
            hub.start()
        feeder.stop()
        settle(device, feeder.parts, _SETTLE_SECONDS)
        device.stop()
    hub.end(cleanly=True)
    decisions = must_hold(device, feeder.parts)
    assert decisions[Decision.ERROR] == 0
    with hub.store() as store, store.begin(read_only=True) as session:
        held = session.execute(select(VerdictRow.part, VerdictRow.decision, VerdictRow.picture, VerdictRow.body)).all()
        quarantined = session.scalar(select(func.count()).select_from(QuarantineRow))
        blobs = [store.blobs.get(f"pictures/{row.picture}") for row in held if row.picture is not None]
    pictures = [row.picture for row in held if row.picture is not None]
    say(f"{RESTARTS} ends (seed {seed}): {len(held)} verdicts, {len(pictures)} pictures at the hub")
    assert sorted(row.part for row in held) == sorted(feeder.parts)
    assert pictures == [row.body["frame_sha256"] for row in held if row.decision == "NG"]
    assert [sha256_hex(blob) for blob in blobs] == pictures
    assert quarantined == 0
    assert device.status()["counters"].get("resent", 0) == 0
