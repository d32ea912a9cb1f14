"""A whole agent, put together from ports: journal, outbox, updater, threads, loop. Names no camera, transport or signal.

Invariants: one agent per state folder (a lock file says so); what a crash left half-done is settled before the first
trigger; at the end the current trigger is finished, pictures are stored and one last upload and report are tried.
"""

import fcntl
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from edge_agent.ballast import BALLAST_NAME, Ballast
from edge_agent.camera import Camera
from edge_agent.challenging import Challenging
from edge_agent.config import AgentConfig
from edge_agent.database import DATABASE_NAME, Database
from edge_agent.errors import AgentError, DeviceError, HeldError
from edge_agent.files import clear_half_written, give_back
from edge_agent.housekeeping import Housekeeper
from edge_agent.inspecting import Identity
from edge_agent.journal import Journal
from edge_agent.keeper import Keeper
from edge_agent.lanes import Backoff
from edge_agent.ledger import LedgerWatch
from edge_agent.loop import Station, run, tell
from edge_agent.machine import describe
from edge_agent.outbox import Outbox
from edge_agent.page.facts import Facts
from edge_agent.poller import Poller
from edge_agent.shelf import Shelf
from edge_agent.supervise import Worker
from edge_agent.targets import MakeRuntime
from edge_agent.transport import Transport
from edge_agent.updater import Policy, Updater
from edge_agent.uploader import Uploader
from edge_agent.version import AGENT_VERSION
from edge_agent.watching import Watcher, Watchers
from edge_agent.wires import Wires
from inspection.contracts import AgentState

log = logging.getLogger(__name__)


class Page(Protocol):
    """The station's page, as far as the agent cares: ``failure`` says why there is none."""

    @property
    def failure(self) -> str | None:
        """Why there is no page, in words."""

    def start(self) -> None:
        """Serve, beside the loop."""

    def stop(self) -> None:
        """End it."""


MakePage = Callable[[Facts], Page]

_LOCK_NAME = "agent.lock"
_LAST_WORDS_SECONDS = 10.0
_LOOK_SECONDS = 0.02


@contextmanager
def only_one(state: Path) -> Iterator[None]:
    """Hold the state folder for this process. HeldError when another agent has it, DeviceError on a read-only disk."""
    try:
        opened = (state / _LOCK_NAME).open("w")
    except PermissionError as error:
        raise DeviceError(
            f"{error.filename} cannot be opened: {error.strerror}; give it back: `{give_back(state)}`"
        ) from error
    except OSError as error:
        raise DeviceError(f"{state} cannot be written: {error.strerror}; is the disk full or read-only?") from error
    with opened as lock:
        _hold(lock, state)
        yield


@contextmanager
def no_other(state: Path) -> Iterator[None]:
    """`only_one` for whoever only looks: it makes nothing, since where no lock lies no agent runs. HeldError."""
    if not (state / _LOCK_NAME).exists():
        yield
        return
    with (state / _LOCK_NAME).open("rb") as lock:
        _hold(lock, state)
        yield


def _hold(lock: IO[Any], state: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise HeldError(f"another agent runs on {state}; stop it, or give this one another --state") from None


def policy_of(config: AgentConfig) -> Policy:
    """What the updater must know of the configuration."""
    return Policy(
        station=config.enrolment.station,
        product=config.enrolment.product,
        root=config.enrolment.trust,
        max_bundle_bytes=config.limits.max_bundle_bytes,
        near_margin=config.limits.near_threshold_margin,
        probation_verdicts=config.limits.probation_verdicts,
        probation_error_share=config.limits.probation_error_share,
        probation_starts=config.limits.probation_starts,
    )


class Agent:
    """An agent with its journal open: a camera is made after it, because it asks what was delivered before."""

    def __init__(self, state: Path, config: AgentConfig, boot: str, transport: Transport) -> None:
        limits = config.limits
        self._state = state
        self._config = config
        self._transport = transport
        ballast = Ballast(state / BALLAST_NAME, limits.ballast_bytes)
        self._database = Database(state / DATABASE_NAME, relief=ballast.release)
        self.journal = Journal(self._database, max_pending=limits.outbox_max_verdicts, keep_rows=limits.journal_keep_rows)
        self.outbox = Outbox(
            self._database,
            state / "outbox",
            max_bytes=limits.outbox_max_bytes,
            min_free_bytes=limits.min_free_disk_bytes,
            reserve_bytes=limits.update_reserve_bytes,
        )
        self._housekeeper = Housekeeper(
            self._database, self.journal, self.outbox, ballast, min_free_bytes=limits.min_free_disk_bytes
        )
        self.ledger = LedgerWatch(self._database, self.journal, every_seconds=limits.ledger_check_seconds)
        enrolment = config.enrolment
        self.who = Identity(enrolment.device, enrolment.station, enrolment.product, boot)
        self._shelf = Shelf(state)

    def run(
        self,
        camera: Camera,
        wires: Wires,
        make_runtime: MakeRuntime,
        stop: threading.Event,
        *,
        max_triggers: int | None,
        watchers: Sequence[Watcher] = (),
        make_page: MakePage | None = None,
    ) -> int:
        """Inspect until stopped; returns the number of triggers."""
        limits = self._config.limits
        tell(lambda: wires.signal.safe("starting"))  # before anything that takes long or may fail
        machine = describe()
        strays = clear_half_written(self._state) + self.outbox.sweep()  # first what gives room
        orphans = self.journal.seal_orphans()
        self.journal.begin_boot(self.who.boot, AGENT_VERSION, machine)
        updater = Updater(self._shelf, self._transport, policy_of(self._config), make_runtime)
        updater.start()
        keeper = Keeper(self._database, self.journal, self.outbox, queue_frames=limits.keep_queue_frames)
        backoff = Backoff(limits.backoff_base_seconds, limits.backoff_cap_seconds)
        uploader = Uploader(self.journal, self.outbox, self._transport, batch=limits.upload_batch_verdicts, backoff=backoff)
        challenging = Challenging(
            self._database, self.journal, keeper, takt_seconds=self._config.takt_seconds, note_view=updater.note_view
        )
        workers = self._workers(keeper, challenging, uploader)

        def failures() -> list[str]:
            said = [*_failures(*workers), *wires.failures(), page.failure if page else None]
            return [failure for failure in said if failure]

        poller = self._poller(updater, camera, failures, machine)
        page = make_page(self._facts(camera, wires, updater, poller, failures)) if make_page else None
        station = self._station(camera, wires, keeper, challenging, updater, watchers)
        log.info("started", extra={"boot": self.who.boot, "state": updater.state.value, "sealed": orphans, "swept": strays})
        with ExitStack() as ending:  # in the opposite order; whatever fails, the rest is done too
            ending.callback(updater.stop)
            ending.callback(self._last_words, uploader, poller)
            ending.callback(_end, (*workers, poller.worker))
            ending.callback(keeper.stop)
            ending.callback(challenging.stop)
            if page is not None:
                ending.callback(page.stop)
                page.start()
            for worker in (*workers, poller.worker):
                worker.start()
            _wait_for_a_bundle(updater, poller, stop, limits.http_timeout_seconds)
            return run(station, stop, max_triggers=max_triggers)

    def close(self) -> None:
        """Close the journal and the connection."""
        self._transport.close()
        self._database.close()

    def _poller(
        self, updater: Updater, camera: Camera, failures: Callable[[], list[str]], machine: dict[str, str]
    ) -> Poller:
        return Poller(
            self.who,
            self._transport,
            updater,
            self.journal,
            self.outbox,
            camera,
            every_seconds=self._config.poll_every_seconds,
            other_failures=failures,
            machine=machine,
        )

    def _workers(self, keeper: Keeper, challenging: Challenging, uploader: Uploader) -> tuple[Worker, ...]:
        return (
            keeper.worker,
            challenging.worker,
            *uploader.workers,
            self._housekeeper.worker,
            self._housekeeper.checkpointer,
            self.ledger.worker,
        )

    def _station(
        self,
        camera: Camera,
        wires: Wires,
        keeper: Keeper,
        challenging: Challenging,
        updater: Updater,
        watchers: Sequence[Watcher],
    ) -> Station:
        return Station(
            self.who,
            camera,
            wires.trigger,
            wires.signal,
            self.journal,
            keeper,
            challenging,
            updater,
            Watchers(watchers),
            camera_deadline_seconds=self._config.limits.camera_deadline_seconds,
            takt=self._config.takt_seconds or math.inf,
        )

    def _facts(
        self, camera: Camera, wires: Wires, updater: Updater, poller: Poller, failures: Callable[[], list[str]]
    ) -> Facts:
        return Facts(
            who=self.who,
            state_folder=self._state,
            counters=self.journal.counters,
            ledger=self.journal.ledger,
            ledger_line=lambda: self.ledger.line,
            camera=camera.health,
            active=lambda: updater.active,
            state=lambda: updater.state,
            installed=lambda: updater.installed,
            problem=lambda: updater.problem,
            pictures_waiting=self.outbox.depth,
            free_disk_bytes=self.outbox.free_disk_bytes,
            failures=failures,
            connections=wires.health,
            hub_contact=lambda: poller.last_contact,
            hub=self._config.hub,
            hub_every_seconds=self._config.poll_every_seconds,
            trigger=self._config.wiring.trigger,
            takt_seconds=self._config.takt_seconds,
        )

    def _last_words(self, uploader: Uploader, poller: Poller) -> None:
        """Empty the outbox as far as the hub takes it now; what stays is sent at the next start."""
        if any(worker.alive for worker in uploader.workers):
            log.warning("stopped with things to upload", extra={"reason": "the hub does not answer"})
            return
        try:
            deadline = time.monotonic() + _LAST_WORDS_SECONDS
            while time.monotonic() < deadline and uploader.drain_once():
                pass
            self._transport.report(poller.report())
        except AgentError as error:
            log.warning("stopped with things to upload", extra={"reason": str(error)})


def _end(workers: Sequence[Worker]) -> None:
    """All at once: a hub that hangs holds each of them up for as long as its time-out is."""
    for worker in workers:
        worker.ask_to_stop()
    deadline = time.monotonic() + _LAST_WORDS_SECONDS
    for worker in workers:
        worker.stop(max(0.0, deadline - time.monotonic()))


def _wait_for_a_bundle(updater: Updater, poller: Poller, stop: threading.Event, seconds: float) -> None:
    """Let the first poll bring a bundle that is already assigned: parts before it are ERROR. Downloads go on beside it."""
    until = time.monotonic() + seconds
    while updater.state is AgentState.HOLD and not poller.worker.went_once and not stop.is_set():
        if time.monotonic() > until:
            return
        time.sleep(_LOOK_SECONDS)


def _failures(*workers: Worker) -> list[str]:
    return [worker.failure for worker in workers if worker.failure]
