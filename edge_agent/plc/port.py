"""The wire port: one connection to a controller.

Promises of every back end: each call ends within about the time-out it was made with, or raises DeviceError; after a
DeviceError the connection is never used again, only closed; none connects again by itself, since the handshake begins
anew with each connection; all calls come from one thread.
"""

from typing import Protocol

from edge_agent.plc.registers import Data, Inputs, Status


class Link(Protocol):
    """An open connection. DeviceError from every call but `close` when the other side is gone, silent or says no."""

    def read(self) -> Inputs:
        """The command block as it stands now."""

    def read_status(self) -> int:
        """The status word as it stands there now."""

    def write_status(self, status: Status) -> None:
        """The status word, at once."""

    def write_data(self, data: Data) -> None:
        """Everything that goes with a status; whoever calls sees to the order."""

    def write_heartbeat(self, count: int) -> None:
        """The heartbeat register."""

    def close(self) -> None:
        """Let go of the connection; may be called twice."""
