"""The virtual line: schedules without overlap, feeders that neither lose, tear nor overrun."""

import time
from collections import Counter
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspection.contracts import Box
from inspection.demo.line import (
    PHASES,
    Feeder,
    LinePart,
    Mix,
    Shot,
    Sizes,
    TruthBook,
    rendered_schedule,
    waiting_after,
    waiting_in,
)
from inspection.demo.renderer import GOOD, NEW_KINDS, Look, Truth
from inspection.errors import EnvironmentTroubleError, UsageError

STATIONS = ("S1", "S2", "S3")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), counts=st.tuples(*[st.integers(0, 60)] * 4))
def test_phases_share_no_part(seed: int, counts: tuple[int, int, int, int]) -> None:
    """Every part id occurs once; each phase has the size asked for; the same seed gives the same schedule."""
    schedule = rendered_schedule(seed, STATIONS, Sizes(*counts))
    parts = [part for phase in PHASES for part in schedule.phase(phase)]
    assert len({part.part for part in parts}) == len(parts) == sum(counts)
    assert all(part.part.startswith(f"{part.station}-") for part in parts)
    assert [part.label for part in parts] == [
        part.label for phase in PHASES for part in rendered_schedule(seed, STATIONS, Sizes(*counts)).phase(phase)
    ]


def test_new_kinds_come_only_after_the_start() -> None:
    """The first model cannot have seen them; before and after have the same mix."""
    schedule = rendered_schedule(3, STATIONS, Sizes(200, 200, 100, 200), Mix(line_defects=0.4, new_share=0.5))
    labels = {phase: Counter(part.label for part in schedule.phase(phase)) for phase in PHASES}
    assert not set(labels["start"]) & set(NEW_KINDS)
    assert labels["before"] == labels["after"]
    assert sum(labels["before"][kind] for kind in NEW_KINDS) == 40
    assert labels["before"][GOOD] == 120
    assert set(labels["start"]) | set(labels["before"]) == set(schedule.classes)


def test_the_class_does_not_follow_the_index() -> None:
    """Neither parity, station nor place in the phase tells good from defective."""
    parts = rendered_schedule(8, STATIONS, Sizes(start=3000, before=0, pool=0, after=0)).start
    bad = np.array([part.label != GOOD for part in parts])
    places = np.arange(len(bad))
    for trait in (places % 2, places % 3, places * 2 // len(bad)):
        rates = [bad[trait == value].mean() for value in np.unique(trait)]
        assert max(rates) - min(rates) < 0.1


def test_a_schedule_needs_stations_and_known_kinds() -> None:
    """A kind cannot be known and new, nor unknown to the renderer."""
    for stations, mix in (((), Mix()), (STATIONS, Mix(new_kinds=("dent",))), (STATIONS, Mix(new_kinds=("rust",)))):
        with pytest.raises(UsageError, match="distinct kinds"):
            rendered_schedule(1, stations, mix=mix)


def _small(count: int) -> tuple[LinePart, ...]:
    return rendered_schedule(1, ("S1",), Sizes(count, 0, 0, 0), look=Look(size=64)).start


def test_a_feeder_delivers_every_picture_whole(tmp_path: Path) -> None:
    """Files are complete PNGs named by part, truth is beside them in the book and nowhere in the spool."""
    parts, spool, book = _small(12), tmp_path / "spool", TruthBook(tmp_path / "truth.jsonl")
    feeder = Feeder(parts, spool, book, takt_seconds=0, waiting=waiting_after(lambda: 12)).start()
    assert feeder.join(20)
    assert (feeder.fed, feeder.running) == (12, False)
    assert sorted(path.name for path in spool.iterdir()) == sorted(f"{part.part}.png" for part in parts)
    picture = cv2.imread(str(spool / f"{parts[0].part}.png"))
    assert picture is not None
    assert picture.shape == (64, 64, 3)
    assert {name: book[name].label for name in book} == {part.part: part.label for part in parts}


def test_a_feeder_waits_for_the_camera(tmp_path: Path) -> None:
    """It never has more than the allowed number of unread pictures before the camera, and goes on when one is read."""
    spool = tmp_path / "spool"
    feeder = Feeder(
        _small(10), spool, TruthBook(tmp_path / "t.jsonl"), takt_seconds=0, waiting=waiting_in(spool), max_ahead=3
    ).start()
    seen: set[str] = set()
    while not feeder.held_back:  # a camera that reads nothing yet
        time.sleep(0.01)
    assert feeder.fed == 3
    while feeder.running or any(spool.iterdir()):
        waiting = sorted(path for path in spool.iterdir() if not path.name.startswith("."))
        assert len(waiting) <= 3
        for path in waiting[:1]:
            seen.add(path.name)
            path.unlink()
        time.sleep(0.01)
    assert (len(seen), feeder.stop()) == (10, 10)


def test_a_feeder_stops_between_parts(tmp_path: Path) -> None:
    """Stop ends it at once although the takt is long, and the count is what lies there."""
    spool = tmp_path / "spool"
    feeder = Feeder(
        _small(5), spool, TruthBook(tmp_path / "t.jsonl"), takt_seconds=60, waiting=waiting_after(lambda: 0)
    ).start()
    while feeder.fed < 1:
        time.sleep(0.005)
    started = time.monotonic()
    assert feeder.stop() == len(list(spool.iterdir())) == 1
    assert time.monotonic() - started < 5


def test_a_feeder_keeps_the_takt(tmp_path: Path) -> None:
    """Parts do not come faster than the takt."""
    started = time.monotonic()
    Feeder(
        _small(4), tmp_path / "s", TruthBook(tmp_path / "t.jsonl"), takt_seconds=0.1, waiting=waiting_after(lambda: 4)
    ).start().join(20)
    assert time.monotonic() - started >= 0.3


def test_a_failed_feeder_says_so(tmp_path: Path) -> None:
    """What stopped the thread is raised where somebody waits for it."""

    def lost() -> Shot:
        raise FileNotFoundError("picture.png is gone")

    part = LinePart("S1-000001", "S1", "g", GOOD, lost)
    book = TruthBook(tmp_path / "t.jsonl")
    feeder = Feeder([part], tmp_path / "s", book, takt_seconds=0, waiting=waiting_after(lambda: 0)).start()
    with pytest.raises(EnvironmentTroubleError, match=r"after 0 pictures: picture\.png is gone"):
        feeder.join(10)


def test_the_book_remembers_and_refuses_contradiction(tmp_path: Path) -> None:
    """A book read again knows the same; one part cannot have two truths."""
    path = tmp_path / "deep" / "truth.jsonl"
    truth = Truth("dent", (Box(x=1, y=2, width=3, height=4, label="dent"),), "dent", 64, 64)
    book = TruthBook(path)
    book.add("S1-1", truth)
    book.add("S1-1", truth)
    again = TruthBook(path)
    assert dict(again) == {"S1-1": truth}
    with pytest.raises(UsageError, match="says otherwise about part S1-1"):
        again.add("S1-1", Truth(GOOD))


def test_shots_are_lossless(tmp_path: Path) -> None:
    """The file the camera reads is the picture that was rendered."""
    from inspection.demo.renderer import PartSpec, render

    (part,) = _small(1)
    assert isinstance(part.shoot, partial)
    (drawn,) = part.shoot.args
    assert isinstance(drawn, PartSpec)
    decoded = cv2.imdecode(np.frombuffer(part.shoot().png, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(decoded, render(drawn))
