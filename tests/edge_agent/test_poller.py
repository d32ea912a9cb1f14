"""A hub hears of a device at each poll, before anything that takes long and whatever fails."""

from pathlib import Path

import pytest

from edge_agent.errors import HubError
from edge_agent.journal import Journal
from edge_agent.outbox import Outbox
from edge_agent.poller import Poller
from inspection.contracts import AgentState, sha256_hex
from tests.edge_agent.helpers import FakeHub, bundle
from tests.edge_agent.test_camera import Silent
from tests.edge_agent.test_updater import ONE, WHO, Device


@pytest.fixture
def poller(tmp_path: Path, hub: FakeHub, journal: Journal, outbox: Outbox) -> Poller:
    """Of a device that has never run anything, on a hub that assigns it a bundle."""
    hub.assign(1, ONE)
    updater = Device(tmp_path, hub).boot().updater
    return Poller(WHO, hub, updater, journal, outbox, Silent([]), every_seconds=1.0, other_failures=list)


def test_a_device_is_not_silent_while_it_downloads(poller: Poller, hub: FakeHub) -> None:
    """It reports first, and again what the poll brought; a poll that brings nothing is one report."""
    poller.once()
    assert hub.requests == ["report", "assignment", "envelope", "fetch", "report"]
    assert [report.state for report in hub.reports] == [AgentState.HOLD, AgentState.PROBATION]
    assert hub.reports[-1].bundle_digest == sha256_hex(ONE)
    poller.once()
    assert hub.requests[5:] == ["report", "assignment"]


def test_a_refusal_is_reported_with_the_poll_that_made_it(poller: Poller, hub: FakeHub) -> None:
    """Not a poll later; and not again and again."""
    hub.assign(2, bundle(2, wrong_self_test=True), version=2)
    poller.once()
    assert "self-test" in str(hub.reports[-1].last_error)
    assert len(hub.reports[-1].refused) == 1
    poller.once()
    before = len(hub.reports)
    poller.once()
    assert len(hub.reports) == before + 1


@pytest.mark.parametrize("broken", ["assignment", "report"])
def test_one_request_that_fails_keeps_no_other_from_being_tried(poller: Poller, hub: FakeHub, broken: str) -> None:
    """The report goes out also when the assignment cannot be had, and a report that is not taken keeps no update away."""

    def trouble(what: str) -> None:
        if what == broken:
            raise HubError("502")

    hub.trouble = trouble
    with pytest.raises(HubError, match="502"):
        poller.once()
    assert hub.requests[:2] == ["report", "assignment"]
    assert ("fetch" in hub.requests) is (broken == "report")
