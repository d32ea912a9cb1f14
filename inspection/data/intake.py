"""Intake: pictures and verdicts come in, each exactly once.

Invariants: a picture's row exists only after its bytes do; a refused picture leaves a counted quarantine row and nothing
else; one `(device, boot, sequence)` names one verdict for ever.
"""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from inspection.contracts import Receipt, Verdict, defect_score, sha256_hex
from inspection.data.pictures import PictureInfo, check_picture
from inspection.data.product import Product
from inspection.data.products import load_product
from inspection.errors import InputError, IntegrityError, PictureError, UsageError
from inspection.store.session import Store, exclusive, insert_new
from inspection.store.tables import PictureRow, QuarantineRow, VerdictRow

MAX_QUARANTINED_BYTES = 1_000_000


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


def quarantine(store: Store, data: bytes, *, code: str, detail: str, source: str) -> None:
    """Count something refused and keep its first megabyte; the same thing from the same source counts once."""
    kept = data[:MAX_QUARANTINED_BYTES]
    digest = store.blobs.put("quarantine", kept)
    if len(kept) < len(data):
        detail = f"{detail} (whole: {sha256_hex(data)}; the first {len(kept)} bytes are kept)"
    with store.begin() as session:
        exclusive(session, f"quarantine/{digest}")
        same = select(QuarantineRow.id).where(
            QuarantineRow.sha256 == digest, QuarantineRow.code == code, QuarantineRow.source == source[:200]
        )
        if session.scalars(same).first() is None:
            row = QuarantineRow(code=code, detail=detail, source=source[:200], sha256=digest, length=len(data))
            session.add(row)


def accept_verdict(session: Session, verdict: Verdict) -> Receipt:
    """Keep a verdict exactly once and say so.

    Raises InputError (``unknown_product``) when nobody knows its product, IntegrityError when another verdict is kept under
    the same id or key: two agents then share a name, or one rewrote its history.
    """
    product = _product_of(session, verdict)
    digest = verdict.digest
    scored = product.good_class in verdict.scores
    new = insert_new(
        session,
        VerdictRow,
        **{name: getattr(verdict, name) for name in _SEARCHED},
        mode=verdict.mode.value,
        decision=verdict.decision.value,
        defect_score=defect_score(verdict.scores, product.good_class) if scored else None,
        picture=_held(session, verdict.frame_sha256),
        sha256=digest,
        body=verdict.model_dump(mode="json"),
    )
    if not new:
        _check_same(session, verdict, digest)
    return Receipt(kind="verdict", key=verdict.id, sha256=digest, new=new)


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


def _held(session: Session, sha256: str | None) -> str | None:
    """A verdict's row names a picture only when its bytes are here; the hub names it when they come later."""
    return sha256 if sha256 is not None and session.get(PictureRow, sha256) is not None else None


def _check_known(store: Store, sha256: str, product: str) -> None:
    with store.begin(read_only=True) as session:
        load_product(session, product)
        held = session.get(PictureRow, sha256)
    if held is not None and held.product != product:
        said = f"the same picture is kept for product {held.product!r}: one picture belongs to one product"
        raise PictureError(said, "other_product")


def _product_of(session: Session, verdict: Verdict) -> Product:
    try:
        return load_product(session, verdict.product)
    except UsageError as error:
        raise InputError(f"verdict {verdict.id} of {verdict.device}: {error}", "unknown_product") from error


def _check_same(session: Session, verdict: Verdict, digest: str) -> None:
    key = (VerdictRow.device == verdict.device, VerdictRow.boot == verdict.boot, VerdictRow.sequence == verdict.sequence)
    kept = session.scalars(select(VerdictRow).where(*key)).one_or_none() or session.get(VerdictRow, verdict.id)
    if kept is not None and kept.sha256 == digest:
        return
    raise IntegrityError(
        f"verdict {verdict.id} of {verdict.device}, boot {verdict.boot}, number {verdict.sequence}: another verdict "
        "is kept under that id or number; do two agents run under one name, or did its journal go back?"
    )
