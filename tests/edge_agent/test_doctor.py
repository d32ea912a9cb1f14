"""Doctor names each problem with its subject and the next step, and one check never hides another."""

import hashlib
import os
import shutil
import sqlite3
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge_agent.agent import only_one
from edge_agent.camera import Frame
from edge_agent.camera.port import Health
from edge_agent.config import write_config
from edge_agent.database import Database, count, looking_into
from edge_agent.doctor import Patient, Unlooked, examine
from edge_agent.errors import DeviceError, HubError, TokenError, UsageError
from edge_agent.machine import cpu_flags, describe
from edge_agent.passporting import archive
from edge_agent.runtime import OnnxRuntime
from edge_agent.shelf import Shelf
from edge_agent.signals.webhook import WebhookSignal
from edge_agent.status import status
from edge_agent.transport import DirectoryTransport, HttpTransport
from edge_agent.wiring import Page, Webhook, Wiring
from inspection.contracts import sha256_hex
from tests.edge_agent import test_page
from tests.edge_agent.helpers import Authority, FakeHub, bundle, config, picture
from tests.edge_agent.test_camera import Silent
from tests.edge_agent.test_chain import old_file
from tests.edge_agent.test_journal import verdict
from tests.edge_agent.test_loop import Rig


class Live(Silent):
    """A live camera that delivers what it is given."""

    def __init__(self, *frames: Frame) -> None:
        super().__init__(list(frames))


@pytest.fixture
def patient(tmp_path: Path, hub: FakeHub) -> Patient:
    """An agent that has judged a part and is well."""
    hub.assign(1, bundle())
    rig = Rig(tmp_path, hub)
    rig.run([Frame(picture(1), "good")])
    settings = config(hub.authority.root).model_copy(update={"camera": "opencv:/dev/none"})
    write_config(tmp_path, settings)
    return Patient(tmp_path, settings, hub, OnnxRuntime, lambda: Live(Frame(picture(1), "p")))


def said(patient: Patient, subject: str) -> str:
    return " ".join(map(str, examine(patient)[subject]))


def test_a_device_that_is_well_has_no_findings(patient: Patient) -> None:
    """Every subject was looked at."""
    found = examine(patient)
    assert {subject: findings for subject, findings in found.items() if findings} == {}
    assert len(found) == 9


def test_a_camera_that_is_missing_silent_or_faulty_is_named(patient: Patient) -> None:
    """In the camera's own words, with the next step."""
    assert "no frame in" in said(replace(patient, make_camera=Live), "camera")
    black = Frame(None, "p", fault="frame is black; check the lamp")
    found = said(replace(patient, make_camera=lambda: Live(black)), "camera")
    assert "frame is black" in found
    assert "page" not in found  # there is none while no agent runs
    none = replace(patient, config=patient.config.model_copy(update={"camera": None}))
    assert "none is configured" in said(none, "camera")

    def missing() -> Live:
        raise UsageError("camera folder x does not exist")

    assert "does not exist" in said(replace(patient, make_camera=missing), "camera")


class Stubborn(Live):
    """Delivers, with other settings than were asked for."""

    def health(self) -> Health:
        """Well, but for the settings."""
        return {"kind": "fake", "ok": True, "settings_refused": "exposure is 3"}


def test_a_setting_that_the_camera_did_not_take_is_named(patient: Patient) -> None:
    """Its pictures may be judged and be others than those that were learnt from."""
    found = said(replace(patient, make_camera=lambda: Stubborn(Frame(picture(1), "p"))), "camera")
    assert "did not take its settings: exposure is 3" in found


def untouchable() -> Live:
    raise AssertionError("the camera was touched")


def test_the_camera_of_a_running_agent_is_left_alone_and_not_called_well(patient: Patient) -> None:
    """It belongs to that process; without a page to ask nobody has looked at it, and everything else is looked at."""
    for page in (None, Page(port=1)):
        busy = replace(patient, config=patient.config.model_copy(update={"wiring": Wiring(page=page)}))
        with only_one(patient.state):
            found = examine(replace(busy, make_camera=untouchable))
        (note,) = found["camera"]
        assert isinstance(note, Unlooked)
        assert "camera: not looked at: an agent runs" in str(note)
        assert [notes for subject, notes in found.items() if subject != "camera"] == [[]] * 8


def test_a_running_agent_is_asked_for_its_camera(patient: Patient, tmp_path: Path) -> None:
    """Over its page, in its words; the page of another station says nothing of this one's camera."""
    stage = test_page.Stage(tmp_path)
    with test_page.serving(stage) as client, only_one(patient.state):
        wiring = Wiring(page=Page(host="0.0.0.0", port=client.base_url.port or 0))
        busy = replace(patient, config=patient.config.model_copy(update={"wiring": wiring}), make_camera=untouchable)
        assert said(busy, "camera") == ""
        stage.camera = {"kind": "fake", "ok": True, "settings_refused": "exposure is 3"}
        assert "did not take: exposure is 3" in said(busy, "camera")
        stage.camera = {"kind": "fake", "ok": False, "last_fault": "frame is black; check the lamp"}
        assert "frame is black" in said(busy, "camera")
        other = busy.config.enrolment.model_copy(update={"device": "cam2"})
        elsewhere = replace(busy, config=busy.config.model_copy(update={"enrolment": other}))
        assert "not looked at" in said(elsewhere, "camera")


def listing(folder: Path) -> dict[str, int]:
    """Everything below a folder, and when it was changed last."""
    return {str(path.relative_to(folder)): path.lstat().st_mtime_ns for path in (folder, *folder.rglob("*"))}


def test_doctor_makes_and_changes_nothing(patient: Patient, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither where an agent has run, nor where none ever did: what it made as root, the agent could not use."""
    fresh = tmp_path_factory.mktemp("fresh")
    write_config(fresh, patient.config)
    (patient.state / "agent.lock").touch()
    for folder in (patient.state, fresh):
        before = listing(folder)
        examine(replace(patient, state=folder))
        assert listing(folder) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_another_user_left_in_the_folder_is_named(patient: Patient) -> None:
    """With the command that mends it: the agent could not write there."""
    (patient.state / "agent.lock").touch()
    os.chown(patient.state / "agent.lock", 12345, -1)
    found = said(patient, "permissions")
    assert "agent.lock in" in found
    assert "sudo chown -R" in found


def test_a_secret_others_can_read_is_named(patient: Patient) -> None:
    """With the command that mends it."""
    (patient.state / "agent.json").chmod(0o644)
    assert "chmod 600" in said(patient, "permissions")


def test_a_broken_bundle_and_a_dead_hub_are_both_named(patient: Patient, hub: FakeHub) -> None:
    """Neither hides the other."""
    current = Shelf(patient.state).installed().current
    assert current is not None
    (patient.state / "bundles" / str(current.bundle) / "content").write_bytes(b"torn")

    def down(_: str) -> None:
        raise HubError("connection refused")

    hub.trouble = down
    found = examine(patient)
    assert "fetches it again" in str(found["bundle"][0])
    assert "connection refused" in str(found["hub"][0])


def test_a_hub_that_does_not_know_the_token_asks_for_another_enrolment(patient: Patient, hub: FakeHub) -> None:
    """Looking at the hub in a browser would show that it is well."""

    def unknown(_: str) -> None:
        raise TokenError("the hub answered 401")

    hub.trouble = unknown
    assert "edge-agent enrol --force" in said(patient, "hub")


def test_assignments_that_are_refused_here_are_named(patient: Patient, hub: FakeHub) -> None:
    """Of an unknown signer, for another station, or older than one that was seen: in the words of whoever refuses."""
    shelf = Shelf(patient.state)
    shelf.remember(shelf.installed().model_copy(update={"seen_serial": 2}))
    for refused, words in (
        (Authority().assignment(2, bundle()), "no key of the trust root"),
        (hub.authority.assignment(2, bundle(), station="press2"), "is for station 'press2'"),
        (hub.authority.assignment(1, bundle()), "serial 1 is older than 2"),
    ):
        hub.current = refused
        found = said(patient, "hub")
        assert "refused here" in found
        assert words in found


def test_what_is_assigned_and_stays_refused_is_named(patient: Patient, hub: FakeHub) -> None:
    """Bundle, recipe or challenger, each with the reason."""
    shelf, recipe = Shelf(patient.state), b"recipe"
    hub.current = hub.authority.assignment(2, bundle(2), recipe_data=recipe, challenger=bundle(3))
    refused = {sha256_hex(data): reason for data, reason in ((bundle(2), "B"), (recipe, "R"), (bundle(3), "C"))}
    shelf.remember(shelf.installed().model_copy(update={"refused": refused}))
    found = said(patient, "hub")
    for digest, reason in refused.items():
        assert f"it assigns {digest[:12]}, which is refused here: {reason}" in found


def test_a_medium_that_is_not_plugged_in_is_named(patient: Patient, tmp_path: Path) -> None:
    """An empty folder is where one would be."""
    empty = tmp_path / "media"
    empty.mkdir()
    found = said(at(replace(patient, transport=DirectoryTransport(empty)), f"dir:{empty}"), "hub")
    assert "Plug the medium in" in found


def test_a_broken_journal_is_a_finding(patient: Patient) -> None:
    """Torn pages, or no database at all: in words, and the other subjects are still looked at."""
    path = patient.state / "journal.db"
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    found = examine(patient)
    assert "cannot be read" in str(found["ledger"][0])
    assert found["bundle"] == []
    path.write_bytes(b"junk" * 5000)
    assert "not a database" in said(patient, "ledger")


def test_looking_makes_and_changes_nothing(tmp_path: Path, hub: FakeHub) -> None:
    """No journal yet, or one of an older agent: said in a sentence, and left as it is for the agent itself."""
    settings = config(hub.authority.root)
    write_config(tmp_path, settings)
    for words in ("no agent has judged", "older agent"):
        for look in (lambda: status(tmp_path, settings), lambda: archive(tmp_path).__enter__()):
            with pytest.raises(UsageError, match=words):
                look()
        if not (tmp_path / "journal.db").exists():
            old_file(tmp_path / "journal.db")
    with sqlite3.connect(tmp_path / "journal.db") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (0,)
    db.close()
    Database(tmp_path / "journal.db").close()
    assert status(tmp_path, settings)["ledger_closes"]


def test_who_looks_cannot_write(patient: Patient) -> None:
    """Not even by mistake; and sees what a killed agent left in its write-ahead log."""
    killed, copy = Database(patient.state / "journal.db"), patient.state / "copy" / "journal.db"
    with killed.write() as db:
        count(db, "late", 7)
    copy.parent.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{patient.state / 'journal.db'}{suffix}", f"{copy}{suffix}")
    killed.close()
    with looking_into(copy) as journal:
        assert journal.number("SELECT value FROM counters WHERE name = 'late'") == 7
        with pytest.raises(DeviceError, match="readonly"), journal.write() as db:
            count(db, "late")


@contextmanager
def serving(*, ahead: timedelta = timedelta(), context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A hub's front door whose clock is ``ahead``."""

    class Door(BaseHTTPRequestHandler):
        def date_time_string(self, timestamp: float | None = None) -> str:
            return (datetime.now(UTC) + ahead).strftime("%a, %d %b %Y %H:%M:%S GMT")

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET  # noqa: N815  # a name the base class looks for

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"{'http' if context is None else 'https'}://localhost:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def at(patient: Patient, hub: str) -> Patient:
    return replace(patient, config=patient.config.model_copy(update={"hub": hub}))


def test_a_clock_that_differs_from_the_hubs_is_named(patient: Patient) -> None:
    """By how much, and which way."""
    with serving(ahead=timedelta(hours=1)) as hub:
        assert "behind the hub" in said(at(patient, hub), "clock")
    with serving() as hub:
        assert said(at(patient, hub), "clock") == ""


def self_signed(folder: Path, days: float, who: str = "localhost") -> ssl.SSLContext:
    """A server's context with a certificate of its own making for ``who``, which is also written as ``ca.pem``."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, who)])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(who)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    return context


def install(folder: Path) -> None:
    """Name ``ca.pem`` as `update-ca-certificates` does: OpenSSL looks for the hash of the subject (X509_NAME_hash(3))."""
    subject = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes()).subject.public_bytes()
    digest = hashlib.sha1(subject[2:]).digest()  # without the outer tag and length
    (folder / f"{int.from_bytes(digest[:4], 'little'):08x}.0").symlink_to("ca.pem")


def test_the_systems_authorities_are_trusted_by_all_who_speak_tls(
    patient: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A factory's own, installed as Debian does, beside the list of another: for hub, webhook and doctor alike."""
    (tmp_path / "other").mkdir()
    (tmp_path / "system").mkdir()
    self_signed(tmp_path / "other", days=90, who="other")
    context = self_signed(tmp_path / "system", days=90)
    install(tmp_path / "system")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "other" / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "system"))
    with serving(context=context, ahead=timedelta(hours=1)) as hub:
        transport, webhook = HttpTransport(hub, "t", timeout_seconds=5), WebhookSignal(Webhook(url=hub))
        webhook.tell(verdict(1))
        assert transport.assignment() == b""
        assert said(at(patient, hub), "certificate") == ""
        assert "behind the hub" in said(at(patient, hub), "clock")
        webhook.close()
        transport.close()
    assert webhook.health()["posted"] == 1


def test_a_certificate_out_of_its_time_may_be_a_wrong_clock(
    patient: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is the likelier of the two where a battery is empty."""
    with serving(context=self_signed(tmp_path, days=-0.5)) as hub:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        found = said(at(patient, hub), "certificate")
    assert "expired" in found
    assert "clock" in found


def test_a_certificate_that_is_not_trusted_or_runs_out_is_named(
    patient: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody here vouches for it; then somebody does, and it has a week left."""
    with serving(context=self_signed(tmp_path, days=7)) as hub:
        assert "not trusted" in said(at(patient, hub), "certificate")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert "runs out in 7 days" in said(at(patient, hub), "certificate")


def test_the_processor_is_described_as_the_kernel_names_it(tmp_path: Path) -> None:
    """x86 says flags, ARM says Features; a system that says nothing is no reason to fail."""
    for name in ("flags", "Features"):
        (tmp_path / "cpuinfo").write_text(f"processor: 0\n{name}\t: fp avx2 asimddp\n")
        assert cpu_flags(tmp_path / "cpuinfo") == {"fp", "avx2", "asimddp"}
    assert cpu_flags(tmp_path / "nothing") == frozenset()
    found = describe()
    assert {"cpu", "onnxruntime", "opencv", "int8"} <= found.keys()
    assert ("openvino" in found) is (find_spec("openvino") is not None)
