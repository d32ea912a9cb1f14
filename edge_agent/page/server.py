"""The page's server: a thread of the agent with an event loop of its own.

Invariants: whatever goes wrong here ends no inspection: it is said in `failure` and tried again; nothing of the web
libraries is imported before the thread runs; when it stops, a running challenge is ended and written down.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from edge_agent.page.board import Board
from edge_agent.page.challenge import ChallengeError
from edge_agent.page.counting import DAY_NAME, Counting
from edge_agent.page.facts import Facts
from edge_agent.page.pin import Pin
from edge_agent.page.records import RECORDS_NAME, Records
from edge_agent.page.view import Viewer
from edge_agent.supervise import Worker
from edge_agent.trigger.asked import Asked
from edge_agent.wiring import Page, secret

if TYPE_CHECKING:
    import uvicorn

    from edge_agent.page.app import Site

_AGAIN_SECONDS = 3.0
_STOP_SECONDS = 10.0
_GRACE_SECONDS = 2
_HEAD_BYTES = 16 * 1024
_BACKLOG = 64
_DEAD_PEER_MS = 20_000
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": _DEAD_PEER_MS}


class PageServer:
    """Serves the page from `start` to `stop`."""

    def __init__(self, settings: Page, board: Board, facts: Facts, asked: Asked | None = None) -> None:
        """Make it before the loop starts: counts begin here. UsageError when PIN or token cannot be read."""
        self._settings = settings
        self._board = board
        self._facts = facts
        self._asked = asked
        self._pin = Pin(secret(settings.pin_file))
        self._token = secret(settings.trigger_token_file)
        counting = Counting(facts.state_folder / DAY_NAME, facts.counters())
        records = Records(facts.state_folder / RECORDS_NAME)
        self._viewer = Viewer(facts, board, counting, records, may_change=self._pin.is_set)
        self._worker = Worker("page", self._serve)
        self._lock = threading.Lock()
        self._end: Callable[[], None] | None = None
        self._stopping = False
        self.port: int | None = None

    @property
    def failure(self) -> str | None:
        """Why there is no page, in words, or None."""
        return self._worker.failure

    def start(self) -> None:
        """Start the thread. Returns at once; `port` is known once it listens."""
        self._worker.start()

    def stop(self) -> None:
        """End streams and requests, and the thread; may be called twice, also without `start`."""
        with contextlib.suppress(ChallengeError):  # none runs
            self._board.challenges.cancel("the agent stopped")
        with self._lock:
            self._stopping = True
            if self._end is not None:
                self._end()
        self._worker.stop(_STOP_SECONDS)
        self._viewer.keep_up()

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _serve(self) -> float:
        settings = self._settings
        try:
            listening = listen(settings.host, settings.port)
        except OSError as error:
            self._viewer.keep_up()
            self._worker.note(
                f"the station's page cannot be served on {settings.host}, port {settings.port}: {error.strerror or error}; "
                "free the port, or set another one under page in agent.json; tried again"
            )
            return _AGAIN_SECONDS
        with listening:
            self.port = listening.getsockname()[1]
            self._worker.note(None)
            try:
                asyncio.run(self._run(listening))
            finally:
                self.port = None
        return _AGAIN_SECONDS

    async def _run(self, listening: socket.socket) -> None:
        from edge_agent.page.app import Site
        from edge_agent.page.asking import Asking

        with ThreadPoolExecutor(1, "page-facts") as asking, ThreadPoolExecutor(1, "page-pictures") as drawing:
            trigger = Asking(self._asked, self._token)
            site = Site(self._facts, self._board, self._viewer, self._pin, trigger, asking=asking, drawing=drawing)
            server = self._server(site)
            keeping = asyncio.create_task(site.live.keep())
            try:
                if self._may_run(server, site.live.close):
                    await server.serve([listening])
            finally:
                self._forget()
                keeping.cancel()

    def _server(self, site: "Site") -> "uvicorn.Server":
        import uvicorn

        from edge_agent.page.guarded import Guarded
        from edge_agent.page.patience import Impatient

        names = (*self._settings.names, *([self._settings.host] if _is_one(self._settings.host) else []))
        config = uvicorn.Config(
            Guarded(site.app(), names),
            http=Impatient,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # our own log has what matters
            access_log=False,
            proxy_headers=False,  # whoever writes X-Forwarded-For is not believed
            server_header=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            h11_max_incomplete_event_size=_HEAD_BYTES,
        )
        return uvicorn.Server(config)

    def _may_run(self, server: "uvicorn.Server", close: Callable[[], Coroutine[None, None, None]]) -> bool:
        """Say how `stop` ends it; False when it was stopped already."""
        here = asyncio.get_running_loop()

        async def end() -> None:
            server.should_exit = True
            await close()

        def ask_to_end() -> None:
            asyncio.run_coroutine_threadsafe(end(), here)

        with self._lock:
            self._end = ask_to_end
            return not self._stopping

    def _forget(self) -> None:
        with self._lock:
            self._end = None


def _is_one(host: str) -> bool:
    """False for the addresses that mean all interfaces."""
    return host not in ("", "0.0.0.0", "::")  # noqa: S104  # it is compared, not bound


def listen(host: str, port: int) -> socket.socket:
    """A listening socket whose connections notice dead peers. OSError when the port is taken or the address is not here."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=host == "::")
    with contextlib.ExitStack() as opened:
        opened.enter_context(made)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        opened.pop_all()
    return made
