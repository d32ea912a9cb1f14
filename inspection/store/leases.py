"""Leases: one holder of a name at a time, also when a holder was killed. Kept in the database, judged by its clock.

Invariants: every taking over raises the fencing token; a holder whose lease was taken over, or has expired, fails
`check`; all decisions are single compare-and-set statements, so that two takers cannot both win. Times are the database's
own, because the clocks of several machines differ.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, DateTime, func, literal_column, or_, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from inspection.errors import EscapementError, LeaseError
from inspection.store.session import Store, insert_new, is_postgresql
from inspection.store.tables import LeaseRow

_RETRY_SECONDS = 0.2


@dataclass
class Lease:
    """A lease that is (or was) held. ``token`` rises with every new holder; write it down with what it protects."""

    name: str
    holder: str
    token: int
    lost: str = ""  # why the renewing thread gave up; empty while it has not
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)

    def check(self, session: Session) -> None:
        """Raises LeaseError unless the lease is still this holder's; on PostgreSQL nobody can take it over until the
        transaction ends (on SQLite there is one writer anyway)."""
        mine = select(LeaseRow.token).where(*self._mine(), LeaseRow.expires_at > _now(session)).with_for_update()
        if session.scalar(mine) is None:
            why = self.lost or "it expired, or another process took it over"
            raise LeaseError(
                f"{self.holder} no longer holds the lease {self.name!r} (token {self.token}): {why}; nothing was done"
            )

    def _mine(self) -> tuple[ColumnElement[bool], ...]:
        return LeaseRow.name == self.name, LeaseRow.holder == self.holder, LeaseRow.token == self.token


@contextmanager
def hold(store: Store, name: str, holder: str, *, ttl_seconds: float, wait_seconds: float = 0) -> Iterator[Lease]:
    """Hold a lease while the block runs; a thread renews it three times per ``ttl_seconds``.

    A killed holder's lease is free ``ttl_seconds`` after its last renewal. Raises LeaseError, naming the holder, when it is
    still held by another after ``wait_seconds``.
    """
    lease = _wait_for(store, name, holder, ttl_seconds, wait_seconds)
    renewer = threading.Thread(target=_renew, args=(store, lease, ttl_seconds), name=f"lease {name}", daemon=True)
    renewer.start()
    try:
        yield lease
    finally:
        lease._stop.set()
        renewer.join()
        _release(store, lease)


def _wait_for(store: Store, name: str, holder: str, ttl: float, wait: float) -> Lease:
    deadline = time.monotonic() + wait
    while True:
        lease = _take(store, name, holder, ttl)
        if lease is not None:
            return lease
        if time.monotonic() >= deadline:
            raise LeaseError(_who_holds(store, name))
        time.sleep(_RETRY_SECONDS)


def _take(store: Store, name: str, holder: str, ttl: float) -> Lease | None:
    with store.begin() as session:
        insert_new(session, LeaseRow, name=name, holder=None, token=0, expires_at=None)
        free = or_(LeaseRow.holder.is_(None), LeaseRow.expires_at <= _now(session))
        take = update(LeaseRow).where(LeaseRow.name == name, free)
        if not _changed(session, take.values(holder=holder, token=LeaseRow.token + 1, expires_at=_after(session, ttl))):
            return None
        token = session.scalars(select(LeaseRow.token).where(LeaseRow.name == name)).one()
    return Lease(name, holder, token)


def _renew(store: Store, lease: Lease, ttl: float) -> None:
    while not lease._stop.wait(ttl / 3):
        try:
            with store.begin() as session:
                mine = update(LeaseRow).where(*lease._mine(), LeaseRow.expires_at > _now(session))
                kept = _changed(session, mine.values(expires_at=_after(session, ttl)))
        except EscapementError as error:  # the database may come back before the lease expires: `check` decides
            lease.lost = f"it could not be renewed: {error}"
            continue
        lease.lost = "" if kept else "it expired before it was renewed"
        if not kept:
            return


def _release(store: Store, lease: Lease) -> None:
    with store.begin() as session:
        session.execute(update(LeaseRow).where(*lease._mine()).values(holder=None, expires_at=None))


def _who_holds(store: Store, name: str) -> str:
    with store.begin(read_only=True) as session:
        row = session.get(LeaseRow, name)
    who = row.holder if row is not None and row.holder else "another process"
    until = f" until {row.expires_at:%H:%M:%S} UTC" if row is not None and row.expires_at else ""
    return f"{who} holds the lease {name!r}{until}, longer if it renews it: try again when it is done"


def _changed(session: Session, statement: Any) -> bool:
    return (
        cast(CursorResult[Any], session.execute(statement, execution_options={"synchronize_session": False})).rowcount == 1
    )


def _now(session: Session) -> ColumnElement[datetime]:
    """The database's clock, not the start of the transaction as ``now()`` is."""
    if is_postgresql(session):
        return func.clock_timestamp(type_=DateTime(timezone=True))
    return literal_column("strftime('%Y-%m-%d %H:%M:%f000', 'now')", DateTime(timezone=True))


def _after(session: Session, seconds: float) -> ColumnElement[datetime]:
    if is_postgresql(session):
        return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    return literal_column(f"strftime('%Y-%m-%d %H:%M:%f000', 'now', '{seconds:+f} seconds')", DateTime(timezone=True))
