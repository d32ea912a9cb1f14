"""What an error of ours looks like to a caller: a status and words. Everything not named here is a 500 and a traceback.

Invariant: whatever will be refused each time it comes carries a code beside its words, so that a device can tell this hub's
"never" from a proxy's page, and from what is worth another try.
"""

import errno
import logging
from collections.abc import Iterator
from typing import cast

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from inspection.errors import EnvironmentTroubleError, MissingPictureError, ServerError

_log = logging.getLogger("inspection.hub")
_RETRY = {"Retry-After": "10"}


def refusal(status: int, code: str, message: str) -> HTTPException:
    """The answer to what is refused each time it comes."""
    return HTTPException(status, {"code": code, "message": message})


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def disk_is_full(error: BaseException) -> bool:
    """Whether a full disk (or quota) is at the bottom of ``error``."""
    for one in _chain(error):
        if isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "database or disk is full" in str(one):
            return True
    return False


def _trouble(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s %s: %s", request.method, request.url.path, error)
    if disk_is_full(error):
        words = f"the hub's disk is full, nothing was stored: make room, then send again ({error})"
        return JSONResponse({"detail": words}, 507, headers=_RETRY)
    return JSONResponse({"detail": str(error)}, 503, headers=_RETRY)


def _missing(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s %s: %s", request.method, request.url.path, error)
    return JSONResponse({"detail": str(error)}, 410)


def _bad_request(_request: Request, error: Exception) -> JSONResponse:
    """A path, query or body of another form than the route takes."""
    first = cast("RequestValidationError", error).errors()[0]
    said = f"{'/'.join(map(str, first['loc']))}: {first['msg']}"
    return JSONResponse({"detail": {"code": "bad_request", "message": said}}, 422)


def install(app: FastAPI) -> None:
    """Register the answers."""
    app.add_exception_handler(RequestValidationError, _bad_request)
    app.add_exception_handler(EnvironmentTroubleError, _trouble)
    app.add_exception_handler(ServerError, _trouble)
    app.add_exception_handler(MissingPictureError, _missing)
