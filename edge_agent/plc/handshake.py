"""The handshake with the line's controller, as a pure state machine: no wire, no clock.

Invariants: OK and NG are never both up, nor both down; OK is up only while a clean OK waits for its acknowledgement, and
only for the part it is about; each rising trigger bit is either accepted once or missed once; a bit that is up when the
first connection begins has not risen, a trigger that rose while the connection was away has, and is missed; a result is
never offered for a part whose connection was lost, or which was withdrawn.
"""

from dataclasses import dataclass

from edge_agent.plc.registers import MAX_COUNT, Code, Command, Data, Inputs, Outputs, Status

BEAT_SECONDS = 0.5
WITHDRAWN = Status.TRIGGER_READY | Status.RESULTS_READY | Status.OK
"""The bits somebody acts on: they fall before anything else changes."""


@dataclass(frozen=True)
class Order:
    """An accepted trigger. ``at`` is the `time.monotonic` at which it was read."""

    at: float
    part: str | None = None
    lot: str | None = None


@dataclass(frozen=True)
class Result:
    """One verdict in a controller's words. ``ok`` only for a clean OK."""

    ok: bool = False
    inconclusive: bool = False
    judging: bool = False
    code: Code = Code.NONE
    part: str = ""
    defect_class: str = ""
    inspection_ms: int = 0

    @property
    def is_error(self) -> bool:
        """Whether the code says that there is no verdict."""
        return self.code not in (Code.NONE, Code.NOT_JUDGING)


class Handshake:
    """One line's state. ``edges`` is always ``accepted + missed``."""

    def __init__(self) -> None:
        self.linked = False
        self.edges = self.accepted = self.missed = self.overruns = self.results = 0
        self._listening = False  # somebody asks for triggers
        self._levels: Inputs | None = None
        self._was_low = False  # the trigger, when the last connection was lost
        self._order: Order | None = None  # accepted, and not taken yet
        self._inspecting = False
        self._answerable = False  # the result of the part in hand may be offered
        self._result: Result | None = None  # offered, and not acknowledged yet
        self._last = Result()
        self._latched = Status(0)
        self._stopped = True  # nobody inspects
        self._cut = False  # a result was expected that will not come
        self._taken_missed = 0
        self._heartbeat = 0
        self._next_beat = 0.0

    # -- what the controller does -----------------------------------------------------------------------------------

    def connect(self, inputs: Inputs) -> None:
        """The connection is up, and this is what stood there. Whoever holds a trigger up waits for a result in vain."""
        self.linked, self._levels = True, inputs
        if Command.TRIGGER in inputs.command:
            self._cut = True
            if self._was_low:
                self.edges += 1
                self._miss()

    def lost(self) -> None:
        """The connection is gone: nothing that was begun is answered any more."""
        if self._result is not None or (self._busy and self._answerable):
            self._cut = True
        if self._levels is not None:
            self._was_low = Command.TRIGGER not in self._levels.command
        self.linked, self._levels = False, None
        self._result, self._answerable = None, False

    def step(self, inputs: Inputs, at: float) -> bool:
        """What was read at ``at``. True when a trigger was accepted."""
        ready, before = self._ready, self._levels
        self._levels = inputs
        rose = inputs.command & ~before.command if before is not None else Command(0)
        if Command.CLEAR_FAULTS in rose:
            self._clear()
        if Command.RESULTS_ACK in rose:
            self._result = None
        if Command.TRIGGER not in rose:
            return False
        self.edges += 1
        if not ready:
            self._refuse()
            return False
        self._accept(Order(at, inputs.part, inputs.lot))
        return True

    def _accept(self, order: Order) -> None:
        self.accepted += 1
        self._order, self._answerable = order, True
        self._cut = False

    def _refuse(self) -> None:
        self._miss()
        if self._result is not None:
            self._overrun()

    def _miss(self) -> None:
        self.missed += 1
        self._latched |= Status.MISSED_ACQUISITION

    def _overrun(self) -> None:
        self.overruns += 1
        self._latched |= Status.RESULTS_OVERRUN
        self._result = None

    def _clear(self) -> None:
        self._latched = Status(0)
        self._cut = False

    # -- what the loop does -----------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Whether an accepted trigger was not taken yet."""
        return self._order is not None

    @property
    def answerable(self) -> bool:
        """Whether the result of the part in hand may still be offered."""
        return self._answerable

    def take(self) -> Order | None:
        """The loop is ready for the next part: the accepted one, if there is one."""
        self._listening, self._inspecting = True, False
        self._stopped = False
        order, self._order = self._order, None
        self._inspecting = order is not None
        return order

    def begin(self) -> bool:
        """A part that another trigger asked for. False when its result cannot be offered."""
        if self._result is not None:
            self._overrun()
        self._stopped = False
        self._cut = False
        self._inspecting, self._answerable = True, self.linked
        return self.linked

    def answer(self, result: Result) -> bool:
        """The part in hand was judged. False when nobody may hear it: the line stays at NG."""
        offered = self._inspecting and self._answerable
        self._inspecting = False
        if not offered:
            return False
        self._answerable = False
        self._result = self._last = result
        self.results += 1
        return True

    def withdraw(self) -> None:
        """What was offered did not get through in time: it does not stand."""
        if self._result is not None:
            self._result, self._cut = None, True

    def safe(self) -> None:
        """Nobody inspects. A trigger that was accepted and not taken was missed after all."""
        if self._order is not None:
            self._order = None
            self.accepted -= 1
            self._miss()
        self._listening = self._inspecting = self._answerable = False
        self._result, self._stopped = None, True

    def take_missed(self) -> int:
        """Triggers missed since the last call."""
        missed, self._taken_missed = self.missed - self._taken_missed, self.missed
        return missed

    # -- what is said to the controller -----------------------------------------------------------------------------

    def beat(self, now: float) -> None:
        """It is ``now``: count the heartbeat on when half a second has passed."""
        if now >= self._next_beat:
            self._heartbeat = (self._heartbeat + 1) & MAX_COUNT
            self._next_beat = now + BEAT_SECONDS

    @property
    def outputs(self) -> Outputs:
        """All of it."""
        return Outputs(self._status(), self._data(), self._heartbeat)

    @property
    def _busy(self) -> bool:
        return self._order is not None or self._inspecting

    @property
    def _fault(self) -> Code:
        if self._stopped:
            return Code.STOPPED
        return Code.LINK_LOST if self._cut else Code.NONE

    @property
    def _ready(self) -> bool:
        low = self._levels is not None and not self._levels.command & (Command.TRIGGER | Command.RESULTS_ACK)
        return self.linked and self._listening and low and not self._busy and self._result is None

    def _status(self) -> Status:
        shown = self._result or Result()
        bits = {
            Status.TRIGGER_READY: self._ready,
            Status.BUSY: self._busy,
            Status.RESULTS_READY: self._result is not None,
            Status.OK: shown.ok,
            Status.NG: not shown.ok,
            Status.INCONCLUSIVE: shown.inconclusive,
            Status.ERROR: shown.is_error or self._fault is not Code.NONE,
            Status.JUDGING: self._last.judging and not self._stopped,
        }
        return self._latched | Status(sum(bit for bit, up in bits.items() if up))

    def _data(self) -> Data:
        last = self._last
        return Data(
            error_code=last.code if self._fault is Code.NONE else self._fault,
            result_number=self.results & MAX_COUNT,
            inspection_ms=min(max(last.inspection_ms, 0), MAX_COUNT),
            missed_count=self.missed & MAX_COUNT,
            part_id_echo=last.part,
            defect_class=last.defect_class,
        )
