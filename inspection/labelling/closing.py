"""Questions that nobody will answer: skipped by an operator, or deleted in Label Studio.

Invariants: such a row no longer counts as open, and its picture is not asked about again; an answer that comes all the
same is taken as any other. Nothing is closed while the project is another one than the tasks were made in.
"""

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from inspection.data.product import Product
from inspection.data.selection import PURPOSE, waits
from inspection.labelling.answers import namespace
from inspection.labelling.port import LabelStudio, task_key
from inspection.labelling.push import project_of_tasks
from inspection.store.session import Store
from inspection.store.tables import TaskRow, utc_now


def close_dead_ends(store: Store, studio: LabelStudio, product: Product, project_id: int) -> int:
    """Compare the open questions with their tasks and close those that were skipped or deleted; how many that were.

    Raises ServerError when Label Studio fails; nothing is closed then.
    """
    space = namespace(studio.counts(project_id).created_at)
    with store.begin(read_only=True) as session:
        if project_of_tasks(session, product) != space:
            return 0
        asked = _open_tasks(session, product, project_id)
    found = studio.find_tasks(project_id, list(asked)) if asked else {}
    dead = [row for key, row in asked.items() if all(s.answers == 0 and s.cancelled > 0 for s in found.get(key, []))]
    with store.begin() as session:
        session.execute(update(TaskRow).where(TaskRow.id.in_(dead)).values(closed_at=utc_now()))
    return len(dead)


def _open_tasks(session: Session, product: Product, project_id: int) -> dict[str, int]:
    """Key -> row id of the open questions whose task was confirmed."""
    wanted = (waits(product), TaskRow.project_id == project_id, TaskRow.label_studio_id.is_not(None))
    rows = session.execute(select(TaskRow.picture, TaskRow.id).where(*wanted))
    return {task_key(PURPOSE, picture): row for picture, row in rows}
