"""Becoming a device of a hub."""

from pathlib import Path

from pydantic import ValidationError

from edge_agent.config import CONFIG_NAME, AgentConfig, check_owner, config_bytes, write_config
from edge_agent.errors import UsageError
from edge_agent.shelf import INSTALLED_NAME, SEEN_NAME
from edge_agent.transport import Transport
from edge_agent.wiring import Page, Wiring, page_at


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
    page: str | None = None,
    force: bool,
) -> Path:
    """Ask the hub for this device's secret and whom to believe; write `agent.json`. UsageError when already enrolled, or
    when the folder is another user's.

    With ``force`` all other settings are kept; with another trust root besides, what the old root had installed is
    forgotten: its serials mean nothing here.
    """
    if page is not None:
        page_at(page)  # a slip is said before the hub is asked
    check_owner(state)
    known = (state / CONFIG_NAME).exists()
    if known and not force:
        raise UsageError(f"{state / CONFIG_NAME} exists: this device is enrolled; --force enrols it again")
    old = _config_of(state) if known else None
    before = old.enrolment if old is not None else None
    if before is not None and (before.device, before.station) != (device, station):
        raise UsageError(f"{state} holds the journal of {before.device} at {before.station}; give another --state")
    enrolment = transport.enrol(code, device, station)
    if before is None or before.trust != enrolment.trust:
        for name in (INSTALLED_NAME, SEEN_NAME):
            (state / name).unlink(missing_ok=True)
    config = old or AgentConfig(hub=hub, enrolment=enrolment, wiring=Wiring(page=Page()))
    if page is not None:
        config = config.model_copy(update={"wiring": config.wiring.model_copy(update={"page": page_at(page)})})
    settings = config.camera_settings.model_copy(update={"unsafe": unsafe or config.camera_settings.unsafe})
    new = {"hub": hub, "enrolment": enrolment, "camera": camera or config.camera, "camera_settings": settings}
    return write_config(state, config.model_copy(update=new))


def _config_of(state: Path) -> AgentConfig | None:
    data = config_bytes(state)
    try:
        return AgentConfig.model_validate_json(data)
    except ValidationError:  # damaged: whatever it said is not believed any more
        return None
