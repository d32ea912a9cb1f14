"""What devices call: enrol, verdicts, pictures, assignment, report, targets. Every answer is a contract or words."""

import secrets
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from inspection.contracts import Enrolment, Report
from inspection.contracts.base import Name
from inspection.hub import ingest
from inspection.hub.auth import DeviceDep, address_of, refuse_if_throttled, same_secret, token_digest
from inspection.hub.faults import refusal
from inspection.hub.state import Hub, HubDep, in_turn
from inspection.hub.uploads import announced_length, read_body
from inspection.store.tables import AssignmentRow, BundleRow, DeviceRow, StationRow, utc_now

MAX_VERDICTS_BYTES = 16 * 1024 * 1024
MAX_REPORT_BYTES = 256 * 1024
MAX_ENROL_BYTES = 4096
_CHUNK = 1024 * 1024

router = APIRouter(prefix="/v1")
Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
VerdictId = Annotated[str, Query(min_length=1, max_length=64)]


class Why(StrEnum):
    """Why a device keeps and sends a picture. ``audit``: drawn at random from all passed parts; ``disagree``: a
    challenger would have told the line something else."""

    NG = "ng"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"
    NEAR_THRESHOLD = "near_threshold"
    AUDIT = "audit"
    DISAGREE = "disagree"
    COLLECT = "collect"
    SHADOW = "shadow"


class EnrolRequest(BaseModel):
    """What a device says of itself when it asks to belong."""

    model_config = ConfigDict(frozen=True)

    code: str
    device: Name
    station: Name


def _contract(content: bytes) -> Response:
    return Response(content, media_type="application/json")


async def _bounded(request: Request, hub: Hub, limit_bytes: int) -> bytes:
    length = announced_length(request, limit_bytes=limit_bytes)
    with hub.budget.hold(length):
        return await read_body(request, length)


@router.post("/enrol")
async def enrol(request: Request, hub: HubDep) -> Response:
    """Make a device known, or give a known one a new token (the old one stops working)."""
    address = address_of(request)
    refuse_if_throttled(hub.wrong_codes, address)
    body = await _bounded(request, hub, MAX_ENROL_BYTES)
    try:
        asked = EnrolRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise refusal(422, "bad_request", f"{'/'.join(map(str, first['loc']))}: {first['msg']}") from None
    if not same_secret(asked.code, hub.settings.secrets.enrolment_code.get_secret_value()):
        hub.wrong_codes.note_wrong(address)
        raise refusal(403, "wrong_code", "wrong enrolment code: `inspection up` prints the right one")
    enrolment = await in_turn(hub.writing, _enrol, hub, asked)
    return _contract(enrolment.canonical())


def _enrol(hub: Hub, asked: EnrolRequest) -> Enrolment:
    token = secrets.token_urlsafe(32)
    with hub.store.begin() as session:
        station = session.get(StationRow, asked.station)
        if station is None:
            known = ", ".join(session.scalars(select(StationRow.name).order_by(StationRow.name).limit(50)))
            raise refusal(404, "unknown_station", f"no station {asked.station!r} here (known: {known or 'none yet'})")
        device = session.get(DeviceRow, asked.device) or DeviceRow(name=asked.device)
        device.station = station.name
        device.token_sha256 = token_digest(token)
        device.enrolled_at = utc_now()
        session.add(device)
        product = station.product
    return Enrolment(
        device=asked.device,
        station=asked.station,
        product=product,
        token=token,
        trust=hub.trust,
        poll_seconds=hub.settings.agent_poll_seconds,
    )


@router.post("/verdicts")
async def post_verdicts(request: Request, hub: HubDep, caller: DeviceDep) -> Response:
    """Take a list of at most 500 verdicts, whole or not at all; answer with their receipts in order."""
    length = announced_length(request, limit_bytes=MAX_VERDICTS_BYTES)
    with hub.budget.hold(length):
        body = await read_body(request, length)
        receipts = await in_turn(hub.writing, ingest.receive_verdicts, hub, caller, body)
    return _contract(b"[" + b",".join(receipt.canonical() for receipt in receipts) + b"]")


@router.put("/pictures/{sha256}")
async def put_picture(
    request: Request, hub: HubDep, caller: DeviceDep, sha256: Digest, verdict: VerdictId, why: Why
) -> Response:
    """Take one picture of a verdict that is held; nothing of it is kept unless all of it came and is sound."""
    length = announced_length(request, limit_bytes=hub.settings.max_picture_bytes)
    owner = await run_in_threadpool(ingest.find_verdict, hub, caller, verdict, sha256)
    with hub.budget.hold(length):
        data = await read_body(request, length)
        receipt = await in_turn(hub.decoding, ingest.receive_picture, hub, owner, sha256, why.value, data)
    return _contract(receipt.canonical())


@router.get("/assignment")
def get_assignment(request: Request, hub: HubDep, caller: DeviceDep) -> Response:
    """The newest signed assignment of the caller's station; 204 none yet, 304 the caller has it."""
    newest = select(AssignmentRow.serial, AssignmentRow.envelope).where(AssignmentRow.station == caller.station)
    with hub.store.begin(read_only=True) as session:
        row = session.execute(newest.order_by(AssignmentRow.serial.desc()).limit(1)).one_or_none()
    if row is None:
        return Response(status_code=204)
    tag = f'"{caller.station}-{row.serial}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(row.envelope, media_type="application/json", headers=headers)


@router.post("/report", status_code=204)
async def post_report(request: Request, hub: HubDep, caller: DeviceDep) -> Response:
    """Keep what the running process says of itself; only the newest report of a device is kept."""
    body = await _bounded(request, hub, MAX_REPORT_BYTES)
    try:
        report = Report.parse(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        said = f"not a report: {'/'.join(map(str, first['loc']))}: {first['msg']}"
        raise refusal(422, "bad_report", said) from None
    if report.device != caller.device:
        said = f"this report names device {report.device}, the token belongs to {caller.device}"
        raise refusal(403, "foreign_report", said)
    await in_turn(hub.writing, _keep_report, hub, report)
    return Response(status_code=204)


def _keep_report(hub: Hub, report: Report) -> None:
    with hub.store.begin() as session:
        device = session.get_one(DeviceRow, report.device)
        device.report = report.model_dump(mode="json")
        device.last_seen = utc_now()


def _find_target(hub: Hub, sha256: str) -> tuple[int, bytes]:
    with hub.store.begin(read_only=True) as session:
        row = session.execute(select(BundleRow.length, BundleRow.envelope).where(BundleRow.sha256 == sha256)).one_or_none()
    if row is None or not row.envelope:
        raise refusal(404, "unknown_target", f"no signed target {sha256} here")
    return row.length, row.envelope


@router.get("/targets/{sha256}")
def get_target(hub: HubDep, _caller: DeviceDep, sha256: Digest) -> Response:
    """The bytes of a signed target."""
    length, _ = _find_target(hub, sha256)
    data = hub.store.blobs.get(f"targets/{sha256}")
    chunks = (data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK))
    headers = {"Content-Length": str(length), "Cache-Control": "private, immutable, max-age=31536000"}
    return StreamingResponse(chunks, media_type="application/octet-stream", headers=headers)


@router.get("/targets/{sha256}/envelope")
def get_envelope(hub: HubDep, _caller: DeviceDep, sha256: Digest) -> Response:
    """The DSSE envelope of a signed target: what a device checks before it looks at one byte of the target."""
    return _contract(_find_target(hub, sha256)[1])
