"""Any sequence of events: an onlooker who only knows the events knows what must be up."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.plc.handshake import Handshake, Result
from edge_agent.plc.registers import Command, Inputs, Status

READS = st.tuples(st.just("read"), st.integers(0, 7))
EVENTS = st.one_of(
    READS,
    READS,
    st.tuples(st.just("connect"), st.integers(0, 7)),
    st.tuples(st.sampled_from(["take", "take", "lost", "safe", "begin", "withdraw", "missed"]), st.just(0)),
    st.tuples(st.just("answer"), st.booleans()),
)


@dataclass
class Believer:
    """What an onlooker of the events knows must be so."""

    line: Handshake = field(default_factory=Handshake)
    levels: int | None = None
    was_low: bool = False  # the trigger, when the line was last lost
    edges: int = 0
    asked: list[int] = field(default_factory=list)  # the numbers of the parts accepted, until they are taken
    hand: int | None = None  # the number of the part the loop has
    alive: set[int] = field(default_factory=set)  # parts that may still be answered
    standing: tuple[int, bool] | None = None  # whose result may be read, and whether it is OK
    missed: int = 0
    parts: int = 0

    def do(self, event: str, value: int) -> None:
        """One event, and what it must do."""
        getattr(self, f"_{event}")(value)
        self._check()

    def _connect(self, value: int) -> None:
        if not self.line.linked:
            self.line.connect(Inputs(Command(value)))
            self.levels = value
            if value & Command.TRIGGER and self.was_low:  # it rose while nobody looked
                self.edges += 1
                assert Status.MISSED_ACQUISITION in self.line.outputs.status

    def _read(self, value: int) -> None:
        if self.levels is None:
            return
        rose, ready = value & ~self.levels, Status.TRIGGER_READY in self.line.outputs.status
        self.levels = value
        if rose & Command.RESULTS_ACK:
            self.standing = None
        accepted = self.line.step(Inputs(Command(value), f"p{self.parts + 1}"), 0.0)
        assert accepted == bool(rose & Command.TRIGGER and ready)
        self.edges += bool(rose & Command.TRIGGER)
        if accepted:
            self._new_part()
            self.asked.append(self.parts)
        elif rose & Command.TRIGGER:
            assert Status.MISSED_ACQUISITION in self.line.outputs.status
            self.standing = None

    def _new_part(self) -> None:
        self.parts += 1
        self.alive = {self.parts}

    def _take(self, _: int) -> None:
        order = self.line.take()
        assert (order is not None) == bool(self.asked)
        self.hand = self.asked.pop() if order else None
        assert order is None or order.part == f"p{self.hand}"

    def _begin(self, _: int) -> None:
        if self.asked or self.hand is not None:
            return  # the loop has one part at a time
        assert self.line.begin() == (self.levels is not None)
        self.standing = None
        self._new_part()
        self.hand = self.parts
        if self.levels is None:
            self.alive.clear()

    def _answer(self, value: int) -> None:
        offered = self.line.answer(Result(ok=bool(value), part=f"p{self.hand}"))
        assert offered == (self.hand in self.alive)
        if offered:
            self.standing = (self.hand or 0, bool(value))
            self.alive.clear()
        self.hand = None

    def _lost(self, _: int) -> None:
        self.line.lost()
        if self.levels is not None:
            self.was_low = not self.levels & Command.TRIGGER
        self.levels, self.standing = None, None
        self.alive.clear()

    def _safe(self, _: int) -> None:
        self.line.safe()
        self.standing, self.hand = None, None
        self.asked.clear()
        self.alive.clear()

    def _withdraw(self, _: int) -> None:
        self.line.withdraw()
        self.standing = None

    def _missed(self, _: int) -> None:
        self.missed += self.line.take_missed()
        assert self.missed == self.line.missed

    def _check(self) -> None:
        out = self.line.outputs
        up = {bit for bit in Status if bit in out.status}
        assert (Status.OK in up) != (Status.NG in up)
        assert (Status.OK in up) == (self.standing is not None and self.standing[1])
        assert (Status.RESULTS_READY in up) == (self.standing is not None)
        assert self.standing is None or out.data.part_id_echo == f"p{self.standing[0]}"
        assert (Status.BUSY in up) == (bool(self.asked) or self.hand is not None)
        assert not {Status.BUSY, Status.RESULTS_READY} <= up
        assert not {Status.OK, Status.ERROR} <= up
        if Status.TRIGGER_READY in up:
            assert self.levels is not None
            assert not self.levels & (Command.TRIGGER | Command.RESULTS_ACK)
            assert not up & {Status.BUSY, Status.RESULTS_READY}
        assert self.edges == self.line.edges == self.line.accepted + self.line.missed


@settings(max_examples=200)
@given(st.lists(EVENTS, max_size=60))
def test_whatever_happens_an_ok_is_about_its_own_part_and_every_edge_is_counted(events: list[tuple[str, int]]) -> None:
    """OK or NG, never both; OK only while its result waits; ready only when idle; edges = accepted + missed."""
    believer = Believer()
    for event, value in events:
        believer.do(event, value)


LATCHED = Status.MISSED_ACQUISITION | Status.RESULTS_OVERRUN


@given(st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=80))
def test_latched_bits_fall_by_clear_faults_alone(reads: list[tuple[int, bool]]) -> None:
    """Neither the next part nor an ack nor a loss hides that a trigger was missed."""
    line, levels = Handshake(), 0
    line.connect(Inputs())
    for value, lose in reads:
        before = line.outputs.status & LATCHED
        line.step(Inputs(Command(value)), 0.0)
        if line.take() is not None:
            line.answer(Result(ok=True))
        assert before in line.outputs.status or value & ~levels & Command.CLEAR_FAULTS
        levels = value
        if lose:
            before = line.outputs.status & LATCHED
            line.lost()
            line.connect(Inputs(Command(value)))
            assert before in line.outputs.status
