"""The labelled start: what a factory brings along, taken in like any import."""

from collections.abc import Iterator
from datetime import UTC, datetime

from inspection.data.intake import accept_picture
from inspection.data.labels import Answer, record_answers
from inspection.demo.plan import Plan
from inspection.errors import PictureError
from inspection.settings import Settings
from inspection.store.session import Store


def import_start(store: Store, settings: Settings, plan: Plan) -> int:
    """Take in the start's pictures with their labels (origin "import"). Returns how many; what is refused is counted in
    quarantine."""
    answers = list(_accepted(store, settings, plan))
    with store.begin() as session:
        record_answers(session, answers)
    return len(answers)


def _accepted(store: Store, settings: Settings, plan: Plan) -> Iterator[Answer]:
    for part in plan.schedule.start:
        shot = part.shoot()
        try:
            accepted = accept_picture(
                store,
                shot.png,
                product=plan.product.name,
                part=part.part,
                group=part.group,
                station=None,
                source="import",
                max_bytes=settings.max_picture_bytes,
                max_pixels=settings.max_picture_pixels,
            )
        except PictureError:
            continue
        yield Answer(
            product=plan.product.name,
            picture=accepted.sha256,
            origin="import",
            origin_id=accepted.sha256,
            label=shot.truth.label,
            boxes=list(shot.truth.boxes),
            annotator="demo",
            made_at=datetime.now(UTC),
        )
