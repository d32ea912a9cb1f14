"""OPC UA through asyncua: the extra ``plc``. One node for each register of the map, named prefix + name.

Invariants: numbers are written in the type the node has, text as String; the status is one word, because a controller
sees one node change at a time; asyncua's event loop runs while a call runs, and only then.
"""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from asyncua import ua
from asyncua.client.client import Client
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.uaerrors import UaError

from edge_agent.errors import DeviceError, UsageError
from edge_agent.plc.registers import (
    COMMAND_BLOCK,
    DATA_BLOCK,
    RESULT_BLOCK,
    Data,
    Inputs,
    Register,
    Status,
    command,
    cut,
    readable,
)
from edge_agent.wiring import OpcUa

T = TypeVar("T")
_STEPS_TO_CONNECT = 6  # hello, channel, session, ...: each may take a time-out
_SESSION_MS = 60_000  # a controller has few sessions: that of an agent which was killed must not stay for an hour
_NEVER_SECONDS = 1e9
_WHOLE_NUMBERS = (
    ua.VariantType.UInt16,
    ua.VariantType.Int32,
    ua.VariantType.UInt32,
    ua.VariantType.Int64,
    ua.VariantType.UInt64,
)  # that hold a register
_TEXTS = (ua.VariantType.String, ua.VariantType.Null)
_ALL = (*COMMAND_BLOCK, *RESULT_BLOCK)


def node_ids(prefix: str) -> dict[str, ua.NodeId]:
    """The node of each register by its name. UsageError when the prefix makes no node id."""
    try:
        return {r.name: ua.NodeId.from_string(prefix + r.name) for r in (*COMMAND_BLOCK, *RESULT_BLOCK)}
    except (UaError, ValueError) as error:
        raise UsageError(f"opcua prefix {prefix!r} makes no node id ({error}); write it like ns=2;s=Inspection.") from error


def checked(settings: OpcUa) -> str:
    """What people call this controller. UsageError when the address or the prefix can never be right."""
    try:
        where = urlsplit(settings.url)
        port = where.port
    except ValueError:
        where, port = urlsplit(""), None
    if where.scheme != "opc.tcp" or not where.hostname or port is None:
        raise UsageError("opcua url is no address; write it like opc.tcp://192.168.0.10:4840, with the port")
    node_ids(settings.prefix)
    return f"PLC {where.hostname}:{port}"


class OpcUaLink:
    """A `Link` over OPC UA."""

    def __init__(self, settings: OpcUa, password: str | None) -> None:
        """Connect and look at all nodes. DeviceError says which are missing or of the wrong type."""
        self._name = checked(settings)
        self._timeout = settings.timeout_seconds
        self._nodes = node_ids(settings.prefix)
        self._types: dict[str, ua.VariantType] = {}
        self._broken = False
        # Whatever it would say is in our errors; its own lines would come again with each try.
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)
        self._client = _client(settings, password)
        self._runner: asyncio.Runner | None = asyncio.Runner()
        try:
            self._run("connecting", self._client.connect(), _STEPS_TO_CONNECT)
            self._types = self._look_around()
        except BaseException:
            self.close()
            raise

    def read(self) -> Inputs:
        """See the port."""
        word, part, lot = (value.Value.Value for value in self._read(COMMAND_BLOCK))
        return Inputs(command(self._number(word, "command")), _text(part), _text(lot))

    def read_status(self) -> int:
        """See the port."""
        return self._number(self._read(RESULT_BLOCK[:1])[0].Value.Value, "status")

    def _number(self, value: object, name: str) -> int:
        if not isinstance(value, int):
            raise DeviceError(f"{self._name}: {self._nodes[name].to_string()} has no value; make it UInt16")
        return value

    def write_status(self, status: Status) -> None:
        """See the port."""
        self._write({"status": int(status)})

    def write_data(self, data: Data) -> None:
        """See the port."""
        numbers = {r.name: int(getattr(data, r.name)) for r in DATA_BLOCK if not r.is_text}
        texts = {r.name: cut(getattr(data, r.name), 2 * r.count) for r in DATA_BLOCK if r.is_text}
        self._write(numbers | texts)

    def write_heartbeat(self, count: int) -> None:
        """See the port."""
        self._write({"heartbeat": count})

    def close(self) -> None:
        """See the port. A connection that works is ended politely; another is dropped."""
        if self._runner is None:
            return
        try:
            if not self._broken:
                self._run("ending", self._client.disconnect())
        except DeviceError as error:
            logging.getLogger(__name__).info("controller heard no goodbye", extra={"reason": str(error)})
        finally:
            runner, self._runner = self._runner, None
            runner.run(self._dropped())
            runner.close()

    async def _dropped(self) -> None:
        self._client.disconnect_socket()
        await asyncio.sleep(0)  # a transport closes in the round after it was told to
        await asyncio.sleep(0)

    def _look_around(self) -> dict[str, ua.VariantType]:
        found = {r.name: v.Value.VariantType for r, v in zip(_ALL, self._read(_ALL), strict=True)}
        wrong = [
            f"{self._nodes[r.name].to_string()} is {found[r.name].name}"
            for r in _ALL
            if found[r.name] not in (_TEXTS if r.is_text else _WHOLE_NUMBERS)
        ]
        if wrong:
            raise DeviceError(f"{self._name}: {'; '.join(wrong)}; make text a String and all others UInt16 (or wider)")
        return found | {register.name: ua.VariantType.String for register in _ALL if register.is_text}

    def _read(self, registers: Sequence[Register]) -> list[Any]:
        nodes = [self._nodes[register.name] for register in registers]
        values = self._run("reading", self._client.uaclient.read_attributes(nodes, AttributeIds.Value))
        self._all_good("reading", [(node, value.StatusCode) for node, value in zip(nodes, values, strict=True)])
        return values

    def _write(self, values: dict[str, int | str]) -> None:
        nodes = [self._nodes[name] for name in values]
        # Without a status and stamps, which many controllers refuse to have written.
        data = [ua.DataValue(ua.Variant(value, self._types[name]), StatusCode=None) for name, value in values.items()]
        results = self._run("writing", self._client.uaclient.write_attributes(nodes, data))
        self._all_good("writing", list(zip(nodes, results, strict=True)))

    def _all_good(self, what: str, statuses: list[tuple[ua.NodeId, ua.StatusCode | None]]) -> None:
        bad = [f"{node.to_string()} ({s.name})" for node, s in statuses if s is not None and not s.is_good()]
        if bad:
            refused = f"{self._name} refused {what} {', '.join(bad)}"
            raise DeviceError(f"{refused}; see the register map, and the prefix set here")

    def _run(self, what: str, work: Coroutine[Any, Any, T], steps: int = 1) -> T:
        assert self._runner is not None  # noqa: S101  # nobody calls after `close`
        try:
            return self._runner.run(asyncio.wait_for(work, self._timeout * steps))
        except Exception as error:  # asyncua raises its own, the system's, and plain ones
            self._broken = True
            words = str(error) or type(error).__name__
            raise DeviceError(f"{self._name}: {what}: {words}; check its power, cable, address and user") from error


def _text(value: object) -> str | None:
    return readable(value) if isinstance(value, str) else None


def _client(settings: OpcUa, password: str | None) -> Client:
    # We ask all the time ourselves: its own watch would only fail when its loop rests.
    client = Client(settings.url, timeout=settings.timeout_seconds, watchdog_intervall=_NEVER_SECONDS)
    client.name = client.description = "Escapement edge agent"
    client.application_uri = "urn:escapement:edge-agent"
    client.session_timeout = _SESSION_MS
    if settings.user is not None:
        client.set_user(settings.user)
        client.set_password(password or "")
    return client
