"""How long a connection may do nothing: uvicorn's own protocol waits for ever for a request's head and for a slow reader.

Invariant: a connection that sends no whole request, or reads none of its answer, is gone after a while, and there are never
more than `MOST_CONNECTIONS`; so nobody who only connects can shut others out or make this process grow.
"""

import asyncio
import socket
import struct

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

MOST_CONNECTIONS = 64
HEAD_SECONDS = 10.0
READER_SECONDS = 10.0
_NO_LINGER = struct.pack("ii", 1, 0)


class Impatient(H11Protocol):
    """uvicorn's protocol with limits on waiting."""

    _head: asyncio.TimerHandle | None = None
    _reader: asyncio.TimerHandle | None = None
    _before: object = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        """Count it, and turn it away when there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        for timer in (self._head, self._reader):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Its reader is slow: from now on it must get on."""
        super().pause_writing()
        self._reader = self.loop.call_later(READER_SECONDS, self._reset)

    def resume_writing(self) -> None:
        """It read."""
        super().resume_writing()
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    def _reset(self) -> None:
        """Drop it with all that waits for it, in the kernel too."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()

    def _watch(self) -> None:
        self._before = self.cycle
        self._head = self.loop.call_later(HEAD_SECONDS, self._look)

    def _look(self) -> None:
        """Close it when no request came since the last look and none is being answered."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request, whatever uvicorn declares
        if cycle is self._before and (cycle is None or cycle.response_complete):
            self.transport.abort()
        else:
            self._watch()
