"""A tiny real model, bundles and keys, and a fake hub that implements the transport port and simulates the whole hub.

The model: the brightest red sample decides. scores = [good, scratch, dent] where scratch rises with the red channel's
maximum and dent with the green one's; the defect map is the frame's red channel, averaged to 8 x 8 cells. Frames are
grey noise around 100 with coloured spots, so what a picture must get can be said beforehand.
"""

import functools
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import onnx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from onnx import TensorProto, helper, numpy_helper
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, SSlibKey

from edge_agent.config import AgentConfig, Limits, write_config
from edge_agent.errors import HubError, HubRefusalError
from edge_agent.trust import PAYLOAD_TYPE
from inspection.contracts import (
    ONNXRUNTIME,
    Assignment,
    Band,
    Decision,
    Enrolment,
    FileEntry,
    InputDescription,
    Manifest,
    Mode,
    PictureNote,
    PublicKey,
    Receipt,
    Recipe,
    Release,
    Report,
    SelfTestCase,
    Target,
    TargetKind,
    TrustRoot,
    Verdict,
    canonical_json,
    sha256_hex,
)
from inspection.contracts import (
    Limits as RecipeLimits,
)

PRODUCT = "widget"
STATION = "press1"
DEVICE = "cam1"
CLASSES = ["good", "scratch", "dent"]
NOW = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
Image = np.ndarray[Any, np.dtype[np.uint8]]


def picture(seed: int = 0, *, scratch: int = 0, dent: int = 0, size: tuple[int, int] = (48, 64)) -> Image:
    """A grey noisy part uint8 [H, W, 3] BGR; ``scratch`` (red) and ``dent`` (green), 0 to 255, are spots of 8 x 8."""
    image = np.random.default_rng(seed).integers(90, 111, (*size, 3), dtype=np.uint8)
    if scratch:
        image[8:16, 16:24, 2] = scratch
    if dent:
        image[24:32, 40:48, 1] = dent
    return image


def png(image: Image) -> bytes:
    """A frame as PNG bytes."""
    done, data = cv2.imencode(".png", image)
    assert done
    return data.tobytes()


@functools.cache
def model(gain: float = 0.1) -> bytes:
    """ONNX bytes: frame uint8 [N,H,W,3] -> scores [N,3] = softmax(0, gain*(maxR-180), gain*(maxG-180)), map [N,8,8]."""
    nodes = [
        helper.make_node("Cast", ["frame"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["f", "hw"], ["peak"], keepdims=0),
        helper.make_node("Gather", ["peak", "rg"], ["rg_peak"], axis=1),
        helper.make_node("Sub", ["rg_peak", "level"], ["over"]),
        helper.make_node("Mul", ["over", "gain"], ["defect_logits"]),
        helper.make_node("Gather", ["defect_logits", "zero_index"], ["one"], axis=1),
        helper.make_node("Mul", ["one", "zero"], ["good_logit"]),
        helper.make_node("Concat", ["good_logit", "defect_logits"], ["logits"], axis=1),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
        helper.make_node("Transpose", ["f"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Resize", ["nchw", "", "", "small"], ["cells"], mode="linear", axes=[2, 3]),
        helper.make_node("Sub", ["cells", "dark"], ["lifted"]),
        helper.make_node("Div", ["lifted", "range"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "zero", "unit"], ["clipped"]),
        helper.make_node("ReduceMax", ["clipped", "channel"], ["defect_map"], keepdims=0),
    ]
    constants = {
        "hw": np.array([1, 2], np.int64),
        "rg": np.array([2, 1], np.int64),
        "zero_index": np.array([0], np.int64),
        "channel": np.array([1], np.int64),
        "level": np.array(180, np.float32),
        "gain": np.array(gain, np.float32),
        "zero": np.array(0, np.float32),
        "unit": np.array(1, np.float32),
        "dark": np.array(120, np.float32),
        "range": np.array(135, np.float32),
        "small": np.array([8, 8], np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, ["N", "H", "W", 3])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3]),
            helper.make_tensor_value_info("defect_map", TensorProto.FLOAT, ["N", 8, 8]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def recipe(version: int = 1, *, inconclusive: float = 0.3, ng: float = 0.7, product: str = PRODUCT) -> Recipe:
    """One band on any defect."""
    return Recipe(
        product=product,
        version=version,
        good_class="good",
        thresholds={"*": Band(inconclusive=inconclusive, ng=ng)},
        limits=RecipeLimits(escape_rate=0.01, overkill_rate=0.05),
    )


def expected_scores(image: Image, gain: float = 0.1) -> dict[str, float]:
    """What the tiny model says, computed without it."""
    logits = np.array([0.0, gain * (float(image[..., 2].max()) - 180), gain * (float(image[..., 1].max()) - 180)])
    exponents = np.exp(logits - logits.max())
    return dict(zip(CLASSES, (exponents / exponents.sum()).tolist(), strict=True))


def bundle(
    version: int = 1,
    *,
    gain: float = 0.1,
    product: str = PRODUCT,
    wrong_self_test: bool = False,
    model_bytes: bytes | None = None,
    extra: dict[str, bytes] | None = None,
    runtime: str = ONNXRUNTIME,
) -> bytes:
    """A complete bundle's tar."""
    bad, good = picture(1, scratch=255), picture(2)
    files = {
        "model.onnx": model_bytes if model_bytes is not None else model(gain),
        "recipe.json": recipe(version, product=product).canonical(),
        "selftest/bad.png": png(bad),
        "selftest/good.png": png(good),
    }
    first = Decision.OK if wrong_self_test else Decision.NG
    manifest = Manifest(
        name="tiny",
        version=version,
        product=product,
        created_at=NOW,
        files=[FileEntry(path=p, length=len(d), sha256=sha256_hex(d)) for p, d in files.items()],
        runtime=runtime,
        backbone="tiny",
        precision="float32",
        input=InputDescription(model_height=48, model_width=64),
        classes=CLASSES,
        good_class="good",
        self_test=[
            SelfTestCase(path="selftest/bad.png", decision=first, scores=expected_scores(bad, gain), tolerance=0.01),
            SelfTestCase(
                path="selftest/good.png", decision=Decision.OK, scores=expected_scores(good, gain), tolerance=0.01
            ),
        ],
    )
    return tar({"manifest.json": manifest.canonical()} | files | (extra or {}))


def tar(files: dict[str, bytes], edit: Callable[[tarfile.TarInfo], None] = lambda _: None) -> bytes:
    """An uncompressed tar of ``files`` in their order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as packed:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            edit(info)
            packed.addfile(info, io.BytesIO(data))
    return out.getvalue()


@dataclass(frozen=True)
class Key:
    """A signing key and its public half."""

    signer: CryptoSigner
    public: PublicKey

    @classmethod
    def make(cls) -> "Key":
        """A fresh Ed25519 key; its id is the SHA-256 of the 32 raw bytes."""
        private = Ed25519PrivateKey.generate()
        public = private.public_key()
        keyid = sha256_hex(public.public_bytes(Encoding.Raw, PublicFormat.Raw))
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        return cls(CryptoSigner(private, SSlibKey.from_crypto(public, keyid=keyid)), PublicKey(keyid=keyid, pem=pem))

    def sign(self, payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
        """A DSSE envelope around ``payload``."""
        envelope = Envelope(payload, payload_type, {})
        envelope.sign(self.signer)
        return canonical_json(envelope.to_dict())


@dataclass
class Authority:
    """The keys of a hub, and what they sign."""

    release: Key = field(default_factory=Key.make)
    fleet: Key = field(default_factory=Key.make)

    @property
    def root(self) -> TrustRoot:
        """Whom devices believe."""
        return TrustRoot(release=[self.release.public], fleet=[self.fleet.public])

    def envelope(self, data: bytes, *, version: int = 1, kind: TargetKind = TargetKind.BUNDLE, **changes: Any) -> bytes:
        """The signed release of a target."""
        values: dict[str, Any] = {
            "kind": kind,
            "product": PRODUCT,
            "name": f"tiny-{version}",
            "version": version,
            "sha256": sha256_hex(data),
            "length": len(data),
            "signed_at": NOW,
        }
        return self.release.sign(Release(**(values | changes)).canonical())

    def assignment(
        self,
        serial: int,
        bundle_data: bytes | None = None,
        *,
        version: int = 1,
        recipe_data: bytes | None = None,
        challenger: bytes | None = None,
        mode: Mode = Mode.JUDGE,
        station: str = STATION,
        audit_share: float = 0.0,
    ) -> bytes:
        """A signed assignment."""
        return self.fleet.sign(
            Assignment(
                station=station,
                serial=serial,
                mode=mode,
                bundle=target(bundle_data, version) if bundle_data else None,
                recipe=target(recipe_data, version) if recipe_data else None,
                challenger=target(challenger, version + 1) if challenger else None,
                audit_share=audit_share,
                issued_at=NOW,
            ).canonical()
        )


def target(data: bytes, version: int = 1) -> Target:
    """A pointer to ``data``."""
    return Target(sha256=sha256_hex(data), length=len(data), version=version)


class FakeHub:
    """The transport port with a whole hub behind it: exactly-once storage, receipts, targets, assignments, troubles.

    ``trouble`` is called before each request with its name and may raise; ``lie`` may change a receipt.
    """

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.verdicts: dict[str, Verdict] = {}
        self.pictures: dict[str, bytes] = {}
        self.notes: list[PictureNote] = []
        self.targets: dict[str, bytes] = {}
        self.envelopes: dict[str, bytes] = {}
        self.current: bytes | None = None
        self.reports: list[Report] = []
        self.requests: list[str] = []
        self.refuse_parts: set[str] = set()
        self.trouble: Callable[[str], None] = lambda _: None
        self.lie: Callable[[Receipt], Receipt] = lambda receipt: receipt

    def publish(self, data: bytes, *, version: int = 1, kind: TargetKind = TargetKind.BUNDLE, **changes: Any) -> str:
        """Offer a target with its signed release."""
        digest = sha256_hex(data)
        self.targets[digest] = data
        self.envelopes[digest] = self.authority.envelope(data, version=version, kind=kind, **changes)
        return digest

    def assign(self, serial: int, data: bytes | None = None, **how: Any) -> None:
        """Publish and assign a bundle."""
        if data is not None:
            self.publish(data, version=how.get("version", 1))
        self.current = self.authority.assignment(serial, data, **how)

    def _asked(self, what: str) -> None:
        self.requests.append(what)
        self.trouble(what)

    def enrol(self, code: str, device: str, station: str) -> Enrolment:
        """Any code but the right one is refused."""
        self._asked("enrol")
        if code != "K7":
            raise HubRefusalError("unknown code")
        return enrolment(self.authority.root, device=device, station=station)

    def send_verdicts(self, bodies: Sequence[bytes]) -> list[Receipt]:
        """All or nothing, like one transaction."""
        self._asked("verdicts")
        arrived = [Verdict.parse(body) for body in bodies]
        if any(v.part in self.refuse_parts for v in arrived):
            raise HubRefusalError("422")
        receipts = []
        for verdict in arrived:
            held = self.verdicts.setdefault(verdict.id, verdict)
            if held != verdict:
                raise HubRefusalError("409: another body under the same id")
            receipts.append(self.lie(Receipt(kind="verdict", key=verdict.id, sha256=verdict.digest, new=True)))
        return receipts

    def send_picture(self, note: PictureNote, data: bytes) -> Receipt:
        """Refuses a picture of a verdict it does not hold."""
        self._asked("picture")
        if note.verdict_id not in self.verdicts:
            raise HubRefusalError("404")
        self.pictures[note.sha256] = data
        self.notes.append(note)
        return self.lie(Receipt(kind="picture", key=note.sha256, sha256=sha256_hex(data), new=True))

    def assignment(self) -> bytes | None:
        """The current envelope."""
        self._asked("assignment")
        return self.current

    def envelope(self, sha256: str) -> bytes:
        """A target's signed release."""
        self._asked("envelope")
        if sha256 not in self.envelopes:
            raise HubError("404")
        return self.envelopes[sha256]

    def fetch(self, sha256: str, length: int, into: BinaryIO) -> None:
        """A target's bytes."""
        self._asked("fetch")
        if len(self.targets[sha256]) > length:
            raise HubError("too long")
        into.write(self.targets[sha256])

    def report(self, report: Report) -> None:
        """Keep what the device says."""
        self._asked("report")
        self.reports.append(Report.parse(report.canonical()))

    def close(self) -> None:
        """Nothing is held."""


def enrolment(root: TrustRoot, *, device: str = DEVICE, station: str = STATION) -> Enrolment:
    """What a hub answers."""
    return Enrolment(device=device, station=station, product=PRODUCT, token="t0ken", trust=root, poll_seconds=30)


def config(root: TrustRoot, hub: str = "dir:nowhere", **limits: Any) -> AgentConfig:
    """An agent's configuration with small limits."""
    small = {"min_free_disk_bytes": 0, "backoff_base_seconds": 0.01, "backoff_cap_seconds": 0.05}
    small |= {"update_reserve_bytes": 0, "ballast_bytes": 0} | limits
    return AgentConfig(hub=hub, enrolment=enrolment(root), poll_seconds=0.1, limits=Limits(**small))


def air_gap(folder: Path, authority: Authority, *, assignment: bytes | None = None, data: bytes | None = None) -> None:
    """Fill a directory transport's folder."""
    down = folder / "to_device"
    (down / "targets").mkdir(parents=True, exist_ok=True)
    (down / "enrolment.json").write_bytes(enrolment(authority.root).canonical())
    if assignment is not None:
        (down / "assignment.json").write_bytes(assignment)
    if data is not None:
        (down / "targets" / sha256_hex(data)).write_bytes(data)
        (down / "targets" / f"{sha256_hex(data)}.envelope").write_bytes(authority.envelope(data))


def write_picture(folder: Path, name: str, image: Image) -> None:
    """Write-then-rename, as a polite writer does."""
    (folder / f".{name}").write_bytes(png(image))
    (folder / f".{name}").rename(folder / name)


def enrolled(state: Path, authority: Authority, hub: str, **limits: Any) -> AgentConfig:
    """A state folder with `agent.json` in it."""
    made = config(authority.root, hub, **limits)
    write_config(state, made)
    return made


def from_device(folder: Path) -> list[dict[str, Any]]:
    """Verdicts a directory transport collected."""
    return [json.loads(p.read_bytes()) for p in sorted((folder / "from_device" / "verdicts").glob("*.json"))]
