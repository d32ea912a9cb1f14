"""Intake: pictures and verdicts come in, each exactly once.

Invariants: a picture's row exists only after its bytes do; a refused picture leaves a counted quarantine row and nothing
else; one `(device, boot, sequence)` names one verdict for ever.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from inspection.contracts import Receipt, Verdict, defect_score, sha256_hex
from inspection.data.pictures import PictureInfo, check_picture
from inspection.data.product import Product
from inspection.data.products import load_product
from inspection.errors import InputError, PictureError, UsageError
from inspection.store.session import Store, exclusive, insert_all_new, insert_new
from inspection.store.tables import PictureRow, QuarantineRow, VerdictRow

MAX_QUARANTINED_BYTES = 1_000_000
_LARGEST_LENGTH = 2**31 - 1  # bytes, as quarantine's column takes them on PostgreSQL; the detail has the true number


@dataclass(frozen=True)
class Accepted:
    """A picture the store holds; ``new`` is False when it held it already."""

    sha256: str
    new: bool


def accept_picture(
    store: Store,
    data: bytes,
    *,
    product: str,
    part: str,
    group: str,
    station: str | None,
    source: str,
    fixed_split: str | None = None,
    max_bytes: int,
    max_pixels: int,
    origin: str | None = None,
) -> Accepted:
    """Check a picture and keep it; the same bytes again change nothing (the first part and group count).

    ``source`` is "agent" or "import"; ``origin`` says in quarantine whom or what file it came from (default: the source and
    station). Raises PictureError after counting it in quarantine, UsageError for an unknown product.
    """
    came_from = origin or f"{source} {station or ''}".strip()
    info = check_or_quarantine(store, data, product=product, origin=came_from, max_bytes=max_bytes, max_pixels=max_pixels)
    store.blobs.put("pictures", data)
    with store.begin() as session:
        new = keep_picture(
            session,
            info,
            product=product,
            part=part,
            group=group,
            station=station,
            source=source,
            fixed_split=fixed_split,
        )
    return Accepted(info.sha256, new)


def check_or_quarantine(
    store: Store, data: bytes, *, product: str, origin: str, max_bytes: int, max_pixels: int
) -> PictureInfo:
    """Check a picture for a product; what is refused is counted in quarantine, then PictureError is raised."""
    try:
        info = check_picture(data, max_bytes=max_bytes, max_pixels=max_pixels)
        _check_known(store, info.sha256, product)
    except PictureError as error:
        quarantine(store, data, code=error.code, detail=str(error), source=origin)
        raise
    return info


def read_or_quarantine(store: Store, path: Path, *, origin: str, max_bytes: int) -> bytes:
    """The bytes of a picture file. One that is larger than ``max_bytes`` (by its size: it is not read whole) or cannot be
    read is counted in quarantine, then PictureError ``too_large`` or ``unreadable`` is raised."""
    try:
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            data = file.read(MAX_QUARANTINED_BYTES if length > max_bytes else -1)
    except OSError as error:
        refusal = PictureError(
            f"{path} cannot be read: {error.strerror or error}; look at its owner and disk", "unreadable"
        )
        quarantine(store, b"", code=refusal.code, detail=str(refusal), source=origin)
        raise refusal from error
    if length > max_bytes:
        refusal = PictureError(f"{length} bytes are more than the {max_bytes} allowed", "too_large")
        quarantine(store, data, code=refusal.code, detail=str(refusal), source=origin, length=length)
        raise refusal
    return data


def keep_picture(
    session: Session,
    info: PictureInfo,
    *,
    product: str,
    part: str,
    group: str,
    station: str | None,
    source: str,
    fixed_split: str | None = None,
) -> bool:
    """The row of a checked picture whose bytes are in the blob store already; True when it is new."""
    names = ("sha256", "length", "media_type", "width", "height", "phash", "descriptor")
    return insert_new(
        session,
        PictureRow,
        **{name: getattr(info, name) for name in names},
        product=product,
        part=part,
        group=group,
        station=station,
        source=source,
        fixed_split=fixed_split,
    )


def quarantine(store: Store, data: bytes, *, code: str, detail: str, source: str, length: int | None = None) -> None:
    """Count something refused and keep its first megabyte; the same thing from the same source counts once.

    ``length`` is that of the whole in bytes, where ``data`` is only its beginning.
    """
    kept, whole = data[:MAX_QUARANTINED_BYTES], len(data) if length is None else length
    digest = store.blobs.put("quarantine", kept)
    if length is not None:
        detail = f"{detail} (the first {len(kept)} bytes are kept)"
    elif len(kept) < len(data):
        detail = f"{detail} (whole: {sha256_hex(data)}; the first {len(kept)} bytes are kept)"
    with store.begin() as session:
        exclusive(session, f"quarantine/{digest}")
        same = select(QuarantineRow.id).where(
            QuarantineRow.sha256 == digest, QuarantineRow.code == code, QuarantineRow.source == source[:200]
        )
        if session.scalars(same).first() is None:
            columns = {"code": code, "detail": detail, "source": source[:200], "sha256": digest}
            session.add(QuarantineRow(**columns, length=min(whole, _LARGEST_LENGTH)))


class RefusedVerdictError(InputError):
    """``verdict`` cannot be kept; ``code`` is "unknown_product" or "verdict_conflict"."""

    def __init__(self, message: str, code: str, verdict: Verdict) -> None:
        super().__init__(message, code)
        self.verdict = verdict


def accept_verdicts(session: Session, verdicts: Sequence[Verdict]) -> list[Receipt]:
    """Keep each verdict exactly once and say so, in order.

    Raises RefusedVerdictError: nobody knows its product, or another verdict is kept under the same id or key (two agents
    then share a name, or one rewrote its history).
    """
    products = _products_of(session, verdicts)
    held = _held(session, verdicts)
    rows = [_row(verdict, products[verdict.product], held) for verdict in verdicts]
    new = {key for (key,) in insert_all_new(session, VerdictRow, rows)}
    receipts = []
    for verdict, row in zip(verdicts, rows, strict=True):
        if verdict.id not in new:
            _check_same(session, verdict, row["sha256"])
        receipts.append(Receipt(kind="verdict", key=verdict.id, sha256=row["sha256"], new=verdict.id in new))
        new.discard(verdict.id)  # the same verdict again in one batch is not new
    return receipts


_SEARCHED = (
    "id",
    "device",
    "boot",
    "sequence",
    "station",
    "product",
    "part",
    "captured_at",
    "defect_class",
    "bundle_digest",
    "recipe_digest",
)


def _row(verdict: Verdict, product: Product, held: set[str]) -> dict[str, Any]:
    """A verdict's columns. It names a picture only when its bytes are here; the hub names it when they come later."""
    scored = product.good_class in verdict.scores
    return {name: getattr(verdict, name) for name in _SEARCHED} | {
        "mode": verdict.mode.value,
        "purpose": verdict.purpose.value,
        "decision": verdict.decision.value,
        "defect_score": defect_score(verdict.scores, product.good_class) if scored else None,
        "picture": verdict.frame_sha256 if verdict.frame_sha256 in held else None,
        "sha256": verdict.digest,
        "body": verdict.model_dump(mode="json"),
    }


def _held(session: Session, verdicts: Sequence[Verdict]) -> set[str]:
    """Which of the verdicts' pictures are here."""
    frames = {verdict.frame_sha256 for verdict in verdicts if verdict.frame_sha256 is not None}
    return set(session.scalars(select(PictureRow.sha256).where(PictureRow.sha256.in_(frames)))) if frames else set()


def _check_known(store: Store, sha256: str, product: str) -> None:
    with store.begin(read_only=True) as session:
        load_product(session, product)
        held = session.get(PictureRow, sha256)
    if held is not None and held.product != product:
        said = f"the same picture is kept for product {held.product!r}: one picture belongs to one product"
        raise PictureError(said, "other_product")


def _products_of(session: Session, verdicts: Sequence[Verdict]) -> dict[str, Product]:
    found: dict[str, Product] = {}
    for verdict in verdicts:
        if verdict.product not in found:
            try:
                found[verdict.product] = load_product(session, verdict.product)
            except UsageError as error:
                said = f"verdict {verdict.id} of {verdict.device}: {error}"
                raise RefusedVerdictError(said, "unknown_product", verdict) from error
    return found


def _check_same(session: Session, verdict: Verdict, digest: str) -> None:
    key = (VerdictRow.device == verdict.device, VerdictRow.boot == verdict.boot, VerdictRow.sequence == verdict.sequence)
    kept = session.scalars(select(VerdictRow).where(*key)).one_or_none() or session.get(VerdictRow, verdict.id)
    if kept is not None and kept.sha256 == digest:
        return
    said = (
        f"verdict {verdict.id} of {verdict.device}, boot {verdict.boot}, number {verdict.sequence}: another verdict "
        "is kept under that id or number; do two agents run under one name, or did its journal go back?"
    )
    raise RefusedVerdictError(said, "verdict_conflict", verdict)
