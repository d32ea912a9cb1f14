"""HTTP as trigger: a request asks for an inspection, the answer is the verdict.

Invariants: the answer says OK to the line by the same rule as every signal; where a token is set everybody needs it, also
this computer, for behind a proxy everybody looks like it; without one only this computer may ask; whoever may ask and
cannot be understood is counted as missed, for a part went by; a request that goes away, or waits longer than we do, leaves
the inspection and its row as they are; the loop never waits for a request.
"""

import asyncio
import contextlib
import ipaddress
import secrets
from concurrent.futures import Future

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edge_agent.page.bodies import BodyError, read
from edge_agent.page.guarded import plain_address
from edge_agent.signals.port import clean_ok
from edge_agent.trigger.asked import Asked, BusyError, StoppingError, UnfitNameError
from inspection.contracts import Verdict

_WAIT_SECONDS = 60.0
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")
_NOT_SAID = "triggers need this station's token, from this computer too: send Authorization: Bearer ..."
_UNKNOWN = (
    "only this computer itself may trigger while no token is set: set wiring.page.trigger_token_file on the station, "
    "then send Authorization: Bearer ..."
)


class _Part(BaseModel):
    """What is to be inspected."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    part: str | None = None
    lot: str | None = None


class Asking:
    """``POST /trigger``."""

    def __init__(self, asked: Asked | None, token: str | None, *, wait_seconds: float = _WAIT_SECONDS) -> None:
        self._asked = asked
        self._token = None if token is None else token.encode()
        self._wait = wait_seconds

    async def trigger(self, request: Request) -> Response:
        """``{"output": "OK" | "NG", "verdict": {...}}`` (200), or 202 with ``?wait=false``; 409: another part is inspected,
        this one was missed."""
        if self._asked is None:
            return _error(404, "this station is not triggered over HTTP: its trigger is another one")
        if not self._allowed(request):
            return _error(401, _UNKNOWN if self._token is None else _NOT_SAID, bearer=True)
        wait = request.query_params.get("wait", "true")
        if wait not in ("true", "false"):
            return _error(400, "wait must be true or false")
        try:
            part = await read(request, _Part)
            answer = self._asked.ask(part.part, part.lot)
            if wait == "false":
                return JSONResponse({"accepted": True}, 202)
            verdict = await heard(answer, self._wait)
        except BodyError as error:
            self._asked.miss()
            return _error(error.status, str(error))
        except UnfitNameError as error:
            return _error(400, str(error))
        except BusyError as error:
            return _error(409, str(error))
        except StoppingError as error:
            return _error(503, str(error))
        except TimeoutError:
            return _error(504, f"no verdict within {self._wait:g} s; its row will come into the journal all the same")
        return _answered(verdict)

    def _allowed(self, request: Request) -> bool:
        return _is_local(request) if self._token is None else _has_token(request, self._token)


def _has_token(request: Request, token: bytes) -> bool:
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    return kind.lower() == "bearer" and secrets.compare_digest(given.strip().encode(), token)


def _is_local(request: Request) -> bool:
    """From this computer itself, not through a proxy on it."""
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    try:
        return ipaddress.ip_address(plain_address(request.client.host)).is_loopback
    except ValueError:
        return False


async def heard(answer: "Future[Verdict]", seconds: float) -> Verdict:
    """The answer, waited for without holding on to it: whoever stops waiting must not cancel what the loop will set.

    TimeoutError after ``seconds``; whatever the answer raises.
    """
    here, came = asyncio.get_running_loop(), asyncio.Event()

    def tell(_: "Future[Verdict]") -> None:
        with contextlib.suppress(RuntimeError):  # the page has stopped meanwhile: nobody waits any more
            here.call_soon_threadsafe(came.set)

    answer.add_done_callback(tell)
    async with asyncio.timeout(seconds):
        await came.wait()
    return answer.result()


def _answered(verdict: Verdict) -> Response:
    """``output`` is what the line may act on: a verdict may say OK of a part in shadow mode or in a challenge."""
    output = b"OK" if clean_ok(verdict) else b"NG"
    return Response(b'{"output":"%s","verdict":%s}' % (output, verdict.canonical()), media_type="application/json")


def _error(status: int, words: str, *, bearer: bool = False) -> JSONResponse:
    return JSONResponse({"error": words}, status, {"WWW-Authenticate": "Bearer"} if bearer else None)
