"""What operators do on a real Label Studio, through its API."""

import hashlib
from datetime import UTC, datetime
from typing import Any

import httpx

from inspection.contracts import Box, Decision, Verdict
from inspection.data.product import Product
from inspection.store.session import Store
from inspection.store.tables import PictureRow, VerdictRow
from tests.labelling.live import RunningServer


def choice(name: str) -> dict[str, Any]:
    """The choice of a class, as Label Studio writes it."""
    return {"from_name": "answer", "to_name": "picture", "type": "choices", "value": {"choices": [name]}}


def box(name: str, x: float, y: float, width: float, height: float) -> dict[str, Any]:
    """A box in percent."""
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": [name]}
    return {"from_name": "defect", "to_name": "picture", "type": "rectanglelabels", "value": value}


def answer(
    server: RunningServer,
    task: int,
    result: list[dict[str, Any]] | None,
    *,
    annotation: int | None = None,
    **fields: Any,
) -> int:
    """Answer a task, change an annotation, or with ``result`` None delete it; the annotation's id."""
    path, method = f"api/tasks/{task}/annotations/", "POST"
    if annotation is not None:
        path, method = f"api/annotations/{annotation}/", "PATCH" if result is not None else "DELETE"
    response = httpx.request(
        method,
        f"{server.url}/{path}",
        headers={"Authorization": f"Token {server.token}"},
        json=None if result is None else {"result": result, **fields},
        timeout=30,
        trust_env=False,
    )
    response.raise_for_status()
    return int(response.json()["id"]) if response.content else int(annotation or 0)


def add_pictures(store: Store, product: Product, count: int, *, start: int = 0) -> list[str]:
    """Rows of pictures (200 x 100 pixels) without bytes; their SHA-256."""
    names = [hashlib.sha256(f"{product.name} {start + n}".encode()).hexdigest() for n in range(count)]
    with store.begin() as session:
        for number, name in enumerate(names, start):
            session.add(
                PictureRow(
                    sha256=name,
                    length=1,
                    media_type="image/png",
                    width=200,
                    height=100,
                    phash="0" * 16,
                    product=product.name,
                    part=f"P{number}",
                    group=f"P{number}",
                    station="line-1",
                    source="import",
                )
            )
    return names


def add_verdict(
    store: Store, product: Product, decision: Decision, defect: str | None, scores: dict[str, float], *boxes: Box
) -> None:
    """A verdict about the first picture."""
    verdict = Verdict(
        id="v1",
        device="cam1",
        boot="b",
        sequence=1,
        station="line-1",
        product=product.name,
        part="P0",
        captured_at=datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC),
        decision=decision,
        defect_class=defect,
        scores=scores,
        regions=list(boxes),
        bundle_digest="ab" * 32,
        agent_version="1",
    )
    columns = {"decision": decision.value, "mode": "judge", "sha256": verdict.digest, "part": "P0"}
    with store.begin() as session:
        session.add(
            VerdictRow(
                id="v1",
                device="cam1",
                boot="b",
                sequence=1,
                station="line-1",
                product=product.name,
                captured_at=verdict.captured_at,
                body=verdict.model_dump(mode="json"),
                **columns,
            )
        )
