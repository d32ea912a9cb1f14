"""What people open: the console, a part's passport, and pictures behind capability links."""

from enum import StrEnum
from typing import Annotated

import cv2
from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool

from inspection.data.pictures import decode_bgr
from inspection.hub.auth import PersonDep
from inspection.hub.console import read_console
from inspection.hub.links import mac_is_right
from inspection.hub.pages import page
from inspection.hub.passport import read_passport
from inspection.hub.state import Hub, HubDep, in_turn
from inspection.store.tables import PictureRow

THUMB_PIXELS = 320
_FOR_EVER = {
    "Cache-Control": "public, max-age=31536000, immutable",
    # Label Studio draws pictures of another origin on a canvas: without these two the browser refuses.
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}
router = APIRouter()


class Size(StrEnum):
    """How large a picture is wanted."""

    FULL = "full"
    THUMB = "thumb"


@router.get("/p/{link}")
async def picture(
    request: Request,
    hub: HubDep,
    link: Annotated[str, Path(pattern=r"^[0-9a-f]{64}-[0-9a-f]{64}$")],
    size: Size = Size.FULL,
) -> Response:
    """A picture for whoever holds its link. A wrong link and a picture that is not kept look the same: 404."""
    sha256, _, mac = link.partition("-")
    right = mac_is_right(hub.settings, sha256, mac)
    kept = await run_in_threadpool(_find_picture, hub, sha256) if right else None
    if kept is None:
        raise HTTPException(404, "no such picture")
    headers = _FOR_EVER | {"ETag": f'"{sha256}-{size}"'}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    data = await run_in_threadpool(hub.store.blobs.get, f"pictures/{sha256}")
    if size is Size.THUMB:
        return Response(await in_turn(hub.decoding, _thumb, data), media_type="image/jpeg", headers=headers)
    return Response(data, media_type=kept.media_type, headers=headers)


def _find_picture(hub: Hub, sha256: str) -> PictureRow | None:
    with hub.store.begin(read_only=True) as session:
        return session.get(PictureRow, sha256)


def _thumb(data: bytes) -> bytes:
    """A JPEG of at most 320 pixels a side. For people's eyes only: no model ever sees it."""
    image = decode_bgr(data)
    scale = min(1.0, THUMB_PIXELS / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])[1])


@router.get("/")
def console(hub: HubDep, _person: PersonDep) -> HTMLResponse:
    """The console."""
    return page("console.html", view=read_console(hub), settings=hub.settings)


@router.get("/parts")
def find_passport(
    hub: HubDep, person: PersonDep, part: Annotated[str, Query(min_length=1, max_length=200)]
) -> HTMLResponse:
    """A part's passport, found by the form on the console."""
    return passport(hub, person, part)


@router.get("/parts/{part:path}")
def passport(hub: HubDep, _person: PersonDep, part: Annotated[str, Path(max_length=200)]) -> HTMLResponse:
    """A part's passport; 404 with words when nobody inspected it."""
    views = read_passport(hub, part)
    return page("passport.html", status=200 if views else 404, part=part, views=views, settings=hub.settings)
