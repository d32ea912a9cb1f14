"""Leases on both databases: one holder, expiry, fencing."""

import subprocess
import sys
import threading
import time

import pytest

from inspection.errors import LeaseError
from inspection.store.leases import Lease, hold
from inspection.store.session import Store
from tests.conftest import faults_are_long
from tests.store.places import Place

HOLDER = """
import sys, time
from inspection.store.leases import hold
from inspection.store.session import Store
store = Store.open(*sys.argv[1:])
with hold(store, "train", "first", ttl_seconds=1.5) as lease:
    print(lease.token, flush=True)
    time.sleep(600)
"""


def test_a_held_lease_is_refused_to_others_with_the_holders_name(store: Store) -> None:
    """The second holder is told who holds it."""
    with (
        hold(store, "train", "first", ttl_seconds=30),
        pytest.raises(LeaseError, match="first holds the lease 'train'"),
        hold(store, "train", "second", ttl_seconds=30),
    ):
        pass


def test_a_released_lease_is_free_and_its_token_rises(store: Store) -> None:
    """Every holder's token is higher than all before it."""
    tokens = []
    for holder in ("a", "b", "a"):
        with hold(store, "train", holder, ttl_seconds=30) as lease:
            tokens.append(lease.token)
    assert tokens == [1, 2, 3]


def test_a_lease_outlives_its_time_while_it_is_renewed(store: Store) -> None:
    """A living holder keeps the lease for longer than its time to live."""
    with hold(store, "train", "first", ttl_seconds=1.0) as lease:
        time.sleep(2.0)
        with store.begin() as session:
            lease.check(session)


def test_waiting_for_a_lease_gets_it_when_it_is_free(store: Store) -> None:
    """With `wait_seconds` the second holder comes after the first."""
    with hold(store, "train", "first", ttl_seconds=30):
        got: list[int] = []

        def wait() -> None:
            with hold(store, "train", "second", ttl_seconds=30, wait_seconds=30) as lease:
                got.append(lease.token)

        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.5)
        assert got == []
    waiting.join(30)
    assert got == [2]


def test_one_of_many_takers_wins(store: Store) -> None:
    """Eight threads grab at once: exactly one holds the lease."""
    start, done = threading.Barrier(8), threading.Barrier(8)
    winners: list[int] = []

    def grab(number: int) -> None:
        start.wait()
        try:
            with hold(store, "train", f"taker {number}", ttl_seconds=60):
                winners.append(number)
                done.wait()
        except LeaseError:
            done.wait()

    threads = [threading.Thread(target=grab, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1


@pytest.mark.fault
@pytest.mark.parametrize("after", [0.3 * n for n in range(12 if faults_are_long() else 1)])
def test_a_killed_holders_lease_is_taken_after_it_expires(place: Place, after: float) -> None:
    """SIGKILL leaves the lease to expire; then another takes it, and the dead one's token is worth nothing."""
    with place.open() as store:
        command = [sys.executable, "-c", HOLDER, place.database_url, place.blob_url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            dead = Lease("train", "first", int(process.stdout.readline()))
            time.sleep(after)  # before, while and after it renews its lease
            process.kill()
        with pytest.raises(LeaseError, match="first holds"), hold(store, "train", "second", ttl_seconds=30):
            pass
        with hold(store, "train", "second", ttl_seconds=30, wait_seconds=30) as lease:
            assert lease.token == dead.token + 1
            with store.begin() as session:
                lease.check(session)
            with pytest.raises(LeaseError, match="no longer holds"), store.begin() as session:
                dead.check(session)


def test_an_expired_lease_fails_its_check_even_if_nobody_took_it(store: Store) -> None:
    """Expiry alone ends a lease: its holder may have been stopped for long."""
    with hold(store, "train", "first", ttl_seconds=30) as lease:
        lease._stop.set()
        with store.begin() as session:
            session.connection().exec_driver_sql("UPDATE leases SET expires_at = '2020-01-01 00:00:00.000000'")
        with pytest.raises(LeaseError, match="expired"), store.begin() as session:
            lease.check(session)
