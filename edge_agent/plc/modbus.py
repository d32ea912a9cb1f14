"""Modbus TCP through pymodbus: the extra ``plc``. Function codes 3 and 16, nothing else.

Invariant: one request, one answer, no retries; a connection that broke is not mended here.
"""

import logging
import socket
from collections.abc import Callable, Sequence

from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ExceptionResponse, ModbusPDU

from edge_agent.errors import DeviceError, UsageError
from edge_agent.plc.registers import (
    COMMAND_REGISTERS,
    DATA_OFFSET,
    HEARTBEAT_OFFSET,
    RESULT_REGISTERS,
    STATUS_OFFSET,
    Data,
    Inputs,
    Status,
    decode,
    encode,
)
from edge_agent.wiring import Modbus

_ALL_REGISTERS = 65_536
_EXCEPTIONS = {
    1: "function code not supported",
    2: "no such register",
    3: "value not allowed",
    4: "device failure",
    6: "device busy",
    10: "gateway has no path",
    11: "gateway got no answer",
}


def check(settings: Modbus) -> None:
    """UsageError when the two blocks overlap or go beyond the last register."""
    ends = (settings.command_address + COMMAND_REGISTERS, settings.result_address + RESULT_REGISTERS)
    overlap = settings.command_address < ends[1] and settings.result_address < ends[0]
    if overlap or max(ends) > _ALL_REGISTERS:
        raise UsageError(
            f"modbus: the command block takes {COMMAND_REGISTERS} registers from {settings.command_address}, the result "
            f"block {RESULT_REGISTERS} from {settings.result_address}; they must not overlap, nor end after 65535"
        )


class ModbusLink:
    """A `Link` over Modbus TCP."""

    def __init__(self, settings: Modbus) -> None:
        """Connect. DeviceError when nobody answers there."""
        self._settings = settings
        self._name = f"PLC {settings.host}:{settings.port}"
        # Whatever it would say is in our errors; its own lines would come again with each try.
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
        self._client = ModbusTcpClient(settings.host, port=settings.port, timeout=settings.timeout_seconds, retries=0)
        self._client.socket = self._connected()  # its own `connect` does not say why it failed

    def _connected(self) -> socket.socket:
        where, patience = (self._settings.host, self._settings.port), self._settings.timeout_seconds
        try:
            made = socket.create_connection(where, timeout=patience)
        except OSError as error:
            raise DeviceError(f"{self._name} cannot be reached ({error}); check its power, cable and address") from error
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def read(self) -> Inputs:
        """See the port."""
        return decode(self._read(self._settings.command_address, COMMAND_REGISTERS))

    def read_status(self) -> int:
        """See the port."""
        return self._read(self._settings.result_address + STATUS_OFFSET, 1)[0]

    def write_status(self, status: Status) -> None:
        """See the port."""
        self._write(STATUS_OFFSET, [int(status)])

    def write_data(self, data: Data) -> None:
        """See the port."""
        self._write(DATA_OFFSET, encode(data))

    def write_heartbeat(self, count: int) -> None:
        """See the port."""
        self._write(HEARTBEAT_OFFSET, [count])

    def close(self) -> None:
        """See the port."""
        self._client.close()  # type: ignore[no-untyped-call]  # pymodbus leaves it without types

    def _read(self, first: int, count: int) -> list[int]:
        answer = self._ask(
            f"reading {count} registers from {first}",
            lambda: self._client.read_holding_registers(first, count=count, device_id=self._settings.unit),
        )
        if len(answer.registers) != count:
            raise DeviceError(f"{self._name} answered with {len(answer.registers)} of {count} registers")
        return list(answer.registers)

    def _write(self, offset: int, registers: Sequence[int]) -> None:
        first, unit = self._settings.result_address + offset, self._settings.unit
        self._ask(
            f"writing {len(registers)} registers from {first}",
            lambda: self._client.write_registers(first, registers, device_id=unit),
        )

    def _ask(self, what: str, request: Callable[[], ModbusPDU]) -> ModbusPDU:
        if self._client.socket is None:  # or the library would connect again, and the handshake would not know
            raise DeviceError(f"{self._name} closed the connection")
        try:
            answer = request()
        except (ModbusException, OSError) as error:
            raise DeviceError(f"{self._name}: {what}: {error}") from error
        if isinstance(answer, ExceptionResponse):
            reason = _EXCEPTIONS.get(answer.exception_code, f"exception {answer.exception_code}")
            raise DeviceError(f"{self._name} refused {what}: {reason}; see the register map, and the addresses set here")
        return answer
