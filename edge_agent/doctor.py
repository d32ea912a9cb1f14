"""What is wrong with this agent, in words, with the next step. One check per subject; a check never stops the others.

Invariants: reads only and makes nothing; tries the camera only while no agent holds the folder, else asks the agent's page;
each finding says what, of what, and what to do next; what could not be looked at is not called well.
"""

import contextlib
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
from pydantic import BaseModel

from edge_agent import machine
from edge_agent.agent import no_other, policy_of
from edge_agent.authorities import trusted
from edge_agent.camera import Camera
from edge_agent.config import CONFIG_NAME, AgentConfig
from edge_agent.database import DATABASE_NAME, looking_into
from edge_agent.errors import AgentError, DeviceError, HeldError, TokenError, TrustError, UsageError
from edge_agent.files import give_back, user_name
from edge_agent.shelf import Installed, Shelf
from edge_agent.status import status
from edge_agent.targets import MakeRuntime
from edge_agent.transport import Transport
from edge_agent.trust import Seen, check_assignment
from edge_agent.updater import Updater
from edge_agent.verifying import verify
from edge_agent.wiring import Page

_CLOCK_SECONDS = 60.0
_CERTIFICATE_DAYS = 30
_FRAME_SECONDS = 10.0
_PAGE_SECONDS = 5.0
_UNTIMELY = frozenset({9, 10})  # OpenSSL's numbers for a certificate that is not valid yet, and for one no longer valid
_SEE_TO_CAMERA = "See to cable, lamp, lens and settings (`edge-agent settings`), then run `edge-agent doctor` again."
_SEE_TO_SETTINGS = "Set what it can do: edge-agent settings camera_settings.properties.NAME=VALUE"
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
class Unlooked:
    """A subject that nobody could look at now, and why: neither wrong nor well."""

    subject: str
    reason: str

    def __str__(self) -> str:
        return f"{self.subject}: not looked at: {self.reason}"


Note = Finding | Unlooked


@dataclass(frozen=True)
class Patient:
    """Everything a check may look at. ``make_camera`` opens the configured camera."""

    state: Path
    config: AgentConfig
    transport: Transport
    make_runtime: MakeRuntime
    make_camera: Callable[[], Camera]


class _Line(BaseModel):
    """One line of the station's page."""

    name: str
    level: str
    text: str


class _Shown(BaseModel):
    """Of what the station's page shows: whose it is, and its lines."""

    station: dict[str, str]
    lines: list[_Line]


def examine(patient: Patient) -> dict[str, list[Note]]:
    """All notes by subject; an empty list is a subject that is well. A check that fails is a finding itself."""
    return {subject: list(_looked(subject, check, patient)) for subject, check in CHECKS.items()}


def _looked(subject: str, check: Callable[[Patient], Iterator[Note]], patient: Patient) -> Iterator[Note]:
    try:
        yield from check(patient)
    except (AgentError, OSError) as error:
        yield Finding(subject, str(error), "Mend that, then run `edge-agent doctor` again.")


def _permissions(patient: Patient) -> Iterator[Finding]:
    config, state = patient.state / CONFIG_NAME, patient.state
    if config.stat().st_mode & 0o077:
        yield Finding("permissions", f"{config} can be read by others and holds a secret", f"Run: chmod 600 {config}")
    me = user_name(os.geteuid())
    if foreign := _of_others(state):
        yield Finding("permissions", f"{', '.join(foreign)} in {state} belong to another user", f"Run: {give_back(state)}")
    elif not os.access(state, os.W_OK | os.X_OK):
        yield Finding("permissions", f"{state} cannot be written by {me}", f"Run: chmod 700 {state}")
    source = (patient.config.camera or "").partition(":")[2]
    if source.startswith("/dev/") and Path(source).exists() and not os.access(source, os.R_OK | os.W_OK):
        yield Finding(
            "permissions", f"{source} may not be opened", f"Add this user to its group: sudo usermod -aG video {me}"
        )


def _of_others(folder: Path) -> list[str]:
    """What lies there and is not this user's, but for what every ext4 has: an agent must be able to write all of it."""
    found = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # a running agent's files come and go
            if path.name != "lost+found" and path.lstat().st_uid != os.geteuid():
                found.append(path.name)
    return sorted(found)


def _camera(patient: Patient) -> Iterator[Note]:
    if patient.config.camera is None:
        yield Finding(
            "camera", "none is configured", "Give --camera folder:DIR or opencv:... to `edge-agent enrol` or `run`."
        )
        return
    try:
        with no_other(patient.state):
            yield from _one_frame(patient)
    except HeldError:
        yield from _as_its_agent_says(patient)
    except UsageError as error:
        yield Finding("camera", str(error), "Enrol again with the right --camera, or give it to `edge-agent run`.")


def _one_frame(patient: Patient) -> Iterator[Finding]:
    camera = patient.make_camera()
    try:
        frame = None if camera.patient else camera.next(_FRAME_SECONDS)
        health = camera.health()
        if frame is None and not camera.patient:
            said = health.get("last_fault") or "nothing"
            yield Finding("camera", f"no frame in {_FRAME_SECONDS:g} s; it says: {said}", "Check cable, power and address.")
        elif frame is not None and frame.fault:
            yield Finding("camera", frame.fault, _SEE_TO_CAMERA)
        if refused := health.get("settings_refused"):
            yield Finding("camera", f"it did not take its settings: {refused}", _SEE_TO_SETTINGS)
    finally:
        camera.close()


def _as_its_agent_says(patient: Patient) -> Iterator[Note]:
    """What the running agent's page says of the camera, which is that agent's alone."""
    page = patient.config.wiring.page
    if page is None:
        yield Unlooked("camera", "an agent runs, and has no page that could be asked")
        return
    line = _camera_line(page, patient.config.enrolment.device)
    if line is None:
        yield Unlooked("camera", f"an agent runs, and its page at {_address(page)} does not answer")
    elif line.level == "bad":
        yield Finding("camera", line.text, f"See to cable, lamp, lens and settings; {_address(page)} shows what it sees.")
    elif line.level == "warn":
        yield Finding("camera", line.text, _SEE_TO_SETTINGS)


def _camera_line(page: Page, device: str) -> _Line | None:
    """The camera's line of a page; None when it does not answer, or is another station's."""
    try:
        answer = httpx.get(f"{_address(page)}/state", timeout=_PAGE_SECONDS, trust_env=False)
        shown = _Shown.model_validate_json(answer.content)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None
    ours = shown.lines if shown.station.get("device") == device else []
    return next((line for line in ours if line.name == "Camera"), None)


def _address(page: Page) -> str:
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(page.host, page.host)  # noqa: S104  # compared, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{page.port}"


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
        timeout = patient.config.limits.http_timeout_seconds
        said = httpx.get(f"{patient.config.hub}/healthz", timeout=timeout, verify=trusted()).headers["Date"]
    except (httpx.HTTPError, KeyError):
        return  # the hub's own check says why it does not answer
    ahead = (datetime.now(UTC) - parsedate_to_datetime(said)).total_seconds()
    if abs(ahead) > _CLOCK_SECONDS:
        way = "ahead of" if ahead > 0 else "behind"
        yield Finding("clock", f"it is {abs(ahead):.0f} s {way} the hub's", "Set it: sudo timedatectl set-ntp true")


def _hub(patient: Patient) -> Iterator[Finding]:
    started = time.monotonic()
    try:
        envelope = patient.transport.assignment()
    except AgentError as error:
        yield Finding("hub", str(error), _way_to_the_hub(patient, error))
        return
    took = time.monotonic() - started
    if took > 2.0:
        yield Finding("hub", f"it took {took:.1f} s to answer", "Verdicts do not wait for it; look at the network.")
    if envelope is not None:
        yield from _assigned(patient, envelope)


def _way_to_the_hub(patient: Patient, error: AgentError) -> str:
    hub, who = patient.config.hub, patient.config.enrolment
    if isinstance(error, TokenError):
        names = f"--device {who.device} --station {who.station} --state {patient.state}"
        return f"Enrol again with the code the hub shows: edge-agent enrol --force --hub {hub} {names} --code CODE"
    if hub.startswith("dir:"):
        return "Plug the medium in and mount it; a prepared one has a folder to_device."
    return f"Open {hub} in this computer's browser, then check the network."


def _assigned(patient: Patient, envelope: bytes) -> Iterator[Finding]:
    """Whether what the hub assigns can ever come into force here."""
    installed, policy = _installed(Shelf(patient.state)), policy_of(patient.config)
    seen = None if installed.seen_payload is None else Seen(installed.seen_serial, installed.seen_payload)
    try:
        assignment, _ = check_assignment(envelope, policy.root, policy.station, seen)
    except TrustError as error:
        yield Finding(
            "hub",
            f"what it assigns is refused here: {error}",
            "Assign again at the hub; when the hub itself was made anew, enrol this device again.",
        )
        return
    for target in (assignment.bundle, assignment.recipe, assignment.challenger):
        if target is not None and target.sha256 in installed.refused:
            yield Finding(
                "hub",
                f"it assigns {target.sha256[:12]}, which is refused here: {installed.refused[target.sha256]}",
                "Release a mended one, which has a new digest, and assign that.",
            )


def _installed(shelf: Shelf) -> Installed:
    """As the updater takes it; that the file is damaged is the bundle's finding."""
    try:
        return shelf.installed()
    except DeviceError:
        return shelf.blank()


def _certificate(patient: Patient) -> Iterator[Finding]:
    address = urlsplit(patient.config.hub)
    if address.scheme != "https" or address.hostname is None:
        return
    try:
        found = _read_certificate(address.hostname, address.port or 443, patient.config.limits.http_timeout_seconds)
    except ssl.SSLError as error:
        yield Finding("certificate", f"{address.hostname} is not trusted: {error}", _way_to_trust(error))
        return
    days = (ssl.cert_time_to_seconds(str(found["notAfter"])) - time.time()) / 86_400
    if days < _CERTIFICATE_DAYS:
        yield Finding("certificate", f"the hub's runs out in {days:.0f} days", "Renew it on the hub before that.")


def _way_to_trust(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _UNTIMELY:
        return "Check this computer's clock (`timedatectl`): it may be wrong. If it is right, renew it on the hub."
    return (
        "Renew it on the hub, or install the authority that signed it here: put it as NAME.crt into "
        "/usr/local/share/ca-certificates and run sudo update-ca-certificates"
    )


def _read_certificate(host: str, port: int, timeout_seconds: float) -> Mapping[str, object]:
    with (
        socket.create_connection((host, port), timeout=timeout_seconds) as plain,
        trusted().wrap_socket(plain, server_hostname=host) as secured,
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


CHECKS: Mapping[str, Callable[[Patient], Iterator[Note]]] = {
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
