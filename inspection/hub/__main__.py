"""`python -m inspection.hub --state DIR`: wire settings, store and app, and serve until told to stop."""

import argparse
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

import uvicorn

from inspection.errors import EnvironmentTroubleError, EscapementError, UsageError
from inspection.hub.app import create_app
from inspection.settings import Settings, default_state, load_settings
from inspection.store.session import Store

GRACE_SECONDS = 10


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m inspection.hub",
        description="Serve the hub: devices, pictures, console, metrics.",
        epilog="example: python -m inspection.hub --state ./state",
    )
    parser.add_argument("--state", type=Path, help="the state folder (default: $ESCAPEMENT_STATE, else ./state)")
    parser.add_argument("--host", help="address to bind, when it is not the one in hub_url (behind a proxy: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to bind, when it is not the one in hub_url")
    return parser


def _address(settings: Settings) -> tuple[str, int]:
    parts = urlsplit(settings.hub_url)
    if parts.hostname is None:
        raise UsageError(f"hub_url {settings.hub_url!r} names no host: write it like http://127.0.0.1:8470")
    return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        said = f"the hub cannot listen on {host} port {port}: {error.strerror or error}"
        raise EnvironmentTroubleError(f"{said}; stop what holds it, or choose another with --port") from error


def serve(settings: Settings, *, host: str | None = None, port: int | None = None) -> None:
    """Serve until SIGINT or SIGTERM (SystemExit 0); requests in flight get ten seconds to end. In the main thread."""
    # The server shuts down by itself first and then raises the signal again: the store must still be closed after it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    own_host, own_port = _address(settings)
    with (
        closing(_listen(host or own_host, own_port if port is None else port)) as listener,
        Store.open(settings.database_url, settings.blob_url) as store,
    ):
        config = uvicorn.Config(
            create_app(settings, store),
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            ws="none",
        )
        uvicorn.Server(config).run(sockets=[listener])


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a signal handler
    raise SystemExit(0)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 after a clean stop, 1 when the hub could not run, 2 on wrong usage."""
    args = _parser().parse_args(argv)
    try:
        state = (args.state or default_state(os.environ)).absolute()
        serve(load_settings(state, os.environ), host=args.host, port=args.port)
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except EscapementError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
