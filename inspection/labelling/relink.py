"""Picture links of open questions when the hub has another address: Label Studio keeps a link as it was once given.

Invariants: the address is remembered only after every open task shows its picture from there, so that a run that dies is
finished by the next; nothing but the link of a task changes; while the address stays nothing is asked of the server.
"""

from collections.abc import Callable
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.orm import Session

from inspection.contracts import sha256_hex
from inspection.data.product import Product
from inspection.labelling.interface import IMAGE_FIELD
from inspection.labelling.port import LabelStudio
from inspection.store.leases import Lease
from inspection.store.session import Store
from inspection.store.tables import TaskRow, WatermarkRow

_NO_PICTURE = "0" * 64
_MARK_DIGITS, _MARK_LENGTH = 16, 100


def relink_open_tasks(
    store: Store,
    studio: LabelStudio,
    lease: Lease,
    product: Product,
    project_id: int,
    picture_link: Callable[[str], str],
) -> int:
    """Give open tasks the links of today if the hub's address is another one than last time; how many that were.

    ``lease`` is the push's own. Raises ServerError when Label Studio fails: run again, the rest is done then.
    """
    mark, name = mark_of(picture_link), f"label_studio/{product.name}/pictures"
    with store.begin(read_only=True) as session:
        known = session.get(WatermarkRow, name)
        if known is not None and known.value == mark:
            return 0
        pictures = _open_tasks(session, product, project_id)
    changed = 0
    for task in studio.read_tasks(project_id, list(pictures)) if pictures else []:
        link = picture_link(pictures[task.id])
        if task.data.get(IMAGE_FIELD) != link:
            studio.change_data(task.id, {**task.data, IMAGE_FIELD: link})
            changed += 1
    with store.begin() as session:
        lease.check(session)
        session.merge(WatermarkRow(name=name, value=mark))
    return changed


def mark_of(picture_link: Callable[[str], str]) -> str:
    """What is remembered of the links: a digest of how they are made (address and key), then the address for people."""
    probe = picture_link(_NO_PICTURE)
    parts = urlsplit(probe)
    return f"{sha256_hex(probe.encode())[:_MARK_DIGITS]} {parts.scheme}://{parts.netloc}"[:_MARK_LENGTH]


def _open_tasks(session: Session, product: Product, project_id: int) -> dict[int, str]:
    """Label Studio's id -> picture of the confirmed questions that wait for an answer, for whatever purpose."""
    rows = session.execute(
        select(TaskRow.label_studio_id, TaskRow.picture)
        .where(TaskRow.product == product.name, TaskRow.project_id == project_id)
        .where(TaskRow.label_studio_id.is_not(None), TaskRow.answered_at.is_(None), TaskRow.closed_at.is_(None))
    )
    return {task: picture for task, picture in rows if task is not None}
