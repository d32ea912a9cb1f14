"""The demo's edge agents: real ones, enrolled over HTTP and supervised like the servers."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from inspection.errors import ServerError
from inspection.settings import Settings
from inspection.store.session import Store
from inspection.store.tables import DeviceRow
from inspection.up.service import Service

SILENT_AFTER = timedelta(seconds=20)
POLL_SECONDS = 1.0
_HOST = "127.0.0.1"
CODE_VARIABLE = "ESCAPEMENT_ENROLMENT_CODE"


@dataclass(frozen=True)
class HubHealth:
    """An agent is well while the hub keeps hearing from it."""

    store: Store
    device: str

    def check(self, timeout_seconds: float) -> bool:  # noqa: ARG002 - a look into the database takes no time-out
        """One look at when the device was last seen."""
        with self.store.begin(read_only=True) as session:
            row = session.get(DeviceRow, self.device)
            return row is not None and row.last_seen is not None and datetime.now(UTC) - row.last_seen < SILENT_AFTER


def folder_of(settings: Settings, station: str) -> Path:
    """An agent's folder."""
    return settings.state / "line" / station / "agent"


def spool_of(settings: Settings, station: str) -> Path:
    """The folder its camera watches."""
    return settings.state / "line" / station / "spool"


def enrol(settings: Settings, station: str, page_port: int, environment: Mapping[str, str]) -> None:
    """Enrol the station's device as its technician would. ServerError with the agent's own words when that fails."""
    code = settings.secrets.enrolment_code.get_secret_value()
    spool = spool_of(settings, station)
    spool.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-P", "-m", "edge_agent", "enrol", "--hub", settings.hub_url]
    command += ["--device", device_of(station), "--station", station, "--camera", f"folder:{spool}"]
    command += ["--state", str(folder_of(settings, station)), "--page", f"{_HOST}:{page_port}", "--force"]
    secret = {**environment, CODE_VARIABLE: code}  # not on the command line, where every user could read it
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=secret)
    if done.returncode != 0:
        raise ServerError(f"the agent of {station} could not be enrolled: {done.stderr.strip() or done.stdout.strip()}")


def device_of(station: str) -> str:
    """Name of the device that serves a station."""
    return f"{station}-agent"


def services(
    settings: Settings, store: Store, page_ports: Mapping[str, int], environment: Mapping[str, str]
) -> list[Service]:
    """One supervised program per station, with the address of its page."""
    return [
        Service(
            name=device_of(station),
            title=f"Agent of {station}",
            command=_run_command(settings, station),
            env=dict(environment),
            cwd=settings.state / "line" / station,
            health=HubHealth(store, device_of(station)),
            ready_seconds=60.0,
            address=f"http://{_HOST}:{port}",
        )
        for station, port in page_ports.items()
    ]


def _run_command(settings: Settings, station: str) -> tuple[str, ...]:
    state = str(folder_of(settings, station))
    return (
        sys.executable, "-P", "-m", "edge_agent", "run", "--state", state, "--poll", str(POLL_SECONDS), "--threads", "1",
    )  # fmt: skip
