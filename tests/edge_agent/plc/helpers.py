"""What the tests of the handshake share: parts, verdicts, a line to a controller, a whole station on it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from edge_agent.agent import Agent
from edge_agent.camera import Frame
from edge_agent.inspecting import Active, Identity, inspect
from edge_agent.plc.line import PlcLine, modbus_line, opcua_line
from edge_agent.runtime import Inference, OnnxRuntime
from edge_agent.trigger import Request, Trigger
from edge_agent.wires import Wires
from edge_agent.wiring import Modbus, OpcUa
from inspection.contracts import Decision, Manifest, Mode, Verdict
from tests.edge_agent.helpers import picture
from tests.edge_agent.plc_servers import PATIENCE_SECONDS, Controller, ModbusController, OpcUaController
from tests.edge_agent.test_loop import Paced, Rig


def frames(count: int) -> list[Frame]:
    """Good, bad, doubtful and torn, one after the other."""
    of_kind = [
        Frame(picture(1), "camera's name"),
        Frame(picture(2, scratch=255), "camera's name"),
        Frame(picture(3, scratch=181), "camera's name"),
        Frame(None, "camera's name", fault="torn.png: damaged"),
    ]
    return [of_kind[number % 4] for number in range(count)]


def good(count: int) -> list[Frame]:
    """Good parts."""
    return [Frame(picture(1), "camera's name")] * count


def verdict(part: str = "A", decision: Decision = Decision.OK, **changes: Any) -> Verdict:
    """A verdict about a part."""
    blank = inspect(Frame(picture(), part), Active(None, Mode.JUDGE), Identity("d", "s", "p", "b"), 1).verdict
    return blank.model_copy(update={"decision": decision, "error_code": None} | changes)


@contextmanager
def wired(plc: Controller, *, timeout_seconds: float = 5.0) -> Iterator[PlcLine]:
    """A line to it."""
    if isinstance(plc, ModbusController):
        made = modbus_line(Modbus(host="127.0.0.1", port=plc.port, poll_seconds=0.002, timeout_seconds=timeout_seconds))
    else:
        assert isinstance(plc, OpcUaController)
        made = opcua_line(OpcUa(url=plc.url, poll_seconds=0.002, timeout_seconds=timeout_seconds))
    try:
        yield made
    finally:
        made.close()


def wait(what: Callable[[], Any], words: str) -> None:
    """Until it is so."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < until, f"in vain: {words}"
        time.sleep(0.002)


def request_of(line: PlcLine) -> Request:
    """The next request, whenever it comes."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        if (request := line.next()) is not None:
            return request
    raise AssertionError("no trigger came")


def asked_again(line: PlcLine) -> None:
    """Until what stands in the controller now was surely read."""
    before = int(line.health()["exchanges"] or 0)
    wait(lambda: int(line.health()["exchanges"] or 0) >= before + 2, "the controller is asked")


def connected(line: PlcLine) -> bool:
    """Whether it says so."""
    return bool(line.health()["connected"])


class Gate:
    """Holds inferences up: `hold`, then `inside` says that one waits, and `go` lets it through."""

    def __init__(self) -> None:
        self.go, self.inside = threading.Event(), threading.Event()
        self.go.set()

    def hold(self) -> None:
        """From the next inference on."""
        self.go.clear()
        self.inside.clear()

    def make(self, model: bytes, manifest: Manifest) -> "Gate.Runtime":
        """A runtime behind this gate."""
        return Gate.Runtime(OnnxRuntime(model, manifest), self)

    class Runtime:
        """The runtime port."""

        def __init__(self, inner: OnnxRuntime, gate: "Gate") -> None:
            self._inner, self._gate = inner, gate

        def infer(self, batch: Any) -> Inference:
            """When the gate is open."""
            self._gate.inside.set()
            assert self._gate.go.wait(PATIENCE_SECONDS)
            return self._inner.infer(batch)


class Station:
    """A whole agent whose trigger and signal is a line."""

    def __init__(self, rig: Rig, line: PlcLine, shown: list[Frame], trigger: Trigger | None = None) -> None:
        self.gate, self.stop = Gate(), threading.Event()
        self._rig, self._line = rig, line
        self._camera, self._trigger = Paced(shown, 0.0), trigger or line
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        agent = Agent(self._rig.state, self._rig.config, "boot", self._rig.hub)
        try:
            agent.run(self._camera, Wires(self._trigger, self._line), self.gate.make, self.stop, max_triggers=None)
        finally:
            agent.close()

    def __enter__(self) -> "Station":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.gate.go.set()
        self._thread.join()
