"""Around every request: who may ask, and what no answer goes without. An ASGI wrapper.

Invariants: a request under a name that is not ours is refused (DNS rebinding), and so is a change that another site's page
asks for; the browser is told to load and run nothing that does not come from here; an error of ours is logged and answered.
"""

import ipaddress
import json
import logging
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

_ALWAYS = ("localhost", "127.0.0.1", "::1")
_SAFE = frozenset({"GET", "HEAD"})
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guarded:
    """Passes on what may be asked."""

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        """``names``: host names and addresses, beside this computer's own, under which the page may be asked for."""
        self._app = app
        self._names = frozenset(name.lower().strip("[]") for name in (*_ALWAYS, *names))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with our headers."""
        if scope["type"] != "http":
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await _say(sending, *refusal)
            return
        try:
            await self._app(scope, receive, sending)
        except Exception:  # recorded (and answered, if it could be); the page goes on
            log.exception("the page failed on a request", extra={"path": scope["path"]})
            if not started:
                await _say(sending, 500, "the page failed; see the agent's log")

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        asked = headers.get("host", "")
        if host_of(asked) not in self._names and host_of(asked) != _own_address(scope):
            return 421, f"not under this name: add {host_of(asked)!r} to the page's names in agent.json, or use the address"
        if scope["method"] not in _SAFE and _is_foreign(headers, asked):
            return 403, "a page of another site must not ask for this"
        return None


def host_of(asked: str) -> str:
    """The name or address in a Host header, lower case, without port and brackets; empty when it makes no sense."""
    try:
        return (urlsplit(f"//{asked}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _own_address(scope: Scope) -> str:
    """The address of this computer that the request came in on: no name on the Internet can stand for it in Host."""
    server = scope.get("server")
    return plain_address(str(server[0])) if server else ""


def plain_address(address: str) -> str:
    """An IPv4 address that came in over an IPv6 socket as itself."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def _is_foreign(headers: Headers, asked: str) -> bool:
    """True when a browser says that another site's page asks."""
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return True
    origin = headers.get("origin")
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc.lower() != asked.lower()
    except ValueError:
        return True


async def _say(send: Send, status: int, words: str) -> None:
    body = json.dumps({"error": words}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
