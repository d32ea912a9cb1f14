"""What devices send, into the store: batches of verdicts, and pictures.

Invariants: a batch is stored whole or not at all; the same verdict twice is one row; two different verdicts under one
key are never both kept (409, and quarantine says who); a receipt is given only for what is committed.
"""

import json
from collections.abc import Sequence

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.orm import Session

from inspection.contracts import Receipt, Verdict, sha256_hex
from inspection.data.intake import RefusedVerdictError, accept_picture, accept_verdicts, quarantine
from inspection.data.products import load_product
from inspection.errors import PictureError
from inspection.hub.auth import Caller
from inspection.hub.faults import refusal
from inspection.hub.state import Hub
from inspection.store.tables import VerdictRow

MAX_VERDICTS = 500
_VERDICTS = TypeAdapter(list[Verdict])
_LONGEST = {"id": 64, "boot": 64, "part": 200, "lot": 200, "defect_class": 100}  # characters, as the columns take them
_LARGEST_SEQUENCE = 2**63 - 1


class RefusedError(Exception):
    """A batch that is not taken because of one verdict: its status and code, and the bytes to blame (None: all)."""

    def __init__(self, message: str, *, status: int, code: str, culprit: bytes | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.culprit = culprit


def parse_verdicts(body: bytes) -> list[Verdict]:
    """Read a batch. Raises RefusedError that names the position and the field of the first thing wrong."""
    try:
        verdicts = _VERDICTS.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = " / ".join(str(step) for step in first["loc"]) or "the body"
        said = f"not a list of verdicts: {place}: {first['msg']} ({error.error_count()} faults)"
        raise _unreadable(said, _element(body, first["loc"])) from None
    if len(verdicts) > MAX_VERDICTS:
        raise _unreadable(f"{len(verdicts)} verdicts in one request, at most {MAX_VERDICTS} are taken", None)
    for index, verdict in enumerate(verdicts):
        if fault := _fault(verdict):
            raise _unreadable(f"verdict {index} ({verdict.id!r}): {fault}", _element(body, (index,)))
    return verdicts


def _unreadable(message: str, culprit: bytes | None) -> RefusedError:
    return RefusedError(message, status=422, code="bad_verdict", culprit=culprit)


def _element(body: bytes, place: tuple[int | str, ...]) -> bytes | None:
    """The bytes of one element of a JSON list, so that quarantine shows the culprit and not its neighbours."""
    if not place or not isinstance(place[0], int):
        return None
    try:
        return json.dumps(json.loads(body)[place[0]]).encode()
    except ValueError:  # readable for the one parser and not for the other, like a number of 5,000 digits
        return None


def _fault(verdict: Verdict) -> str | None:
    for field, longest in _LONGEST.items():
        text = getattr(verdict, field)
        if text is None:
            continue
        if len(text) > longest:
            return f"{field} has {len(text)} characters, at most {longest} are kept"
        if "\0" in text:
            return f"{field} holds a NUL character"
    if not verdict.id or not verdict.part:
        return "id and part must not be empty"
    if verdict.sequence > _LARGEST_SEQUENCE:
        return f"sequence {verdict.sequence} is too large"
    try:
        verdict.canonical()
    except ValueError as error:  # NaN or infinity somewhere, also in fields this version does not know
        return f"it has no canonical form: {error}"
    return None


def receive_verdicts(hub: Hub, caller: Caller, body: bytes) -> list[Receipt]:
    """Store a batch of verdicts in one transaction and give their receipts, in order.

    Raises HTTPException: 422 unreadable or of an unknown product, 403 another device's verdict, 409 another verdict is
    held under its key. The one to blame is in quarantine then, and nothing of the batch is stored.
    """
    try:
        verdicts = parse_verdicts(body)
        _check_sender(caller, verdicts)
        with hub.store.begin() as session:
            receipts = _accept(session, verdicts)
    except RefusedError as error:
        hub.meters.refused.labels("verdict").inc()
        quarantine(hub.store, error.culprit or body, code=error.code, detail=str(error), source=caller.device)
        raise refusal(error.status, error.code, str(error)) from error
    _count(hub, verdicts, receipts)
    return receipts


def _check_sender(caller: Caller, verdicts: Sequence[Verdict]) -> None:
    for verdict in verdicts:
        if verdict.device != caller.device:
            said = f"verdict {verdict.id} names device {verdict.device}, but the token is that of {caller.device}"
            raise RefusedError(said, status=403, code="foreign_verdict", culprit=verdict.canonical())
        if verdict.station != caller.station:
            said = (
                f"verdict {verdict.id} names station {verdict.station}, but {caller.device} is enrolled at {caller.station}"
            )
            raise RefusedError(said, status=403, code="foreign_verdict", culprit=verdict.canonical())


def _accept(session: Session, verdicts: Sequence[Verdict]) -> list[Receipt]:
    try:
        return accept_verdicts(session, verdicts)
    except RefusedVerdictError as error:
        status = 409 if error.code == "verdict_conflict" else 422
        raise RefusedError(str(error), status=status, code=error.code, culprit=error.verdict.canonical()) from error


def _count(hub: Hub, verdicts: Sequence[Verdict], receipts: Sequence[Receipt]) -> None:
    for verdict, receipt in zip(verdicts, receipts, strict=True):
        if receipt.new:
            hub.meters.verdicts.labels(verdict.decision.value).inc()
        else:
            hub.meters.repeats.inc()


def find_verdict(hub: Hub, caller: Caller, verdict_id: str, sha256: str) -> Verdict:
    """The verdict a picture belongs to.

    Raises HTTPException: 404 not held (send verdicts first), 403 another device's, 409 it names another picture.
    """
    with hub.store.begin(read_only=True) as session:
        row = session.get(VerdictRow, verdict_id)
        body = None if row is None else row.body
    if body is None:
        raise refusal(404, "unknown_verdict", f"no verdict {verdict_id!r} here: send the verdict before its picture")
    verdict = Verdict.model_validate(body)
    if verdict.device != caller.device:
        raise refusal(403, "foreign_verdict", f"verdict {verdict_id} belongs to another device")
    if verdict.frame_sha256 not in (None, sha256):
        raise refusal(409, "other_picture", f"verdict {verdict_id} names picture {verdict.frame_sha256}, not {sha256}")
    return verdict


def receive_picture(hub: Hub, verdict: Verdict, sha256: str, why: str, data: bytes) -> Receipt:
    """Check and keep a picture, and note at its verdict that its bytes are held.

    Raises HTTPException 422 when the digest is another or the bytes are no picture we accept (both in quarantine).
    """
    if (came := sha256_hex(data)) != sha256:
        hub.meters.refused.labels("picture").inc()
        detail = f"the body has digest {came}, the address says {sha256}: send it again"
        quarantine(hub.store, data, code="digest_mismatch", detail=detail, source=verdict.device)
        raise refusal(422, "digest_mismatch", detail)
    limits = hub.settings
    with hub.store.begin(read_only=True) as session:
        group = load_product(session, verdict.product).group_of(verdict.part, verdict.lot)
    try:
        accepted = accept_picture(
            hub.store,
            data,
            product=verdict.product,
            part=verdict.part,
            group=group,
            station=verdict.station,
            source="agent",
            origin=verdict.device,
            max_bytes=limits.max_picture_bytes,
            max_pixels=limits.max_picture_pixels,
        )
    except PictureError as error:
        hub.meters.refused.labels("picture").inc()
        raise refusal(422, error.code, str(error)) from error
    with hub.store.begin() as session:
        row = session.get_one(VerdictRow, verdict.id)
        if row.picture_why is None:
            row.picture, row.picture_why = sha256, why
    if accepted.new:
        hub.meters.pictures.inc()
        hub.meters.picture_bytes.inc(len(data))
    return Receipt(kind="picture", key=sha256, sha256=sha256, new=accepted.new)
