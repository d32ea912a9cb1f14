"""Reading request bodies: bounded before the first byte, counted while they come, all or nothing.

Invariant: the bytes held in memory by all uploads together never exceed the budget; who comes too much is told to come
back, before anything of his is read.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from inspection.hub.faults import refusal

READ_SECONDS = 120.0
RETRY_SECONDS = 2


@dataclass
class UploadBudget:
    """Bytes that bodies in flight may hold together. Used on the event loop only, so it needs no lock."""

    limit_bytes: int = 512 * 1024 * 1024
    in_flight_bytes: int = 0

    @contextmanager
    def hold(self, length: int) -> Iterator[None]:
        """Hold ``length`` bytes of the budget. Raises 503 with Retry-After when they are not there."""
        if self.in_flight_bytes + length > self.limit_bytes and self.in_flight_bytes > 0:
            raise HTTPException(
                503,
                f"the hub is busy with {self.in_flight_bytes} bytes of uploads: try again",
                headers={"Retry-After": str(RETRY_SECONDS)},
            )
        self.in_flight_bytes += length
        try:
            yield
        finally:
            self.in_flight_bytes -= length


def announced_length(request: Request, *, limit_bytes: int) -> int:
    """The length the sender announced. Raises 411 without one, 413 when it is over ``limit_bytes``."""
    given = request.headers.get("content-length", "")
    if not given.isdecimal():
        raise HTTPException(411, "send the body with a Content-Length, not in chunks")
    length = int(given)
    if length > limit_bytes:
        raise refusal(413, "too_large", f"the body has {length} bytes, at most {limit_bytes} are taken here")
    return length


async def read_body(request: Request, length: int, *, seconds: float = READ_SECONDS) -> bytes:
    """Read exactly ``length`` bytes.

    Raises 408 when they do not come within ``seconds``, 400 when the sender leaves early or sends another amount; without a
    code, since the same bytes may arrive whole the next time.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > length:
                    raise HTTPException(400, f"more than the announced {length} bytes came")
    except TimeoutError:
        raise HTTPException(408, f"{len(body)} of {length} bytes came within {seconds:.0f} s") from None
    except ClientDisconnect:
        raise HTTPException(400, f"the sender left after {len(body)} of {length} bytes") from None
    if len(body) != length:
        raise HTTPException(400, f"{len(body)} bytes came, {length} were announced")
    return bytes(body)
