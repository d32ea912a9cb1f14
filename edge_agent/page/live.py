"""The newest state for everybody who looks, and the streams that carry it (server-sent events).

Invariants: a state is made at most five times a second, and only while somebody looks; a stream that is slow skips states
and keeps none; there are never more than `MOST_STREAMS`, and a new one ends the oldest; a stream says every two seconds how
old the state is, so that no browser shows an old one as new.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.types import Receive, Scope, Send

MOST_STREAMS = 32
_LOOK_SECONDS = 0.2
_LOOK_ANYWAY_SECONDS = 1.0
_BEAT_SECONDS = 2.0

log = logging.getLogger(__name__)


class Live:
    """Makes states and hands them out. Belongs to one event loop."""

    def __init__(
        self,
        make: Callable[[], Awaitable[dict[str, Any]]],
        keep_up: Callable[[], Awaitable[None]],
        version: Callable[[], int],
    ) -> None:
        """``make`` a state, ``keep_up`` once a second; ``version`` changes when a state is worth making at once."""
        self._make = make
        self._keep_up = keep_up
        self._version = version
        self._state = ""
        self._number = 0
        self._made_at: float | None = None
        self._news = asyncio.Condition()
        self._streams: dict[int, asyncio.Event] = {}  # in the order they came
        self._closed = False

    @property
    def streams(self) -> int:
        """How many look on."""
        return len(self._streams)

    async def keep(self) -> None:
        """Make states until cancelled."""
        seen, looked, kept = -1, 0.0, 0.0
        while True:
            began = time.monotonic()
            try:
                if began - kept >= _LOOK_ANYWAY_SECONDS:
                    kept = began
                    await self._keep_up()
                version = self._version()
                if self._streams and (version != seen or began - looked >= _LOOK_ANYWAY_SECONDS):
                    seen, looked = version, began
                    await self.refresh()
            except Exception:  # recorded; the streams say that their state is old, and the next round tries again
                log.exception("the page could not make a state")
            await asyncio.sleep(_LOOK_SECONDS)

    async def refresh(self) -> None:
        """Make a state now and wake the streams when it says something new."""
        state = json.dumps(await self._make(), separators=(",", ":"), allow_nan=False)
        self._made_at = time.monotonic()
        if state == self._state:
            return
        async with self._news:
            self._state = state
            self._number += 1
            self._news.notify_all()

    async def close(self) -> None:
        """End every stream."""
        async with self._news:
            self._closed = True
            self._news.notify_all()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One stream, until its browser goes, a newer one takes its place, or the page stops."""
        ended = self._enter()
        gone = asyncio.create_task(_gone(receive))
        try:
            headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            if scope["method"] != "HEAD":
                await self.refresh()
                await self._pour(send, lambda: gone.done() or ended.is_set() or self._closed)
            await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
            self._streams.pop(id(ended), None)

    def _enter(self) -> asyncio.Event:
        while len(self._streams) >= MOST_STREAMS:
            self._streams.pop(next(iter(self._streams))).set()
        ended = asyncio.Event()
        self._streams[id(ended)] = ended
        return ended

    async def _pour(self, send: Send, over: Callable[[], bool]) -> None:
        sent = 0
        await send(_chunk("retry: 1000\n\n"))
        while not over():
            if sent != self._number:
                sent = self._number
                await send(_chunk(f'data: {{{self._ages()},"state":{self._state}}}\n\n'))
            else:
                await send(_chunk(f"event: beat\ndata: {{{self._ages()}}}\n\n"))
            await self._newer(sent)

    def _ages(self) -> str:
        made = "null" if self._made_at is None else f"{self._made_at:.2f}"
        return f'"clock":{time.monotonic():.2f},"made":{made}'

    async def _newer(self, sent: int) -> None:
        """Wait for a state other than number ``sent``, for the end, or for the next beat."""
        async with self._news:
            try:
                async with asyncio.timeout(_BEAT_SECONDS):
                    await self._news.wait_for(lambda: self._number != sent or self._closed)
            except TimeoutError:
                return


def _chunk(text: str) -> dict[str, Any]:
    return {"type": "http.response.body", "body": text.encode(), "more_body": True}


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
