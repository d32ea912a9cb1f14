"""A small JSON body in, a checked value out.

Invariants: never more than a few kilobytes are read, nor waited for longer than a few seconds; what is not exactly as
described is refused in words.
"""

import asyncio
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from edge_agent.errors import AgentError

MOST_BYTES = 4096
_SECONDS = 5.0
Checked = TypeVar("Checked", bound=BaseModel)


class BodyError(AgentError):
    """The body is not what it must be. ``status`` is what HTTP says."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


async def read(request: Request, kind: type[Checked], *, most_bytes: int = MOST_BYTES) -> Checked:
    """The body as a ``kind``. BodyError when it is something else, too long or too slow."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":  # a page of another site cannot send this without being asked first
        raise BodyError(415, "the body must be JSON: Content-Type: application/json")
    try:
        async with asyncio.timeout(_SECONDS):
            body = await _bytes(request, most_bytes)
    except TimeoutError:
        raise BodyError(408, f"the body did not come within {_SECONDS:g} s") from None
    except ClientDisconnect:
        raise BodyError(400, "the body never came to its end") from None
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise BodyError(400, _words(error)) from None


async def _bytes(request: Request, most: int) -> bytes:
    found = bytearray()
    async for chunk in request.stream():
        found += chunk
        if len(found) > most:
            raise BodyError(413, f"the body is longer than {most} bytes")
    return bytes(found)


def _words(error: ValidationError) -> str:
    """What is wrong where; not what was sent, which may be anything."""
    said = (f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['msg']}" for one in error.errors(include_input=False))
    return "; ".join(said)
