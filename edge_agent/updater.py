"""Updates: ask trust, fetch, self-test, switch atomically, probation, go back.

Invariants:
* At every instant `active` is one complete, verified bundle with its recipe and mode, or HOLD.
* Nothing decides before its self-test (and nothing is parsed before it is checked: `targets.py`).
* A refusal changes nothing that runs: the old assignment stays in force, whole, and the reason is reported. Bytes that
  arrived wrong are fetched again; a bundle that is wrong in itself, or failed its probation, stays refused; one whose
  runtime is not installed here is asked about again at each poll.
* What was chosen is on the disk before it is in memory, so a restart never runs anything newer or older than was said.
* A challenger that takes the process down is refused after a few deaths; the bundle that decides goes on without it, and
  is not blamed for deaths that may be the challenger's.
* A disk that takes no more marks of a probation is trouble, and no end of the inspection; a bundle that failed its
  probation decides nothing more, whatever the disk says.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.bundle import Bundle
from edge_agent.errors import (
    AgentError,
    BundleError,
    DeviceError,
    HubError,
    LackError,
    ModelError,
    ShortageError,
    TrustError,
)
from edge_agent.inspecting import Active, Inspected, Loaded
from edge_agent.machine import kernel_boot_id
from edge_agent.selftest import self_test
from edge_agent.shelf import Installed, Shelf, Slot
from edge_agent.targets import MakeRuntime, Targets
from edge_agent.transport import Transport
from edge_agent.trust import Seen, check_assignment
from inspection.contracts import AgentState, Assignment, Decision, Mode, Recipe, TargetKind, TrustRoot

log = logging.getLogger(__name__)

_MAX_TRIES = 2
_NOTHING = Active(None, Mode.JUDGE)


@dataclass(frozen=True)
class Policy:
    """For whom, and how strict."""

    station: str
    product: str
    root: TrustRoot
    max_bundle_bytes: int
    near_margin: float
    probation_verdicts: int
    probation_error_share: float
    probation_starts: int


class Updater:
    """Owns what is active. `poll` and `note` may be called from different threads."""

    def __init__(self, shelf: Shelf, transport: Transport, policy: Policy, make_runtime: MakeRuntime) -> None:
        self._shelf = shelf
        self._transport = transport
        self._policy = policy
        self._targets = Targets(
            shelf,
            transport,
            make_runtime,
            root=policy.root,
            product=policy.product,
            max_bytes=policy.max_bundle_bytes,
        )
        self._lock = threading.RLock()
        self._installed = Installed()
        self._active = _NOTHING
        self._made = 0
        self._failed = 0
        self._challenged: str | None = None  # the challenger whose start was counted in this process
        self._views = 0
        self._lacking: dict[str, str] = {}  # bundles whose runtime is not installed here: no more refused once it is
        self.problem: str | None = None

    @property
    def active(self) -> Active:
        """What decides now: one immutable snapshot, to be taken once per trigger."""
        return self._active

    @property
    def installed(self) -> Installed:
        """What is on the disk."""
        return self._installed

    @property
    def state(self) -> AgentState:
        """HOLD without a bundle, PROBATION until a new one has proved itself, else RUNNING."""
        if self._active.loaded is None:
            return AgentState.HOLD
        return AgentState.PROBATION if self._installed.probation else AgentState.RUNNING

    @property
    def refused(self) -> list[str]:
        """Digests this device will not run, each with the reason in words."""
        return [f"{digest}: {reason}" for digest, reason in (self._installed.refused | self._lacking).items()]

    def start(self) -> None:
        """Load what was in force, verified again from the disk; else the previous; else HOLD."""
        try:
            self._installed = self._shelf.installed()
        except DeviceError as error:
            self._trouble(str(error))
            self._installed = self._blank()
            return
        self._noted(self._judge_challenger)
        self._noted(self._judge_self_test)
        self._count_crashes()
        current, previous = self._installed.current, self._installed.previous
        for slot in (current, previous):
            if slot is not None and self._try_slot(slot):
                break
        self._shelf.tidy(self._installed.current, self._installed.previous)

    def stop(self) -> None:
        """A clean stop is no crash."""
        with self._lock:
            installed = self._installed
            if installed.starts_in_probation or installed.challenger_starts or installed.trying:
                self._remember(starts_in_probation=0, challenger_starts=0, trying=None, tries=0)

    def poll(self) -> None:
        """Ask the hub once. HubError when it is away; refusals are recorded in `problem`, not raised."""
        envelope = self._transport.assignment()
        if envelope is None:
            return
        try:
            self.apply(envelope)
            self.problem = None
        except HubError:
            raise
        except AgentError as error:
            self._trouble(str(error))

    def apply(self, envelope: bytes) -> None:
        """Bring a signed assignment into force, whole or not at all. BundleError and others say why not."""
        assignment, seen = check_assignment(envelope, self._policy.root, self._policy.station, self._seen())
        with self._lock:
            self._lacking = {}
            if seen != self._seen():
                self._remember(seen_serial=seen.serial, seen_payload=seen.payload_sha256)
            current = self._installed.current
        slot = _slot(assignment, envelope)
        if slot == current and not self._lacks_challenger(slot):
            return
        for digest in (slot.bundle, slot.recipe, slot.challenger):
            if digest in self._installed.refused:
                raise BundleError(f"{digest[:12]} stays refused: {self._installed.refused[digest]}")
        active = self._prepare(slot, assignment)
        self._switch(slot, active)

    def note(self, inspected: Inspected) -> None:
        """Count a verdict towards the probation. Faults of the camera say nothing about the bundle; a model that works or
        fails on a known part of a challenge does so on any.

        DeviceError when a bundle that failed cannot be noted as refused: it decides nothing more all the same.
        """
        if not self._installed.probation:
            return
        with self._lock:
            loaded = self._active.loaded
            if loaded is None or inspected.verdict.bundle_digest != loaded.digest:
                return
            failed = inspected.bundle_failed
            if inspected.verdict.decision is Decision.ERROR and not failed:
                return  # recipe and frame do not fit, or the line was slow: that proves nothing either way
            if self._made < self._policy.probation_verdicts:  # else it has passed, and the disk does not know yet
                self._made += 1
                self._failed += failed
            if self._failed > self._policy.probation_error_share * self._policy.probation_verdicts:
                self._go_back(f"failed on {self._failed} of {self._made} frames in probation")
            elif self._made < self._policy.probation_verdicts:
                self._lives()
            elif self._mark(probation=False, starts_in_probation=0):
                log.info("probation passed", extra={"bundle": loaded.digest, "verdicts": self._made})

    def _lives(self) -> None:
        """This process has made a verdict: deaths and power cuts from now on blame nobody."""
        if self._installed.starts_in_probation:
            self._mark(starts_in_probation=0)

    def note_view(self, challenger: str) -> None:
        """Count a view of the challenger with this digest: after enough of them no death of this process blames it."""
        with self._lock:
            if challenger != self._installed.challenging or not self._installed.challenger_starts:
                return
            self._views += 1
            if self._views >= self._policy.probation_verdicts:
                self._mark(challenger_starts=0)

    def check(self, slot: Slot) -> None:
        """Verify a slot from the disk, run its self-test, change nothing. BundleError and others when it is broken."""
        check_assignment(slot.assignment.encode(), self._policy.root, self._policy.station, None)
        if slot.bundle is not None:
            loaded = self._targets.load(slot)
            self_test(loaded.bundle, loaded.runtime)

    # -- start ----------------------------------------------------------------------------------------------------

    def _judge_challenger(self) -> None:
        """Refuse the challenger with which this process died again and again; it is suspected before the bundle is."""
        installed = self._installed
        if installed.challenging is None or installed.challenger_started_on != kernel_boot_id():
            return
        if installed.challenger_starts < self._policy.probation_starts:
            return
        reason = f"as challenger this process died {installed.challenger_starts} times with it"
        self._refuse(installed.challenging, reason, challenging=None, challenger_starts=0, starts_in_probation=0)

    def _begin_challenge(self, challenger: str | None) -> None:
        """One more start with this challenger, on the disk before anything of it is loaded; counted once per process."""
        old, machine = self._installed, kernel_boot_id()
        if challenger == self._challenged == old.challenging:
            return
        again = (old.challenging, old.challenger_started_on) == (challenger, machine)
        starts = 0 if challenger is None else 1 + (old.challenger_starts if again else 0)
        self._remember(challenging=challenger, challenger_starts=starts, challenger_started_on=machine)
        self._challenged, self._views = challenger, 0

    def _judge_self_test(self) -> None:
        """Refuse the bundle in whose self-test this process died again and again, on one run of the computer."""
        installed = self._installed
        if installed.trying is None or installed.tries < _MAX_TRIES or installed.tried_on != kernel_boot_id():
            return
        reason = f"this process died {installed.tries} times in its self-test"
        self._refuse(installed.trying, reason, trying=None, tries=0)

    def _count_crashes(self) -> None:
        installed, machine = self._installed, kernel_boot_id()
        if not installed.probation or installed.current is None:
            return
        if installed.started_on != machine:  # the computer went down, not this process: that blames nobody
            self._mark(starts_in_probation=1, started_on=machine)
        elif installed.starts_in_probation < self._policy.probation_starts:
            self._mark(starts_in_probation=installed.starts_in_probation + 1)
        elif installed.previous is not None:
            self._go_back(f"this process died {installed.starts_in_probation} times in probation without a verdict")
        else:  # nothing to go back to: HOLD, and the poll fetches and self-tests it once more; never a dead end
            self._forget_broken(installed.current)

    def _try_slot(self, slot: Slot) -> bool:
        """Activate a slot from disk; False (and HOLD in its mode, if that is signed) when it is broken.

        ShortageError when there is too little memory for it now: it stays installed, for the next start.
        """
        try:
            assignment, _ = check_assignment(slot.assignment.encode(), self._policy.root, self._policy.station, None)
            self._active = self._with(None, assignment)
            if slot.bundle is not None:
                self._active = self._with(self._targets.load(slot), assignment, self._try_challenger(slot))
        except ShortageError:
            raise
        except (BundleError, ModelError, DeviceError) as error:
            self._trouble(f"what was installed is broken: {error}")
            self._forget_broken(slot)
            return False
        if slot != self._installed.current:
            self._remember(current=slot, previous=None, probation=False, starts_in_probation=0)
        return True

    def _try_challenger(self, slot: Slot) -> Loaded | None:
        """The challenger from the disk; a broken one is fetched again at the next poll, and holds nobody up."""
        if slot.challenger is None or slot.challenger in self._installed.refused:
            return None
        try:
            self._begin_challenge(slot.challenger)
        except DeviceError as error:  # uncounted it could kill this process again and again
            self._trouble(f"challenger {slot.challenger[:12]} is left out: its start cannot be noted: {error}")
            return None
        try:
            return self._targets.open(slot.challenger)
        except ShortageError as error:
            self._trouble(f"challenger {slot.challenger[:12]} is left out: {error}")
            return None
        except (BundleError, ModelError, DeviceError) as error:
            self._trouble(f"challenger {slot.challenger[:12]} is broken: {error}")
            self._shelf.drop(TargetKind.BUNDLE, slot.challenger)
            return None

    def _lacks_challenger(self, slot: Slot) -> bool:
        return slot.challenger is not None and self._active.challenger is None

    def _blank(self) -> Installed:
        try:
            return self._shelf.blank()
        except DeviceError as error:
            self._trouble(str(error))
            return Installed()

    def _forget_broken(self, slot: Slot) -> None:
        """Off the shelf, so that the next poll fetches it again."""
        for kind, digest in ((TargetKind.BUNDLE, slot.bundle), (TargetKind.RECIPE, slot.recipe)):
            if digest is not None:
                self._shelf.drop(kind, digest)
        if slot == self._installed.current:
            self._remember(current=None, probation=False, starts_in_probation=0)
        else:
            self._remember(previous=None)

    # -- staging --------------------------------------------------------------------------------------------------

    def _prepare(self, slot: Slot, assignment: Assignment) -> Active:
        if slot.bundle is None:
            return self._with(None, assignment)
        if assignment.recipe is not None:
            self._targets.fetch(TargetKind.RECIPE, assignment.recipe)
        loaded = self._active.loaded
        if loaded is None or loaded.digest != slot.bundle:
            if assignment.bundle is not None:
                self._targets.fetch(TargetKind.BUNDLE, assignment.bundle)
            loaded = self._prove(slot.bundle)
        recipe = self._new_recipe(slot, loaded.bundle)
        return self._with(Loaded(loaded.bundle, recipe, loaded.runtime), assignment, self._challenger(assignment))

    def _challenger(self, assignment: Assignment) -> Loaded | None:
        """The challenger, proved like a bundle that decides: it runs in the same process."""
        target, running = assignment.challenger, self._active.challenger
        if target is None:
            return None
        if running is not None and running.digest == target.sha256:
            return running
        self._targets.fetch(TargetKind.BUNDLE, target)
        return self._prove(target.sha256)

    def _prove(self, digest: str) -> Loaded:
        """Open and self-test a new bundle. The attempt is on the disk first: a crash in here must not repeat for ever.

        Only deaths on one run of this computer are counted: when that went down, nobody knows whom to blame.
        """
        old, machine = self._installed, kernel_boot_id()
        again = (old.trying, old.tried_on) == (digest, machine)
        self._remember(trying=digest, tries=old.tries + 1 if again else 1, tried_on=machine)
        try:
            loaded = self._targets.open(digest)
            self_test(loaded.bundle, loaded.runtime)
        except (BundleError, ModelError, DeviceError) as error:
            self._discard(TargetKind.BUNDLE, digest, error)
            raise
        finally:
            self._remember(trying=None, tries=0)
        return loaded

    def _new_recipe(self, slot: Slot, bundle: Bundle) -> Recipe:
        """The recipe of a slot that is not in force yet; one that is wrong in itself is refused for good."""
        try:
            return self._targets.recipe(slot, bundle)
        except (BundleError, DeviceError) as error:
            self._discard(TargetKind.RECIPE, str(slot.recipe), error)
            raise

    def _discard(self, kind: TargetKind, digest: str, error: AgentError) -> None:
        """Off the shelf, and refused for good, unless only our disk has damaged it: then the next poll fetches it again."""
        if isinstance(error, LackError):
            self._lacking = {digest: str(error)}
        if isinstance(error, ShortageError | LackError):  # says nothing of the bytes
            return
        self._shelf.drop(kind, digest)
        if not isinstance(error, TrustError | DeviceError):
            self._refuse(digest, str(error))

    # -- switching ------------------------------------------------------------------------------------------------

    def _switch(self, slot: Slot, active: Active) -> None:
        with self._lock:
            self._begin_challenge(slot.challenger)
            old = self._installed
            changes: dict[str, object] = {"current": slot}
            if old.current is None or slot.bundle != old.current.bundle:
                self._made = self._failed = 0
                changes |= {"probation": slot.bundle is not None, "starts_in_probation": 1, "started_on": kernel_boot_id()}
                if old.current is not None and old.current.bundle is not None and not old.probation:
                    changes["previous"] = old.current  # one still in probation is nothing to go back to
            self._remember(**changes)
            self._active = active
            self._shelf.tidy(self._installed.current, self._installed.previous)
        log.info("switched", extra={"bundle": slot.bundle, "recipe": slot.recipe, "mode": active.mode.value})

    def _go_back(self, reason: str) -> None:
        """Leave the bundle in probation for the previous one, or for HOLD, and refuse it from now on."""
        bad = self._installed.current
        if bad is None or bad.bundle is None:
            return
        self._active = Active(None, self._active.mode)  # first: also on a disk that cannot be told
        previous = self._installed.previous
        self._refuse(bad.bundle, reason, current=previous, previous=None, probation=False, starts_in_probation=0)
        if previous is not None:
            self._try_slot(previous)
        log.error("went back", extra={"bundle": bad.bundle, "to": previous and previous.bundle, "reason": reason})

    def _refuse(self, digest: str, reason: str, **changes: object) -> None:
        self._remember(refused=self._installed.refused | {digest: reason}, **changes)
        self._trouble(f"{digest[:12]} is refused: {reason}")

    def _mark(self, **changes: object) -> bool:
        return self._noted(lambda: self._remember(**changes))

    def _noted(self, note: Callable[[], None]) -> bool:
        """Whether the disk took what is only counted. One that refuses ends no inspection: it is tried again."""
        try:
            note()
        except DeviceError as error:
            self._trouble(str(error))
            return False
        return True

    def _remember(self, **changes: object) -> None:
        with self._lock:
            changed = self._installed.model_copy(update=changes)
            self._shelf.remember(changed)  # first the disk: memory must not know more than a restart would
            self._installed = changed

    def _with(self, loaded: Loaded | None, assignment: Assignment, challenger: Loaded | None = None) -> Active:
        return Active(loaded, assignment.mode, assignment.audit_share, self._policy.near_margin, challenger)

    def _seen(self) -> Seen | None:
        payload = self._installed.seen_payload
        return None if payload is None else Seen(self._installed.seen_serial, payload)

    def _trouble(self, reason: str) -> None:
        if reason != self.problem:  # a full disk says the same with each verdict
            log.warning("update trouble", extra={"reason": reason})
        self.problem = reason


def _slot(assignment: Assignment, envelope: bytes) -> Slot:
    """What an assignment asks for: all of it. Without a bundle the station runs none, and cannot say OK."""
    return Slot(
        bundle=assignment.bundle.sha256 if assignment.bundle else None,
        recipe=assignment.recipe.sha256 if assignment.recipe else None,
        challenger=assignment.challenger.sha256 if assignment.challenger else None,
        assignment=envelope.decode(),
    )
