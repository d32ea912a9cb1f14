"""Parts, pictures and verdicts for the hub's tests."""

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import cv2
import httpx
import numpy as np
from sqlalchemy.orm import Session

from inspection.contracts import Band, Enrolment, Limits, Receipt, Report, Verdict, sha256_hex
from inspection.contracts.fleet import AgentState
from inspection.contracts.verdict import Mode
from inspection.data.product import Product
from inspection.data.products import add_station, save_product
from inspection.settings import Settings

PASSWORD_USER = "engineer"
PRODUCT = Product(
    name="lid",
    good_class="good",
    classes=["good", "scratch", "dent"],
    limits=Limits(escape_rate=0.05, overkill_rate=0.1),
)


def seed_product(session: Session) -> None:
    """The product `lid` with stations `press-1` and `press-2`."""
    save_product(session, PRODUCT)
    add_station(session, "press-1", "lid")
    add_station(session, "press-2", "lid")


def enrol(client: httpx.Client, settings: Settings, device: str, station: str) -> Enrolment:
    """Enrol with the right code."""
    code = settings.secrets.enrolment_code.get_secret_value()
    answer = client.post("/v1/enrol", json={"code": code, "device": device, "station": station})
    assert answer.status_code == 200, answer.text
    return Enrolment.parse(answer.content)


def png(seed: int = 0, *, height: int = 48, width: int = 64) -> bytes:
    """A PNG of noise."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.imencode(".png", image)[1].tobytes()


def verdict(sequence: int = 1, **changes: Any) -> Verdict:
    """A verdict of `cam-1`."""
    values: dict[str, Any] = {
        "id": f"cam-1-b1-{sequence}",
        "device": "cam-1",
        "boot": "b1",
        "sequence": sequence,
        "station": "press-1",
        "product": "lid",
        "part": f"P{sequence:05d}",
        "captured_at": datetime.now(UTC),
        "decision": "NG",
        "defect_class": "scratch",
        "scores": {"good": 0.1, "scratch": 0.8, "dent": 0.1},
        "thresholds": {"*": Band(inconclusive=0.4, ng=0.6)},
        "timings_ms": {"capture": 4.0, "infer": 3.1},
        "agent_version": "0.1.0",
    }
    return Verdict(**(values | changes))


def body_of(*verdicts: Verdict) -> bytes:
    """The JSON list an agent sends."""
    return b"[" + b",".join(v.canonical() for v in verdicts) + b"]"


def report(**changes: Any) -> Report:
    """A report of `cam-1`."""
    values: dict[str, Any] = {
        "device": "cam-1",
        "station": "press-1",
        "boot": "b1",
        "at": datetime.now(UTC),
        "state": AgentState.RUNNING,
        "mode": Mode.JUDGE,
        "agent_version": "0.1.0",
    }
    return Report(**(values | changes))


@dataclass
class Line:
    """What an agent does, over a real connection."""

    client: httpx.Client
    token: str
    counter: Any = field(default_factory=lambda: itertools.count(1))

    @property
    def headers(self) -> dict[str, str]:
        """The bearer token."""
        return {"Authorization": f"Bearer {self.token}"}

    def call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """One request as the device."""
        headers = self.headers | arguments.pop("headers", {})
        return self.client.request(method, path, headers=headers, **arguments)

    def send(self, *verdicts: Verdict) -> list[Receipt]:
        """Post verdicts and read the receipts."""
        answer = self.call("POST", "/v1/verdicts", content=body_of(*verdicts))
        assert answer.status_code == 200, answer.text
        return [Receipt.model_validate(one) for one in answer.json()]

    def upload(self, owner: Verdict, data: bytes, *, why: str = "ng", sha256: str | None = None) -> httpx.Response:
        """Put one picture."""
        address = f"/v1/pictures/{sha256 or sha256_hex(data)}"
        return self.call("PUT", address, params={"verdict": owner.id, "why": why}, content=data)
