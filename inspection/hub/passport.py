"""A part's passport: every verdict about it, with what decided, from what, and what people said later."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from inspection.contracts import ANY_DEFECT, Band, Manifest, Recipe, Verdict, defect_score
from inspection.hub.links import picture_path
from inspection.hub.state import Hub
from inspection.store.tables import BundleRow, LabelRow, PictureRow, VerdictRow

MAX_VERDICTS = 20
_Kind = TypeVar("_Kind", Manifest, Recipe)


@dataclass(frozen=True)
class ScoreView:
    """One score against its band (None: no threshold of its own)."""

    name: str
    score: float
    band: Band | None


@dataclass(frozen=True)
class VerdictView:
    """A verdict with its evidence. ``picture`` is None when no bytes are held."""

    verdict: Verdict
    row: VerdictRow
    picture: PictureRow | None
    picture_path: str
    scores: Sequence[ScoreView]
    manifest: Manifest | None
    recipe: Recipe | None
    labels: Sequence[LabelRow]


def read_passport(hub: Hub, part: str) -> list[VerdictView]:
    """The newest verdicts about ``part``, newest first; empty when nobody inspected it."""
    query = select(VerdictRow).where(VerdictRow.part == part).order_by(VerdictRow.captured_at.desc()).limit(MAX_VERDICTS)
    with hub.store.begin(read_only=True) as session:
        return [_view(hub, session, row) for row in session.scalars(query)]


def _view(hub: Hub, session: Session, row: VerdictRow) -> VerdictView:
    verdict = Verdict.model_validate(row.body)
    manifest = _body(session, row.bundle_digest, Manifest)
    picture = session.get(PictureRow, row.picture) if row.picture else None
    labels: Sequence[LabelRow] = ()
    if picture is not None:
        labels = session.scalars(select(LabelRow).where(LabelRow.picture == picture.sha256).order_by(LabelRow.id)).all()
    return VerdictView(
        verdict=verdict,
        row=row,
        picture=picture,
        picture_path=picture_path(hub.settings, picture.sha256) if picture else "",
        scores=_scores(verdict, manifest.good_class if manifest else None),
        manifest=manifest,
        recipe=_body(session, row.recipe_digest, Recipe),
        labels=labels,
    )


def _body(session: Session, digest: str | None, kind: type[_Kind]) -> _Kind | None:
    row = session.get(BundleRow, digest) if digest else None
    return kind.model_validate(row.body) if row is not None and row.body else None


def _scores(verdict: Verdict, good_class: str | None) -> list[ScoreView]:
    found = [ScoreView(name, score, verdict.thresholds.get(name)) for name, score in verdict.scores.items()]
    found.sort(key=lambda one: -one.score)
    if ANY_DEFECT in verdict.thresholds and good_class in verdict.scores:
        total = defect_score(verdict.scores, good_class)
        found.insert(0, ScoreView("any defect", total, verdict.thresholds[ANY_DEFECT]))
    return found
