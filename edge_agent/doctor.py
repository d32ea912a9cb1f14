"""What is wrong with this agent, in words, with the next step. One check per subject; a check never stops the others.

Invariants: reads only, and tries the camera only while no agent holds the folder; each finding says what, of what, and
what to do next.
"""

import os
import platform
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from edge_agent import machine
from edge_agent.agent import only_one, policy_of
from edge_agent.camera import Camera
from edge_agent.config import CONFIG_NAME, AgentConfig
from edge_agent.database import DATABASE_NAME, looking_into
from edge_agent.errors import AgentError, UsageError
from edge_agent.shelf import Shelf
from edge_agent.status import status
from edge_agent.transport import Transport
from edge_agent.updater import MakeRuntime, Updater
from edge_agent.verifying import verify

_CLOCK_SECONDS = 60.0
_CERTIFICATE_DAYS = 30
_FRAME_SECONDS = 10.0
_OLDEST = datetime(2026, 1, 1, tzinfo=UTC)  # this program did not exist before


@dataclass(frozen=True)
class Finding:
    """Something wrong: with what, what it is, what to do."""

    subject: str
    problem: str
    next_step: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.problem}. {self.next_step}"


@dataclass(frozen=True)
class Patient:
    """Everything a check may look at. ``make_camera`` opens the configured camera."""

    state: Path
    config: AgentConfig
    transport: Transport
    make_runtime: MakeRuntime
    make_camera: Callable[[], Camera]


def examine(patient: Patient) -> dict[str, list[Finding]]:
    """All findings by subject; an empty list is a subject that is well. A check that fails is a finding itself."""
    return {subject: list(_looked(subject, check, patient)) for subject, check in CHECKS.items()}


def _looked(subject: str, check: Callable[[Patient], Iterator[Finding]], patient: Patient) -> Iterator[Finding]:
    try:
        yield from check(patient)
    except (AgentError, OSError) as error:
        yield Finding(subject, str(error), "Mend that, then run `edge-agent doctor` again.")


def _permissions(patient: Patient) -> Iterator[Finding]:
    config, state = patient.state / CONFIG_NAME, patient.state
    if config.stat().st_mode & 0o077:
        yield Finding("permissions", f"{config} can be read by others and holds a secret", f"Run: chmod 600 {config}")
    if not os.access(state, os.W_OK | os.X_OK):
        who = os.environ.get("USER", str(os.getuid()))
        yield Finding("permissions", f"{state} cannot be written by {who}", f"Run: sudo chown -R {who} {state}")
    source = (patient.config.camera or "").partition(":")[2]
    if source.startswith("/dev/") and Path(source).exists() and not os.access(source, os.R_OK | os.W_OK):
        yield Finding(
            "permissions", f"{source} may not be opened", "Add this user to its group: sudo usermod -aG video USER"
        )


def _camera(patient: Patient) -> Iterator[Finding]:
    if patient.config.camera is None:
        yield Finding(
            "camera", "none is configured", "Give --camera folder:DIR or opencv:... to `edge-agent enrol` or `run`."
        )
        return
    try:
        with only_one(patient.state):
            yield from _one_frame(patient)
    except UsageError as error:
        if "another agent runs" not in str(error):
            yield Finding("camera", str(error), "Enrol again with the right --camera, or give it to `edge-agent run`.")


def _one_frame(patient: Patient) -> Iterator[Finding]:
    camera = patient.make_camera()
    try:
        frame = None if camera.patient else camera.next(_FRAME_SECONDS)
        if frame is None and not camera.patient:
            said = camera.health().get("last_fault") or "nothing"
            yield Finding("camera", f"no frame in {_FRAME_SECONDS:g} s; it says: {said}", "Check cable, power and address.")
        elif frame is not None and frame.fault:
            yield Finding("camera", frame.fault, "Look at its picture on the station's page.")
    finally:
        camera.close()


def _processor(patient: Patient) -> Iterator[Finding]:  # noqa: ARG001  # one shape for all checks
    flags = machine.cpu_flags()
    if platform.machine() == "x86_64" and flags and "avx2" not in flags:
        yield Finding(
            "processor",
            f"{machine.cpu_name()} has no AVX2",
            "Inference will be several times slower: run `edge-agent bench`.",
        )


def _disk(patient: Patient) -> Iterator[Finding]:
    free, least = shutil.disk_usage(patient.state).free, patient.config.limits.min_free_disk_bytes
    if free < least:
        yield Finding("disk", f"only {free // 2**20} MiB are free", "Delete something, or lower outbox_max_bytes.")
    if os.statvfs(patient.state).f_flag & os.ST_RDONLY or _failed(patient.state):
        yield Finding(
            "disk", f"{patient.state} is mounted read-only", "Check it with fsck: a failing disk turns read-only."
        )


def _failed(folder: Path) -> bool:
    """Whether the kernel has put its file system out of use after an error; newer ones say so nowhere but here."""
    mounts = Path("/proc/self/mountinfo")
    device = folder.stat().st_dev
    named = f"{os.major(device)}:{os.minor(device)}"
    lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines() if mounts.exists() else []
    return any(line.split()[2] == named and "emergency_ro" in line.split()[-1].split(",") for line in lines)


def _clock(patient: Patient) -> Iterator[Finding]:
    now = datetime.now(UTC)
    if now < _OLDEST:
        yield Finding("clock", f"it says {now:%Y-%m-%d}", "Set it: sudo timedatectl set-ntp true")
    if not patient.config.hub.startswith("http"):
        return
    try:
        said = httpx.get(f"{patient.config.hub}/healthz", timeout=patient.config.limits.http_timeout_seconds).headers[
            "Date"
        ]
    except (httpx.HTTPError, KeyError):
        return  # the hub's own check says why it does not answer
    ahead = (datetime.now(UTC) - parsedate_to_datetime(said)).total_seconds()
    if abs(ahead) > _CLOCK_SECONDS:
        way = "ahead of" if ahead > 0 else "behind"
        yield Finding("clock", f"it is {abs(ahead):.0f} s {way} the hub's", "Set it: sudo timedatectl set-ntp true")


def _hub(patient: Patient) -> Iterator[Finding]:
    started = time.monotonic()
    try:
        patient.transport.assignment()
    except AgentError as error:
        yield Finding("hub", str(error), f"Open {patient.config.hub} in this computer's browser, then check the network.")
        return
    took = time.monotonic() - started
    if took > 2.0:
        yield Finding("hub", f"it took {took:.1f} s to answer", "Verdicts do not wait for it; look at the network.")


def _certificate(patient: Patient) -> Iterator[Finding]:
    address = urlsplit(patient.config.hub)
    if address.scheme != "https" or address.hostname is None:
        return
    try:
        found = _read_certificate(address.hostname, address.port or 443, patient.config.limits.http_timeout_seconds)
    except ssl.SSLError as error:
        yield Finding(
            "certificate", f"{address.hostname} is not trusted: {error}", "Renew it, or install its authority here."
        )
        return
    days = (ssl.cert_time_to_seconds(str(found["notAfter"])) - time.time()) / 86_400
    if days < _CERTIFICATE_DAYS:
        yield Finding("certificate", f"the hub's runs out in {days:.0f} days", "Renew it on the hub before that.")


def _read_certificate(host: str, port: int, timeout_seconds: float) -> Mapping[str, object]:
    with (
        socket.create_connection((host, port), timeout=timeout_seconds) as plain,
        ssl.create_default_context().wrap_socket(plain, server_hostname=host) as secured,
    ):
        return dict(secured.getpeercert() or {})


def _ledger(patient: Patient) -> Iterator[Finding]:
    facts = status(patient.state, patient.config)
    if not facts["ledger_closes"]:
        yield Finding("ledger", "the counts do not add up", "Keep journal.db and call whoever maintains this agent.")
    with looking_into(patient.state / DATABASE_NAME) as database:
        chain = verify(database)
    if not chain.ok:
        yield Finding("ledger", f"the journal was changed: {chain.reason}", "Keep journal.db and look who had access.")


def _bundle(patient: Patient) -> Iterator[Finding]:
    shelf = Shelf(patient.state)
    current = shelf.installed().current
    if current is None or current.bundle is None:
        yield Finding("bundle", "none is installed, so nothing can be judged OK", "Assign one to this station at the hub.")
        return
    try:
        Updater(shelf, patient.transport, policy_of(patient.config), patient.make_runtime).check(current)
    except AgentError as error:
        yield Finding("bundle", str(error), "The agent fetches it again by itself when the hub can be reached.")


CHECKS: Mapping[str, Callable[[Patient], Iterator[Finding]]] = {
    "permissions": _permissions,
    "camera": _camera,
    "processor": _processor,
    "disk": _disk,
    "clock": _clock,
    "hub": _hub,
    "certificate": _certificate,
    "ledger": _ledger,
    "bundle": _bundle,
}
