"""A lane sends all it can: nothing bad holds up what is good, and an outage makes nothing bad."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import pytest

from edge_agent.errors import HubError
from edge_agent.lanes import Lane


@dataclass(frozen=True)
class Thing:
    """Something to send."""

    key: str


@dataclass
class Road:
    """Things that wait, and a hub that is away (``down``) or fails on some of them (``bad``)."""

    waiting: list[str]
    bad: set[str] = field(default_factory=set)
    down: bool = False
    only: int | None = None  # it goes away again after so many
    sent: list[str] = field(default_factory=list)
    now: float = 0.0

    def fetch(self, limit: int, without: Collection[str]) -> list[Thing]:
        """The oldest that wait."""
        return [Thing(key) for key in self.waiting if key not in without][:limit]

    def send(self, batch: Sequence[Thing]) -> int:
        """All or nothing."""
        full = self.only is not None and len(self.sent) >= self.only
        if self.down or full or self.bad & {thing.key for thing in batch}:
            raise HubError("503")
        self.sent += [thing.key for thing in batch]
        self.waiting = [key for key in self.waiting if key not in self.sent]
        return len(batch)

    def lane(self, most: int = 4) -> Lane[Thing]:
        """A lane along it."""
        return Lane(self.fetch, self.send, most=most, clock=lambda: self.now)


def keys(number: int) -> list[str]:
    return [f"k{index}" for index in range(number)]


@pytest.mark.parametrize("most", [1, 4])
@pytest.mark.parametrize("failures", [1, 3, 8, 20])
def test_an_outage_makes_no_suspects(most: int, failures: int) -> None:
    """However long it was: what failed meanwhile is sent as soon as anything is, and waits for nothing more."""
    road = Road(keys(12), down=True)
    lane = road.lane(most)
    for _ in range(failures):
        with pytest.raises(HubError):
            lane.once()
    road.down = False
    moved = 0
    while step := lane.once():
        moved += step
    assert lane.suspects == 0
    assert (moved, sorted(road.sent)) == (12, sorted(keys(12)))


def test_who_fails_while_others_pass_is_a_suspect_and_tried_again_later() -> None:
    """Two bad ones among many: all others are sent, these two when the hub takes them."""
    road = Road(keys(20), bad={"k3", "k7"})
    lane = road.lane()
    for _ in range(60):
        try:
            lane.once()
        except HubError:
            continue
    assert (lane.suspects, road.waiting) == (2, ["k3", "k7"])
    road.bad = set()
    assert lane.once() == 0  # not yet
    road.now = 60.0
    assert [lane.once(), lane.once()] == [1, 1]
    assert (lane.suspects, road.waiting) == (0, [])


def test_a_hub_that_goes_away_again_blames_one_at_most() -> None:
    """One passes, and the next try meets the next outage: only that one is suspected."""
    road = Road(keys(6), down=True)
    lane = road.lane(1)
    for _ in range(4):
        with pytest.raises(HubError):
            lane.once()
    road.down, road.only = False, 1
    assert lane.once() == 1
    assert lane.suspects == 1
    road.only = None
    while lane.once():
        pass
    assert len(road.sent) == 5
