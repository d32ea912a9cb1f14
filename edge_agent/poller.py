"""Tells the hub how this device is, and asks it what to run: every few seconds, whatever else happens.

Invariant: the report goes out before anything that takes long (a download, a self-test), so that no device is silent
meanwhile, and whether or not an assignment can be had.
"""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from edge_agent.camera import Camera
from edge_agent.errors import HubError
from edge_agent.inspecting import Identity
from edge_agent.journal import Journal
from edge_agent.outbox import Outbox
from edge_agent.supervise import Worker
from edge_agent.transport import Transport
from edge_agent.updater import Updater
from edge_agent.version import AGENT_VERSION
from inspection.contracts import Report


class Poller:
    """One poll: report, then assignment, then what that changed."""

    def __init__(
        self,
        who: Identity,
        transport: Transport,
        updater: Updater,
        journal: Journal,
        outbox: Outbox,
        camera: Camera,
        *,
        every_seconds: float,
        other_failures: Callable[[], list[str]],
        machine: Mapping[str, str] | None = None,
    ) -> None:
        self._who = who
        self._transport = transport
        self._updater = updater
        self._journal = journal
        self._outbox = outbox
        self._camera = camera
        self._every = every_seconds
        self._other_failures = other_failures
        self._machine = dict(machine or {})
        self.last_contact: float | None = None  # `time.monotonic` of the hub's last answer
        self.worker = Worker("poller", self._step)

    def _step(self) -> float:
        try:
            self.once()
        except HubError as error:
            self.worker.note(str(error))
            return self._every
        self.worker.note(None)
        return self._every

    def once(self) -> None:
        """Report, poll, and report again what the poll changed. None of the three keeps the others from being tried."""
        before = self._state()
        try:
            self._tell()
        finally:
            try:
                self._updater.poll()
            finally:
                if self._state() != before:
                    self._tell()

    def _state(self) -> tuple[object, ...]:
        """What a poll can change."""
        updater = self._updater
        return updater.state, updater.active, updater.problem, updater.installed.seen_serial, updater.refused

    def _tell(self) -> None:
        self._transport.report(self.report())
        self.last_contact = time.monotonic()

    def report(self) -> Report:
        """What this process says of itself now."""
        updater = self._updater
        active = updater.active
        loaded, challenger = active.loaded, active.challenger
        troubles = [updater.problem, self.worker.failure, *self._other_failures()]
        return Report(
            device=self._who.device,
            station=self._who.station,
            boot=self._who.boot,
            at=datetime.now(UTC),
            state=updater.state,
            mode=active.mode,
            assignment_serial=updater.installed.seen_serial,
            bundle_digest=loaded.digest if loaded else None,
            recipe_digest=loaded.recipe_digest if loaded else None,
            verdicts_by_digest=self._journal.verdicts_by_digest(),
            ledger=self._journal.ledger(),
            outbox_depth=self._outbox.depth(),
            free_disk_bytes=self._outbox.free_disk_bytes(),
            camera=self._camera.health(),
            machine=self._machine,
            challenger_digest=challenger.digest if challenger else None,
            counters=self._journal.counters(),
            last_error="; ".join(t for t in troubles if t) or None,
            refused=updater.refused,
            agent_version=AGENT_VERSION,
        )
