"""The ledger of promotions only grows, and only the holder of the lease writes it."""

from dataclasses import dataclass

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from inspection.errors import AppendOnlyError, LeaseError
from inspection.release.promotions import HeldLease, challenger, champion, promote
from inspection.store.leases import hold
from inspection.store.session import Store
from inspection.store.tables import BundleRow, ProductRow, PromotionRow, RolloutRow, utc_now


@dataclass
class Lease:
    """A lease that is held, or was lost."""

    token: int = 1
    lost: bool = False

    def check(self, session: Session) -> None:
        """As the real one does."""
        if self.lost:
            raise LeaseError("the lease was taken over")


def _promote(session: Session, role: str, version: str, lease: HeldLease | None = None) -> PromotionRow:
    digest = version.zfill(64)
    return promote(
        session,
        "plate",
        role,
        model_version=version,
        run_id="r" + version,
        snapshot="5" * 64,
        bundle=digest,
        recipe=digest,
        who="test",
        why="it passed",
        lease=lease or Lease(),
    )


def test_the_newest_champion_decides(store: Store) -> None:
    """Serials rise by one; a challenger stays one until a champion settles the matter."""
    with store.begin() as session:
        assert champion(session, "plate") is None
        _promote(session, "challenger", "1")
        assert challenger(session, "plate") is not None
        _promote(session, "champion", "1")
        assert challenger(session, "plate") is None
        _promote(session, "challenger", "2")
    with store.begin(read_only=True) as session:
        assert list(session.scalars(select(PromotionRow.serial).order_by(PromotionRow.serial))) == [1, 2, 3]
        found, waiting = champion(session, "plate"), challenger(session, "plate")
        assert (found and found.model_version, waiting and waiting.model_version) == ("1", "2")
        assert champion(session, "other") is None


def test_a_challenger_whose_rollout_was_aborted_is_none(store: Store) -> None:
    """MLflow must not show it as the one to come."""
    with store.begin() as session:
        session.add(ProductRow(name="plate", body={}))
        target = {"kind": "bundle", "product": "plate", "name": "x", "version": 1, "length": 1}
        session.add(BundleRow(sha256="1".zfill(64), **target))
        session.flush()
        made = _promote(session, "challenger", "1")
        states = {"product": "plate", "bundle": made.bundle, "recipe": made.recipe, "groups": [["s"]], "group_index": 0}
        row = RolloutRow(**states, state="running", why="", created_at=utc_now(), group_started_at=utc_now())
        session.add(row)
        session.flush()
        assert challenger(session, "plate") is not None
        row.state = "aborted"
        session.flush()
        assert challenger(session, "plate") is None


def test_a_lost_lease_promotes_nothing(store: Store) -> None:
    """The check fails inside the transaction, and nothing is written."""
    with pytest.raises(LeaseError), store.begin() as session:
        _promote(session, "champion", "1", Lease(lost=True))
    with store.begin(read_only=True) as session:
        assert session.scalars(select(PromotionRow)).all() == []


def test_an_older_holder_cannot_overwrite_a_newer_one(store: Store) -> None:
    """The fencing token in the ledger never falls."""
    with store.begin() as session:
        _promote(session, "champion", "2", Lease(token=7))
    with pytest.raises(LeaseError, match="older than 7"), store.begin() as session:
        _promote(session, "champion", "1", Lease(token=6))


def test_history_cannot_be_rewritten(store: Store) -> None:
    """Neither changed nor deleted, also by raw statements."""
    with store.begin() as session:
        _promote(session, "champion", "1")
    for statement in (update(PromotionRow).values(role="challenger"), delete(PromotionRow)):
        with pytest.raises(AppendOnlyError), store.begin() as session:
            session.execute(statement)


def test_the_real_lease_is_what_a_promotion_takes(store: Store) -> None:
    """A held lease promotes with its own token; once given back it promotes nothing."""
    with hold(store, "promote/plate", "worker-1", ttl_seconds=30) as lease, store.begin() as session:
        assert _promote(session, "champion", "1", lease).fencing_token == lease.token
    with pytest.raises(LeaseError), store.begin() as session:
        _promote(session, "champion", "2", lease)
