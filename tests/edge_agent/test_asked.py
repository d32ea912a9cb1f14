"""Who asks for an inspection gets the answer to exactly that, or hears at once that there is none; nothing is uncounted."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_agent.agent import Agent
from edge_agent.camera import Frame
from edge_agent.errors import DeviceError
from edge_agent.runtime import OnnxRuntime
from edge_agent.signals import Signal
from edge_agent.trigger import Trigger
from edge_agent.trigger.asked import MAX_NAME_CHARACTERS, Asked, BusyError, StoppingError, UnfitNameError, fit_name
from edge_agent.wires import Wires
from inspection.contracts import Decision, Ledger, Verdict
from tests.edge_agent.helpers import FakeHub, bundle, config, picture
from tests.edge_agent.test_camera import Silent
from tests.edge_agent.test_journal import verdict
from tests.edge_agent.test_loop import Onlooker

PATIENCE_SECONDS = 60.0


class Looking(Silent):
    """A camera that is always ready: it says when it is asked for a frame, and gives it when it may."""

    def __init__(self, image: Any = None) -> None:
        super().__init__([])
        self.image = picture(1) if image is None else image
        self.asked, self.may = threading.Semaphore(0), threading.Event()
        self.may.set()

    def next(self, timeout_seconds: float, *, since: float | None = None) -> Frame | None:
        """The same good part."""
        self.asked.release()
        assert self.may.wait(PATIENCE_SECONDS)
        return Frame(self.image, "unnamed")


class Station:
    """A whole agent that runs in a thread, from when `started` is set until `stop`."""

    def __init__(self, state: Path, hub: FakeHub, camera: Silent, trigger: Trigger, signal: Signal) -> None:
        self.started, self.stop = threading.Event(), threading.Event()
        self.agent = Agent(state, config(hub.authority.root), "boot", hub)
        self._parts = (camera, Wires(trigger, signal), OnnxRuntime, self.stop)
        self._pool = ThreadPoolExecutor(1)
        self._run: Future[int] | None = None

    def start(self) -> None:
        """Begin, and wait until the loop goes round."""
        watchers = [Onlooker(self.started.set)]
        self._run = self._pool.submit(self.agent.run, *self._parts, max_triggers=None, watchers=watchers)
        self._run.add_done_callback(lambda _: self.started.set())
        assert self.started.wait(PATIENCE_SECONDS)

    def end(self) -> int:
        """End the loop, and wait for it; raises what ended it."""
        self.stop.set()
        assert self._run is not None
        return self._run.result(PATIENCE_SECONDS)

    def ledger(self) -> Ledger:
        """What is on the disk."""
        return self.agent.journal.ledger()

    def close(self) -> None:
        """Whatever state it is in."""
        self.stop.set()
        self._pool.shutdown()
        self.agent.close()


@contextmanager
def station(state: Path, hub: FakeHub, camera: Silent, trigger: Trigger, signal: Signal) -> Iterator[Station]:
    """An agent with a bundle, not started yet; ended with the block."""
    hub.assign(1, bundle())
    made = Station(state, hub, camera, trigger, signal)
    try:
        yield made
    finally:
        made.close()


def going_round() -> Asked:
    """One whose loop asked for the next part once."""
    asked = Asked()
    assert asked.next() is None
    return asked


def at_once(number: int, ask: Callable[[int], "Future[Verdict]"]) -> tuple[list["Future[Verdict]"], int]:
    """So many threads ask at the same moment: the answers to come, and how many were turned away as busy."""
    barrier = threading.Barrier(number)

    def one(index: int) -> "Future[Verdict] | None":
        barrier.wait(PATIENCE_SECONDS)
        try:
            return ask(index)
        except BusyError:
            return None

    with ThreadPoolExecutor(number) as pool:
        found = list(pool.map(one, range(number)))
    taken = [answer for answer in found if answer is not None]
    return taken, number - len(taken)


def test_of_a_hundred_who_ask_at_once_one_is_served_and_the_rest_is_missed(tmp_path: Path, hub: FakeHub) -> None:
    """For every inspection exactly one, the others counted once each, and the ledger closes over both."""
    camera, asked, busy = Looking(), Asked(), 0
    with station(tmp_path, hub, camera, asked, asked) as running:
        running.start()
        for turn in range(4):
            camera.may.clear()
            taken, turned_away = at_once(100, lambda index, turn=turn: asked.ask(f"p{turn}-{index}"))
            busy += turned_away
            assert len(taken) == 1
            camera.may.set()
            assert taken[0].result(PATIENCE_SECONDS).decision is Decision.OK
        assert running.end() == 4
        found = running.ledger()
    assert (found.ok, found.missed + asked.take_missed()) == (4, busy)
    assert busy == 4 * 99
    assert found.closes


def test_each_answer_goes_to_who_asked_for_it(tmp_path: Path, hub: FakeHub) -> None:
    """Twenty who ask all the time: everybody gets the verdict on the part of theirs, or hears that it was missed."""
    asked, answered, busy, lock = Asked(), 0, 0, threading.Lock()

    def customer(number: int) -> None:
        nonlocal answered, busy
        for turn in range(30):
            part = f"{number}-{turn}"
            try:
                found = asked.ask(part, f"lot{number}").result(PATIENCE_SECONDS)
            except BusyError:
                with lock:
                    busy += 1
            else:
                assert (found.part, found.lot) == (part, f"lot{number}")
                with lock:
                    answered += 1

    with station(tmp_path, hub, Looking(), asked, asked) as running:
        running.start()
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(customer, range(20)))
        assert running.end() == answered
        found = running.ledger()
    assert answered > 0
    assert answered + busy == 600
    assert (found.ok, found.missed + asked.take_missed()) == (answered, busy)
    assert found.closes


def test_who_asks_before_the_loop_goes_round_is_missed_and_counted(tmp_path: Path, hub: FakeHub) -> None:
    """The part would have gone by when the station is ready; `safe("starting")` turns nobody away for ever."""
    asked = Asked()
    asked.safe("starting")
    with pytest.raises(BusyError, match="starting"):
        asked.ask("early")
    with station(tmp_path, hub, Looking(), asked, asked) as running:
        running.start()
        assert asked.ask("in time").result(PATIENCE_SECONDS).part == "in time"
        running.end()
        assert (running.ledger().missed, running.ledger().ok, running.ledger().closes) == (1, 1, True)


def test_a_stop_answers_who_waits_and_turns_away_who_comes(tmp_path: Path, hub: FakeHub) -> None:
    """A part in the works is judged; after it nobody waits for an agent that has gone."""
    camera, asked = Looking(), Asked()
    with station(tmp_path, hub, camera, asked, asked) as running:
        running.start()
        while camera.asked.acquire(blocking=False):
            pass
        camera.may.clear()
        answer = asked.ask("last")
        assert camera.asked.acquire(timeout=PATIENCE_SECONDS)
        running.stop.set()
        camera.may.set()
        assert answer.result(PATIENCE_SECONDS).part == "last"
        running.end()
        with pytest.raises(StoppingError):
            asked.ask("too late")


def test_an_agent_that_ends_by_an_error_leaves_nobody_waiting(tmp_path: Path, hub: FakeHub) -> None:
    """The journal fails under a part that was asked for: an error for who asked, not silence."""
    camera, asked = Looking(), Asked()
    with station(tmp_path, hub, camera, asked, asked) as running:
        running.start()
        camera.may.clear()
        answer = asked.ask("doomed")

        def full(*_: object, **__: object) -> None:
            raise DeviceError("disk is full")

        running.agent.journal.record = full  # type: ignore[method-assign]  # a disk that fails under this very part
        camera.may.set()
        with pytest.raises(StoppingError, match="not inspected: stopped"):
            answer.result(PATIENCE_SECONDS)
        with pytest.raises(DeviceError):
            running.end()


def test_what_was_asked_and_never_taken_is_missed_when_the_agent_stops() -> None:
    """Between the loop's last look and its end: an error for who asked, one more for the ledger, and no more after it."""
    asked = going_round()
    answer = asked.ask("between")
    asked.safe("stopped")
    assert isinstance(answer.exception(0), StoppingError)
    with pytest.raises(StoppingError):
        asked.ask("after")
    asked.miss()
    assert asked.take_missed() == 1
    assert asked.next() is None


def test_what_is_in_the_works_when_the_agent_stops_is_not_counted_as_missed() -> None:
    """Its row is there, or no trigger was counted for it."""
    asked = going_round()
    answer = asked.ask("taken")
    assert asked.next() is not None
    asked.safe("stopped")
    assert isinstance(answer.exception(0), StoppingError)
    assert asked.take_missed() == 0


def test_trouble_in_the_middle_is_no_end() -> None:
    """`safe` while the loop goes on: who waited hears it, and the next part is taken."""
    asked = going_round()
    asked.ask("hit")
    assert asked.next() is not None
    asked.safe("trouble")
    asked.tell(verdict(1))
    assert asked.next() is None
    answer = asked.ask("next")
    assert asked.next() is not None
    asked.tell(verdict(2))
    assert answer.result(0) == verdict(2)


def test_after_close_nobody_is_served_and_closing_twice_does_nothing() -> None:
    """Also when the loop never began, and also when it goes round once more."""
    for asked in (Asked(), going_round()):
        asked.close()
        asked.close()
        with pytest.raises(StoppingError):
            asked.ask()
        assert asked.next() is None
        with pytest.raises(StoppingError):
            asked.ask()
        assert asked.take_missed() == 0


def test_an_asker_who_went_away_does_not_stop_the_loop() -> None:
    """The future cannot be cancelled; a web server's connection that closed with its event loop is nothing to the loop."""
    asked = going_round()
    answer = asked.ask("a")
    assert answer.cancel() is False

    async def hang_up() -> None:
        waiting = asyncio.ensure_future(asyncio.wrap_future(answer))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(hang_up())
    assert asked.next() is not None
    asked.tell(verdict(1))
    asked.tell(verdict(2))  # nobody asked: nobody hears it
    assert answer.result(0) == verdict(1)
    assert asked.ask("b") is not answer


def test_an_asker_whose_callback_fails_does_not_stop_the_loop() -> None:
    """Its error is its own."""
    asked = going_round()

    def fail(_: "Future[Verdict]") -> None:
        raise RuntimeError("a page that is broken")

    asked.ask("a").add_done_callback(fail)
    assert asked.next() is not None
    asked.tell(verdict(1))
    asked.ask("b")  # taken on: the loop is ready for it


@pytest.mark.parametrize(
    "name", ["x" * (MAX_NAME_CHARACTERS + 1), "a\nb", "a\0", "\ud800", "\x1b[31m", "\u202e17-A"], ids=ascii
)
def test_a_name_that_no_verdict_can_hold_is_refused_and_counted(name: str) -> None:
    """Nobody is inspected under another name, no row is broken, and the part is missed."""
    asked = going_round()
    for part, lot in ((name, None), (None, name)):
        with pytest.raises(UnfitNameError, match="name"):
            asked.ask(part, lot)
    assert asked.take_missed() == 2
    assert asked.next() is None


def test_a_blank_name_is_none_and_a_plain_one_stays_as_it_is() -> None:
    """Controllers send blanks for no name; spaces in a name are kept."""
    assert [fit_name(name) for name in (None, "", "   ")] == [None, None, None]
    assert [fit_name(name) for name in ("A 17/β-漢字", " x", "y" * MAX_NAME_CHARACTERS)] == [
        "A 17/β-漢字",
        " x",
        "y" * MAX_NAME_CHARACTERS,
    ]
