"""Controllers: real servers (Modbus TCP by pymodbus, OPC UA by asyncua) in threads, and the program in them that does the
handshake. What a bit or a register means is written here by its number, as a controller's programmer reads it in
REGISTERS.md, and not taken from the agent's code.

Invariant of the Modbus one: at every write it looks whether the result block says something it never may (`wrong`).
"""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

TRIGGER, ACK, CLEAR = 1, 2, 4
TRIGGER_READY, BUSY, RESULTS_READY, OK, NG = 1, 2, 4, 8, 16
INCONCLUSIVE, ERROR, MISSED, OVERRUN, JUDGING = 32, 64, 128, 256, 512
LINK_LOST, NOT_JUDGING, STOPPED = 100, 101, 102

# name: (address, registers); texts have more than one
PLACES = {
    "command": (0, 1),
    "part_id": (1, 16),
    "lot": (17, 16),
    "status": (100, 1),
    "heartbeat": (101, 1),
    "error_code": (102, 1),
    "result_number": (103, 1),
    "inspection_ms": (104, 1),
    "missed_count": (105, 1),
    "part_id_echo": (106, 16),
    "defect_class": (122, 16),
}
FIRST_RESULT, FIRST_DATA, REGISTERS = 100, 102, 138
PATIENCE_SECONDS = 60.0  # of a program that waits; a machine that is busy with something else is no fault


class Controller(Protocol):
    """A server with the registers of the map, by their names."""

    def start(self) -> None:
        """Serve, on the same port as before, with what the registers held."""

    def stop(self) -> None:
        """Cut all connections, and answer none."""

    def get(self, name: str) -> Any:
        """The number or the text that stands there."""

    def put(self, name: str, value: int | str) -> None:
        """Write it, as the controller's own program does."""


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class _Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self.loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.loop.run_forever()
        self._runner.close()

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run it there; its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_SECONDS)

    def end(self) -> None:
        """End the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()


async def _refuse_newcomers(server: Any) -> None:
    """Before a server is closed: asyncio forgets a connection that comes just then, and never closes it."""
    for listening in server.sockets:
        asyncio.get_running_loop().remove_reader(listening.fileno())
    await asyncio.sleep(0.01)


class ModbusController:
    """Holding registers over Modbus TCP, unit 1. ``silent`` keeps every answer back; ``refuse`` answers with exceptions."""

    def __init__(self) -> None:
        self.port = free_port()
        self.memory = [0] * REGISTERS
        self.wrong: list[str] = []
        self.silent = False
        self.refuse = False
        self._server: Any = None
        self._running: _Loop | None = None

    def start(self) -> None:
        """See the protocol."""
        from pymodbus.server import ModbusTcpServer
        from pymodbus.simulator import DataType, SimData, SimDevice

        device = SimDevice(1, SimData(0, count=REGISTERS, datatype=DataType.REGISTERS), action=self._asked)

        async def serve() -> Any:
            server = ModbusTcpServer(device, address=("127.0.0.1", self.port))
            await server.serve_forever(background=True)
            return server

        self._running = _Loop()
        self._server = self._running.do(serve())

    def stop(self) -> None:
        """See the protocol."""
        if self._running is None:
            return
        self.silent = False

        async def end() -> None:
            await _refuse_newcomers(self._server.transport)
            await self._server.shutdown()
            await asyncio.sleep(0.01)  # a transport closes in the round after it was told to

        self._running.do(end())
        self._running.end()
        self._running = None

    async def _asked(
        self, code: int, start: int, address: int, count: int, registers: list[int], values: list[int] | list[bool] | None
    ) -> Any:
        from pymodbus.constants import ExcCodes

        while self.silent:
            await asyncio.sleep(0.005)
        if self.refuse:
            return ExcCodes.DEVICE_FAILURE
        if values is None:
            registers[address - start : address - start + count] = self.memory[address : address + count]
        else:
            self._written(address, list(values))
        return None

    def _written(self, address: int, values: list[int]) -> None:
        before = self.memory[100]
        self.memory[address : address + len(values)] = values
        status = self.memory[100]
        if bool(status & OK) == bool(status & NG):
            self.wrong.append(f"OK and NG are both {bool(status & OK)}")
        if status & OK and not status & RESULTS_READY:
            self.wrong.append("OK without results ready")
        if address + len(values) > FIRST_DATA and before & (RESULTS_READY | OK | TRIGGER_READY):
            self.wrong.append(f"data were written under the status {before:#b}")
        if address < FIRST_RESULT:
            self.wrong.append("the agent wrote into the command block")

    def get(self, name: str) -> Any:
        """See the protocol."""
        address, count = PLACES[name]
        found = self.memory[address : address + count]
        if count == 1:
            return found[0]
        return b"".join(value.to_bytes(2, "big") for value in found).partition(b"\0")[0].decode("latin-1")

    def put(self, name: str, value: int | str) -> None:
        """See the protocol."""
        address, count = PLACES[name]
        if isinstance(value, int):
            self.memory[address] = value
            return
        data = value.encode("latin-1").ljust(2 * count, b"\0")
        self.memory[address : address + count] = [data[i] << 8 | data[i + 1] for i in range(0, 2 * count, 2)]


class OpcUaController:
    """One node a register over OPC UA, in namespace 2 under ``Inspection.``; under ``Wrong.`` the status is Boolean and the
    heartbeat Int32. ``user`` with a password: who alone may come in. `start` and `stop` open and shut its port only, since
    a server of its own takes seconds; `end` ends it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.user: tuple[str, str] | None = None
        self._running = _Loop()
        self._open = False
        self._nodes: dict[str, Any] = {}
        self._server = self._running.do(self._make())
        self._running.do(self._server.bserver.stop())

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"opc.tcp://127.0.0.1:{self.port}"

    async def _make(self) -> Any:
        from asyncua import ua
        from asyncua.server.server import Server

        server = Server(user_manager=self)  # type: ignore[arg-type]  # it asks `get_user` and nothing else
        await server.init()
        server.set_endpoint(self.url)
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        space = await server.register_namespace("urn:line")
        for name, (_, count) in PLACES.items():
            kind = ua.VariantType.UInt16 if count == 1 else ua.VariantType.String
            self._nodes[name] = await self._add(server, f"Inspection.{name}", space, 0 if count == 1 else "", kind)
            wrong = {"status": ua.VariantType.Boolean, "heartbeat": ua.VariantType.Int32}.get(name, kind)
            await self._add(server, f"Wrong.{name}", space, 0 if count == 1 else "", wrong)
        await server.start()
        return server

    async def _add(self, server: Any, name: str, space: int, value: int | str, kind: Any) -> Any:
        node = await server.nodes.objects.add_variable(f"ns={space};s={name}", f"{space}:{name}", value, kind)
        await node.set_writable()
        return node

    def start(self) -> None:
        """See the protocol."""
        if not self._open:
            self._open = True
            self._running.do(self._server.bserver.start())

    def stop(self) -> None:
        """See the protocol."""
        if self._open:
            self._open = False
            self._running.do(self._shut())

    async def _shut(self) -> None:
        await _refuse_newcomers(self._server.bserver._server)
        await self._server.bserver.stop()

    def reset(self) -> None:
        """As new."""
        self.user = None
        for name, (_, count) in PLACES.items():
            self.put(name, 0 if count == 1 else "")

    def end(self) -> None:
        """End the server."""
        self.stop()
        self._running.do(self._server.iserver.stop())
        self._running.end()

    def get(self, name: str) -> Any:
        """See the protocol."""
        return self._running.do(self._nodes[name].read_value())

    def put(self, name: str, value: int | str) -> None:
        """See the protocol."""
        self._running.do(self._write(name, value))

    async def _write(self, name: str, value: int | str) -> None:
        from asyncua import ua

        kind = ua.VariantType.UInt16 if isinstance(value, int) else ua.VariantType.String
        await self._nodes[name].write_value(value, kind)

    def get_user(self, _: Any, username: Any = None, password: Any = None, certificate: Any = None) -> Any:
        """asyncua asks for each session; None keeps out."""
        from asyncua.crypto.permission_rules import User, UserRole

        given = password.decode() if isinstance(password, bytes) else password
        return User(role=UserRole.User) if self.user in (None, (username, given)) else None


@contextmanager
def deaf_server() -> Iterator[int]:
    """A port on which connections are taken and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield int(taken.getsockname()[1])


@dataclass(frozen=True)
class Seen:
    """What the controller read while a result was ready."""

    part: str
    status: int
    error_code: int
    number: int
    echo: str
    defect_class: str
    inspection_ms: int


@dataclass
class Program:
    """The program in a controller that does the handshake, step by step as REGISTERS.md describes it."""

    plc: Controller
    seen: list[Seen] = field(default_factory=list)
    scan_seconds: float = 0.001

    def up(self, bits: int) -> bool:
        """Whether all of these status bits are up."""
        return bool(self.plc.get("status") & bits == bits)

    def down(self, bits: int) -> bool:
        """Whether all of these status bits are down."""
        return not self.plc.get("status") & bits

    def wait(self, what: Callable[[], bool], words: str = "") -> None:
        """Scan until it is so."""
        until = time.monotonic() + PATIENCE_SECONDS
        while not what():
            assert time.monotonic() < until, f"in vain: {words}; status {self.plc.get('status'):#b}"
            time.sleep(self.scan_seconds)

    def trigger(self, part: str, lot: str = "") -> None:
        """When the agent is ready: name the part, raise the trigger, see that it was taken."""
        self.wait(lambda: self.up(TRIGGER_READY), "trigger ready")
        self.plc.put("part_id", part)
        self.plc.put("lot", lot)
        self.plc.put("command", TRIGGER)
        self.wait(lambda: self.down(TRIGGER_READY), "trigger taken")

    def read(self, part: str) -> Seen:
        """Wait for the result and read it."""
        self.wait(lambda: self.up(RESULTS_READY), f"result of {part}")
        get = self.plc.get
        found = Seen(
            part,
            get("status"),
            get("error_code"),
            get("result_number"),
            get("part_id_echo"),
            get("defect_class"),
            get("inspection_ms"),
        )
        self.seen.append(found)
        return found

    def acknowledge(self) -> None:
        """Ack up and trigger down; when results ready has fallen, ack down."""
        self.plc.put("command", ACK)
        self.wait(lambda: self.down(RESULTS_READY), "results ready down")
        self.plc.put("command", 0)

    def inspect(self, part: str, lot: str = "") -> Seen:
        """One part from trigger to acknowledgement."""
        self.trigger(part, lot)
        found = self.read(part)
        self.acknowledge()
        return found
