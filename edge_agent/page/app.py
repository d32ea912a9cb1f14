"""The page's addresses. Each does one thing: check who asks, hand over, answer.

Invariants: facts are asked on one thread and pictures encoded on another, never on the event loop, never on the loop that
inspects; files are read once.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edge_agent.page.asking import Asking
from edge_agent.page.board import Board
from edge_agent.page.bodies import BodyError, read
from edge_agent.page.challenge import ChallengeError
from edge_agent.page.facts import Facts
from edge_agent.page.health import reasons
from edge_agent.page.live import Live
from edge_agent.page.pictures import Pictures
from edge_agent.page.pin import Pin, PinError
from edge_agent.page.trial import Plan
from edge_agent.page.view import Viewer

STATIC = Path(__file__).parent / "static"
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_PAGES = {"/": "station.html", "/challenge": "challenge.html"}
_PLAN_BYTES = 16 * 1024
T = TypeVar("T")


class Site:
    """What the addresses work with. ``asking`` facts and ``drawing`` have one thread each."""

    def __init__(
        self, facts: Facts, board: Board, viewer: Viewer, pin: Pin, trigger: Asking, *, asking: Executor, drawing: Executor
    ) -> None:
        self._facts = facts
        self._board = board
        self._viewer = viewer
        self._pin = pin
        self._pictures = Pictures(board)
        self._trigger = trigger
        self._asking = asking
        self._drawing = drawing
        self._files = _load()
        self._assets = hashlib.sha256("".join(sorted(file.tag for file in self._files.values())).encode()).hexdigest()[:16]
        self.live = Live(
            partial(_off, asking, self._document), partial(_off, asking, viewer.keep_up), lambda: self._board.version
        )

    def app(self) -> Starlette:
        """All of it as one ASGI app."""
        pages = [Route(path, partial(self._file, name)) for path, name in _PAGES.items()]
        return Starlette(
            routes=[
                *pages,
                Route("/static/{name}", self._static),
                Route("/events", self.live, methods=["GET"]),
                Route("/picture/{verdict_id}.jpg", self._picture),
                Route("/map/{verdict_id}.png", self._map),
                Route("/state", self._state),
                Route("/healthz", self._healthz),
                Route("/metrics", self._metrics),
                Route("/trigger", self._trigger.trigger, methods=["POST"]),
                Route("/challenge", self._start, methods=["POST"]),
                Route("/challenge/show", self._show, methods=["POST"]),
                Route("/challenge", self._cancel, methods=["DELETE"]),
            ],
            exception_handlers={
                PinError: _pin_error,
                BodyError: _body_error,
                ChallengeError: _challenge_error,
                HTTPException: _http_error,
                Exception: _failure,
            },
        )

    async def _file(self, name: str, request: Request) -> Response:
        return _answer(self._files[name], name, request)

    async def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        return _answer(self._files[name], name, request) if name in self._files else _error(404, "there is no such file")

    async def _picture(self, request: Request) -> Response:
        return await self._drawn(request, self._pictures.picture, "image/jpeg")

    async def _map(self, request: Request) -> Response:
        return await self._drawn(request, self._pictures.heat, "image/png")

    async def _drawn(self, request: Request, draw: Callable[[str], bytes | None], kind: str) -> Response:
        data = await _off(self._drawing, partial(draw, request.path_params["verdict_id"]))
        return Response(data, media_type=kind) if data else _error(404, "another part has come since, or it had no picture")

    async def _state(self, _: Request) -> Response:
        return JSONResponse(await _off(self._asking, self._document))

    def _document(self) -> dict[str, Any]:
        """The state, and which files belong to it: a browser that has older ones loads itself again."""
        return self._viewer.state() | {"assets": self._assets}

    async def _healthz(self, _: Request) -> Response:
        now = await _off(self._asking, self._viewer.snapshot)
        why = reasons(self._board, now)
        return JSONResponse({"ok": not why, "reasons": why}, 503 if why else 200)

    async def _metrics(self, _: Request) -> Response:
        text, kind = await _off(self._asking, self._exposition)
        return Response(text, media_type=kind)

    def _exposition(self) -> tuple[bytes, str]:
        from edge_agent.page.metrics import CONTENT_TYPE, Metrics  # only where Prometheus asks

        return Metrics(self._board, self._viewer.snapshot).text(), CONTENT_TYPE

    async def _start(self, request: Request) -> Response:
        self._check(request)
        plan = await read(request, Plan, most_bytes=_PLAN_BYTES)
        self._board.challenges.start(plan, self._facts.who.station, self._facts.active())
        return await self._changed()

    async def _show(self, request: Request) -> Response:
        self._check(request)
        self._board.challenges.show()
        return await self._changed()

    async def _cancel(self, request: Request) -> Response:
        self._check(request)
        self._board.challenges.cancel("cancelled by hand")
        return await self._changed()

    def _check(self, request: Request) -> None:
        self._pin.check(request.headers.get("x-escapement-pin"))

    async def _changed(self) -> Response:
        await self.live.refresh()
        return JSONResponse({"done": True})


class _File:
    """A file with its tag."""

    def __init__(self, path: Path) -> None:
        self.data = path.read_bytes()
        self.tag = f'"{hashlib.sha256(self.data).hexdigest()[:16]}"'


def _load() -> dict[str, _File]:
    return {path.name: _File(path) for path in STATIC.iterdir() if path.suffix in _KINDS}


def _answer(file: _File, name: str, request: Request) -> Response:
    headers = {"ETag": file.tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    return Response(file.data, headers=headers, media_type=_KINDS[Path(name).suffix])


async def _off(where: Executor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(where, work)


def _error(status: int, words: str, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps({"error": words}), status, headers, "application/json")


async def _pin_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, PinError)  # noqa: S101  # as registered above
    wait = None if error.wait_seconds is None else {"Retry-After": str(error.wait_seconds)}
    return _error(error.status, str(error), wait)


async def _body_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, BodyError)  # noqa: S101  # ditto
    return _error(error.status, str(error))


async def _challenge_error(_: Request, error: Exception) -> Response:
    return _error(409, str(error))


async def _failure(_: Request, error: Exception) -> Response:
    """An error of ours; `Guarded` logs it."""
    return _error(500, f"the page failed: {type(error).__name__}; see the agent's log")


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # ditto
    return _error(error.status_code, error.detail.lower(), dict(error.headers or {}))
