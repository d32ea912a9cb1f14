"""Becoming a device of a hub."""

from pathlib import Path

from edge_agent.camera.opening import CameraSettings
from edge_agent.config import CONFIG_NAME, AgentConfig, load_config, write_config
from edge_agent.errors import UsageError
from edge_agent.shelf import INSTALLED_NAME, SEEN_NAME
from edge_agent.transport import Transport
from inspection.contracts import Enrolment


def enrol(
    transport: Transport,
    hub: str,
    code: str,
    device: str,
    station: str,
    *,
    state: Path,
    camera: str | None,
    unsafe: bool = False,
    force: bool,
) -> Path:
    """Ask the hub for this device's secret and whom to believe; write `agent.json`. UsageError when already enrolled.

    With ``force`` and another trust root, what the old root had installed is forgotten: its serials mean nothing here.
    """
    known = (state / CONFIG_NAME).exists()
    if known and not force:
        raise UsageError(f"{state / CONFIG_NAME} exists: this device is enrolled; --force enrols it again")
    before = _enrolment_of(state) if known else None
    if before is not None and (before.device, before.station) != (device, station):
        raise UsageError(f"{state} holds the journal of {before.device} at {before.station}; give another --state")
    enrolment = transport.enrol(code, device, station)
    if before is None or before.trust != enrolment.trust:
        for name in (INSTALLED_NAME, SEEN_NAME):
            (state / name).unlink(missing_ok=True)
    return write_config(
        state, AgentConfig(hub=hub, enrolment=enrolment, camera=camera, camera_settings=CameraSettings(unsafe=unsafe))
    )


def _enrolment_of(state: Path) -> Enrolment | None:
    try:
        return load_config(state).enrolment
    except UsageError:  # damaged: whatever it said is not believed any more
        return None
