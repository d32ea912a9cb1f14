"""`/healthz` and `/metrics`: is this hub able to do its work, in words and in numbers."""

import shutil
from datetime import datetime

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from sqlalchemy import select

from inspection.contracts import Report
from inspection.errors import EscapementError
from inspection.hub.state import Hub, HubDep
from inspection.monitoring.fleet import is_silent
from inspection.store.tables import DeviceRow, utc_now

LOW_DISK_BYTES = 1024**3
_PROBE = "health/probe"
router = APIRouter()


def _database_fault(hub: Hub) -> str | None:
    try:
        with hub.store.begin(read_only=True) as session:
            session.execute(select(DeviceRow.name).limit(1))
    except EscapementError as error:
        return f"database: {error}"
    return None


def _blob_fault(hub: Hub) -> str | None:
    try:
        hub.store.blobs.put_at(_PROBE, b"escapement")
        hub.store.blobs.get(_PROBE)
    except EscapementError as error:
        return f"blobs: {error}"
    return None


@router.get("/healthz")
def healthz(hub: HubDep) -> JSONResponse:
    """200 when database and blobs can be used, else 503 and the reasons in words."""
    free = shutil.disk_usage(hub.settings.state).free
    faults = [fault for fault in (_database_fault(hub), _blob_fault(hub)) if fault]
    warnings = [f"only {free // 2**20} MiB of disk left"] if free < LOW_DISK_BYTES else []
    status = "failing" if faults else "low disk" if warnings else "ok"
    body = {"status": status, "problems": faults + warnings, "free_disk_bytes": free}
    return JSONResponse(body, 503 if faults else 200)


@router.get("/metrics")
def metrics(hub: HubDep) -> Response:
    """Prometheus text. Names no station, part or device, so it needs no password."""
    _refresh(hub, utc_now())
    return Response(hub.meters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _refresh(hub: Hub, now: datetime) -> None:
    with hub.store.begin(read_only=True) as session:
        devices = session.scalars(select(DeviceRow)).all()
    reports = [Report.model_validate(device.report) for device in devices if device.report]
    poll_seconds = hub.settings.agent_poll_seconds
    hub.meters.devices.set(len(devices))
    hub.meters.silent.set(sum(is_silent(device, now, poll_seconds=poll_seconds) for device in devices))
    hub.meters.open_ledgers.set(sum(not report.ledger.closes for report in reports))
    hub.meters.in_flight.set(hub.budget.in_flight_bytes)
