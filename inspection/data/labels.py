"""Labels: an append-only record of answers, and what they say now.

Invariants: nothing is changed, an answer that changes appends a row under the same ``origin_id``, one that is withdrawn
appends a retraction; recording the same answer twice appends nothing; a picture whose live answers disagree has no label.
An answer from Label Studio was given by somebody who could see the imported one: while there is one, imported answers
of that picture do not count.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from inspection.contracts import Box
from inspection.data.product import Product
from inspection.data.products import load_product, nearest
from inspection.errors import LabelError, UsageError
from inspection.store.session import exclusive
from inspection.store.tables import LabelRow, PictureRow, utc_now

LABEL_STUDIO = "label_studio"
IMPORT = "import"
_ANSWER, _RETRACTION = "answer", "retraction"
_AT_ONCE = 500  # values in one IN (...): SQLite has a limit


@dataclass(frozen=True)
class Answer:
    """Somebody's answer about a picture; ``label`` None: cannot tell. ``body`` is the answer as its source gave it."""

    product: str
    picture: str
    origin: str
    origin_id: str
    label: str | None
    annotator: str
    made_at: datetime
    boxes: Sequence[Box] = ()
    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recorded:
    """How many answers were appended, and how many were known already."""

    new: int
    known: int


@dataclass(frozen=True)
class CurrentLabel:
    """What the live answers about a picture say together. ``label`` is None when they disagree, or nobody can tell."""

    picture: str
    label: str | None
    boxes: list[Box]
    contradictory: bool
    cannot_tell: bool
    said: list[str]  # "annotator: label", sorted
    last_label_id: int


def record_answers(session: Session, answers: Iterable[Answer]) -> Recorded:
    """Append what is new or changed. Raises LabelError, before anything is written, when one answer cannot be used:
    ``unknown_class``, ``unknown_picture``."""
    given = list(answers)
    _check(session, given)
    for product in sorted({a.product for a in given}):
        exclusive(session, f"labels/{product}")  # ids then rise in the order of commits: a reader's mark misses none
    latest = _latest_rows(session, [(a.origin, a.origin_id) for a in given])
    new = 0
    for answer in given:
        row = _row(answer)
        before = latest.get((answer.origin, answer.origin_id))
        if before is None or _content(before) != _content(row):
            session.add(row)
            latest[(answer.origin, answer.origin_id)] = row
            new += 1
    session.flush()
    return Recorded(new, len(given) - new)


def retract(
    session: Session,
    origin: str,
    origin_id: str,
    *,
    annotator: str = "",
    made_at: datetime | None = None,
    body: dict[str, Any] | None = None,
) -> bool:
    """Withdraw the answer of that origin; False when there is none to withdraw."""
    product = session.scalars(
        select(LabelRow.product).where(LabelRow.origin == origin, LabelRow.origin_id == origin_id)
    ).first()
    exclusive(session, f"labels/{product}")
    row = _latest_rows(session, [(origin, origin_id)]).get((origin, origin_id))
    if row is None or row.kind == _RETRACTION:
        return False
    retraction = LabelRow(
        product=row.product,
        picture=row.picture,
        kind=_RETRACTION,
        label=None,
        boxes=[],
        origin=origin,
        origin_id=origin_id,
        annotator=annotator or row.annotator,
        made_at=made_at or utc_now(),
        body=body or {},
    )
    session.add(retraction)
    session.flush()
    return True


def retract_picture(
    session: Session, product: str | Product, picture: str, *, who: str, why: str, origin_id: str | None = None
) -> list[LabelRow]:
    """Withdraw every answer about a picture that stands, or the one of ``origin_id``; the answers that stood.

    ``picture`` is a sha256 or a beginning of it that no other picture of the product shares. An answer that its source
    gives again (an import that is repeated, an annotation that is still in Label Studio) counts again. Raises UsageError
    when there is nothing to withdraw.
    """
    standing = answers_about(session, product, picture)
    chosen = [row for row in standing if origin_id in (None, row.origin_id)]
    if not chosen:
        known = "; ".join(f"{row.origin_id} ({row.origin}, {row.annotator})" for row in standing) or "none"
        which = "answer" if origin_id is None else f"answer {origin_id!r}"
        raise UsageError(f"there is no {which} about picture {picture} to retract; those that stand: {known}")
    for row in chosen:
        retract(session, row.origin, row.origin_id, annotator=who, body={"why": why})
    return chosen


def answers_about(session: Session, product: str | Product, picture: str) -> list[LabelRow]:
    """The answers about a picture (sha256, or a beginning that is enough) that stand. Raises UsageError for no such one."""
    load_product(session, name_of(product))
    mine = (PictureRow.product == name_of(product), PictureRow.sha256.startswith(picture, autoescape=True))
    found = list(session.scalars(select(PictureRow.sha256).where(*mine).limit(2)))
    if len(found) != 1:
        raise UsageError(
            f"{'several' if found else 'no'} pictures of {name_of(product)!r} begin with {picture!r}: give more of the "
            "sha256, or look at the part with `inspection passport`"
        )
    return [row for row in live_answers(session, product) if row.picture == found[0]]


def live_answers(session: Session, product: str | Product) -> list[LabelRow]:
    """The latest row of each origin id that is not a retraction, in the order they were recorded."""
    latest = select(func.max(LabelRow.id)).group_by(LabelRow.origin, LabelRow.origin_id)
    wanted = select(LabelRow).where(LabelRow.product == name_of(product), LabelRow.kind == _ANSWER, LabelRow.id.in_(latest))
    return list(session.scalars(wanted.order_by(LabelRow.id)))


def current_labels(session: Session, product: str | Product) -> dict[str, CurrentLabel]:
    """What every answered picture of a product is labelled now, by the picture's sha256."""
    by_picture: dict[str, list[LabelRow]] = defaultdict(list)
    for row in live_answers(session, product):
        by_picture[row.picture].append(row)
    return {picture: _agree(picture, rows) for picture, rows in sorted(by_picture.items())}


def count_new_labels(session: Session, product: str | Product, since_label_id: int) -> int:
    """How many pictures were answered (or whose answer changed or was withdrawn) after that label id."""
    count = select(func.count(func.distinct(LabelRow.picture)))
    wanted = count.where(LabelRow.product == name_of(product), LabelRow.id > since_label_id)
    return session.scalar(wanted) or 0


def last_label_id(session: Session, product: str | Product) -> int:
    """The highest label id of a product, 0 when it has none."""
    return session.scalar(select(func.max(LabelRow.id)).where(LabelRow.product == name_of(product))) or 0


def name_of(product: str | Product) -> str:
    """A product's name, from the record or the name itself."""
    return product if isinstance(product, str) else product.name


def _check(session: Session, answers: Sequence[Answer]) -> None:
    classes = {name: load_product(session, name).classes for name in {a.product for a in answers}}
    for answer in answers:
        named = [answer.label, *(box.label for box in answer.boxes)]
        strange = next((n for n in named if n is not None and n not in classes[answer.product]), None)
        if strange is not None:
            raise LabelError(
                f"answer {answer.origin_id} of {answer.origin} names the class {strange!r}, which product "
                f"{answer.product!r} does not have; {nearest(strange, classes[answer.product])}",
                "unknown_class",
            )
    missing = {a.picture for a in answers} - _known_pictures(session, answers)
    if missing:
        raise LabelError(
            f"{len(missing)} answers are about pictures of another product, or that the store does not hold, the first "
            f"{min(missing)}; import or upload the pictures first",
            "unknown_picture",
        )


def _known_pictures(session: Session, answers: Sequence[Answer]) -> set[str]:
    products = {(a.picture, a.product) for a in answers}
    wanted = sorted({a.picture for a in answers})
    known: set[str] = set()
    for start in range(0, len(wanted), _AT_ONCE):
        some = PictureRow.sha256.in_(wanted[start : start + _AT_ONCE])
        rows = session.execute(select(PictureRow.sha256, PictureRow.product).where(some))
        known |= {sha256 for sha256, product in rows if (sha256, product) in products}
    return known


def _latest_rows(session: Session, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], LabelRow]:
    found: dict[tuple[str, str], LabelRow] = {}
    for origin in {o for o, _ in keys}:
        ids = sorted({i for o, i in keys if o == origin})
        for start in range(0, len(ids), _AT_ONCE):
            rows = session.scalars(_latest(origin, ids[start : start + _AT_ONCE]))
            found |= {(row.origin, row.origin_id): row for row in rows}
    return found


def _latest(origin: str, ids: Sequence[str]) -> Select[tuple[LabelRow]]:
    mine = (LabelRow.origin == origin, LabelRow.origin_id.in_(ids))
    newest = select(func.max(LabelRow.id)).where(*mine).group_by(LabelRow.origin_id)
    return select(LabelRow).where(LabelRow.id.in_(newest))


def _row(answer: Answer) -> LabelRow:
    return LabelRow(
        product=answer.product,
        picture=answer.picture,
        kind=_ANSWER,
        label=answer.label,
        boxes=[box.model_dump(mode="json") for box in answer.boxes],
        origin=answer.origin,
        origin_id=answer.origin_id,
        annotator=answer.annotator,
        made_at=answer.made_at,
        body=answer.body,
    )


def _content(row: LabelRow) -> tuple[object, ...]:
    return row.kind, row.picture, row.label, row.annotator, row.boxes


def _agree(picture: str, rows: Sequence[LabelRow]) -> CurrentLabel:
    seen_by_people = [row for row in rows if row.origin == LABEL_STUDIO]
    counted = seen_by_people or list(rows)
    labels = {row.label for row in counted}
    agreed = len(labels) == 1
    return CurrentLabel(
        picture=picture,
        label=counted[-1].label if agreed else None,
        boxes=[Box.model_validate(box) for box in counted[-1].boxes] if agreed else [],
        contradictory=not agreed,
        cannot_tell=labels == {None},
        said=sorted(f"{row.annotator}: {row.label or 'cannot tell'}" for row in counted),
        last_label_id=max(row.id for row in rows),
    )
