"""What the page counts, measures, draws and says, without a server."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import DeviceError
from edge_agent.inspecting import Active
from edge_agent.page.counting import DAY_NAME, Counting, Tally
from edge_agent.page.render import displayable, heat, jpeg, shrunk
from edge_agent.page.snapshot import Seldom
from edge_agent.page.timing import CycleTimes
from edge_agent.page.words import hub_line, span, why_of
from edge_agent.pictures import Image
from inspection.contracts import Band, Decision, Mode
from tests.edge_agent.helpers import picture
from tests.edge_agent.test_page import Stage
from tests.edge_agent.test_page_trial import verdict

MORNING = datetime(2026, 3, 4, 6, 0, tzinfo=UTC)
NONE = dict.fromkeys(Decision, 0)


class Day:
    """A clock on the wall."""

    def __init__(self) -> None:
        self.now = MORNING

    def __call__(self) -> datetime:
        """The time."""
        return self.now


def counting(path: Path, counters: dict[str, int], day: Day) -> Counting:
    return Counting(path / DAY_NAME, counters, now=day)


def test_today_survives_a_restart_and_ends_at_midnight(tmp_path: Path) -> None:
    """Since the start begins anew with the process, today with the day."""
    day = Day()
    first = counting(tmp_path, {"OK": 100}, day)
    first.keep()
    assert first.counts({"OK": 110}, NONE) == (Tally(ok=10), Tally(ok=10))
    second = counting(tmp_path, {"OK": 115}, day)
    assert second.counts({"OK": 120, "NG": 1}, NONE) == (Tally(ok=20, ng=1), Tally(ok=5, ng=1))
    day.now += timedelta(days=1)
    assert second.counts({"OK": 121, "NG": 1}, NONE) == (Tally(), Tally(ok=6, ng=1))
    assert second.counts({"OK": 123, "NG": 1}, NONE) == (Tally(ok=2), Tally(ok=8, ng=1))
    assert second.since.date() == day.now.date()


def test_known_parts_are_in_no_count_also_after_a_restart(tmp_path: Path) -> None:
    """They are in the journal's counters, so they are taken out again, on the day they were shown."""
    day = Day()
    shown = NONE | {Decision.NG: 3}
    first = counting(tmp_path, {"NG": 5}, day)
    assert first.counts({"NG": 10}, shown) == (Tally(ng=2, challenge=3), Tally(ng=2, challenge=3))
    first.keep()
    second = counting(tmp_path, {"NG": 10}, day)
    assert second.counts({"NG": 11}, NONE) == (Tally(ng=3, challenge=3), Tally(ng=1))
    assert second.counts({"NG": 13}, NONE | {Decision.NG: 1})[0] == Tally(ng=4, challenge=4)
    day.now += timedelta(days=1)
    assert second.counts({"NG": 13}, NONE | {Decision.NG: 1})[0] == Tally()
    assert second.counts({"NG": 15}, NONE | {Decision.NG: 2})[0] == Tally(ng=1, challenge=1)


def test_another_journal_begins_anew(tmp_path: Path) -> None:
    """Counters that went back are no continuation; a damaged day file is none."""
    day = Day()
    kept = counting(tmp_path, {"OK": 100}, day)
    kept.keep()
    assert kept.counts({"OK": 4}, NONE) == (Tally(), Tally())
    assert kept.counts({"OK": 6}, NONE) == (Tally(ok=2), Tally(ok=2))
    assert counting(tmp_path, {"OK": 7}, day).counts({"OK": 8}, NONE)[0] == Tally(ok=1)
    for damage in (b"", b"{", b"null", b"\xff"):
        (tmp_path / DAY_NAME).write_bytes(damage)
        assert counting(tmp_path, {"OK": 7}, day).counts({"OK": 8}, NONE)[0] == Tally(ok=1)


def test_a_journal_that_cannot_be_read_forgets_nothing(tmp_path: Path) -> None:
    """What was told last stands until it can."""
    made = counting(tmp_path, {"OK": 100}, Day())
    told = made.counts({"OK": 103}, NONE)
    assert made.counts({}, NONE) == told
    assert made.counts({"OK": 104}, NONE)[0] == Tally(ok=4)


def test_a_day_that_cannot_be_kept_is_said_and_kept_later(tmp_path: Path) -> None:
    """The counts go on."""
    made = counting(tmp_path / "gone", {}, Day())
    with pytest.raises(DeviceError, match="cannot be written"):
        made.keep()
    (tmp_path / "gone").mkdir()
    made.keep()
    assert (tmp_path / "gone" / DAY_NAME).exists()


@given(st.lists(st.floats(min_value=0, max_value=10), max_size=1500))
def test_percentiles_are_of_the_newest_and_the_histogram_of_all(spent: list[float]) -> None:
    """No more than a thousand are kept, and none is lost from the histogram."""
    cycle = CycleTimes()
    for seconds in spent:
        cycle.note(seconds)
    buckets, total = cycle.histogram()
    counts = [count for _, count in buckets]
    assert counts == sorted(counts)
    assert counts[-1] == len(spent)
    assert total == pytest.approx(sum(spent))
    newest = sorted(spent[-1000:])
    for share in (0.0, 0.5, 0.99, 1.0):
        found = cycle.percentile(share)
        assert (found is None) == (not newest)
        assert found is None or (found in newest and sum(s <= found for s in newest) >= share * len(newest))


@pytest.mark.parametrize(
    ("image", "shape"),
    [
        (picture(1), (48, 64, 3)),
        (picture(1)[..., 0], (48, 64, 3)),
        (picture(1)[..., :1], (48, 64, 3)),
        (np.zeros((5, 7, 4), np.uint8), (5, 7, 3)),
        (picture(1).astype(np.uint16) << 8, (48, 64, 3)),
        (None, None),
        (np.zeros((0, 7, 3), np.uint8), None),
        (np.zeros((5, 7, 2), np.uint8), None),
        (np.zeros(9, np.uint8), None),
        (np.zeros((5, 7, 3), np.float64), None),
    ],
)
def test_every_frame_is_shown_or_is_nothing(image: Any, shape: tuple[int, ...] | None) -> None:
    """Grey, deep, with alpha, empty or nonsense: a picture or None, never an error."""
    shown = displayable(image)
    assert (shown is None) == (shape is None)
    assert (jpeg(image) is None) == (shape is None)
    if shown is not None:
        assert (shown.shape, shown.dtype) == (shape, np.uint8)


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_a_picture_is_never_longer_than_allowed(height: int, width: int) -> None:
    """And keeps its proportions as far as whole pixels allow."""
    made = shrunk(np.zeros((height, width, 3), np.uint8), 100)
    assert max(made.shape[:2]) <= 100 or max(height, width) <= 100
    assert max(made.shape[:2]) == min(100, max(height, width))
    assert min(made.shape[:2]) >= 1
    if min(made.shape[:2]) > 1:
        assert abs(made.shape[0] * width - made.shape[1] * height) <= max(height, width)


def test_a_map_is_clear_where_nothing_is_and_brighter_with_the_value() -> None:
    """The colours are its values: a weak map stays weak."""
    values = np.tile(np.linspace(0, 1, 8, dtype=np.float32), (8, 1))
    strong, weak = (
        cv2.imdecode(np.frombuffer(heat(m) or b"", np.uint8), cv2.IMREAD_UNCHANGED) for m in (values, values / 8)
    )
    assert strong.shape == (256, 256, 4)
    assert (strong[0, 0, 3], strong[0, -1, 3]) == (0, 190)
    assert weak[..., 3].max() < 30
    brightness = strong[0, :, :3].astype(int).sum(axis=1)
    assert (np.diff(brightness) >= -3).all()
    assert heat(None) is None
    assert heat(np.zeros((0, 0), np.float32)) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0 s"), (0.4, "0 s"), (59.9, "59 s"), (60, "1 min"), (7200, "2 h"), (86400, "1 day"), (4 * 86400, "4 days")],
)
def test_lengths_of_time_are_said_in_their_largest_unit(seconds: float, words: str) -> None:
    """As people do."""
    assert span(seconds) == words


SCRATCHED = {"good": 0.2, "scratch": 0.5, "dent": 0.3}


@pytest.mark.parametrize(
    ("decision", "thresholds", "words"),
    [
        (Decision.NG, {"*": Band(inconclusive=0.3, ng=0.7)}, "scratch, score 0.80 (NG from 0.70)"),
        (Decision.NG, {"scratch": Band(inconclusive=0.3, ng=0.4)}, "scratch, score 0.50 (NG from 0.40)"),
        (
            Decision.INCONCLUSIVE,
            {"scratch": Band(inconclusive=0.3, ng=0.9)},
            "perhaps scratch, score 0.50 (doubt from 0.30, NG from 0.90)",
        ),
        (Decision.NG, {}, "scratch, score 0.80"),
    ],
)
def test_a_reason_is_a_sentence(decision: Decision, thresholds: dict[str, Band], words: str) -> None:
    """The class, the score that decided, and the threshold it was held against."""
    made = verdict(decision, defect_class="scratch", scores=SCRATCHED, thresholds=thresholds)
    assert why_of(made, "good") == words


def test_an_ok_has_no_reason_and_an_error_has_its_own() -> None:
    """Nothing is invented."""
    assert why_of(verdict(Decision.OK), "good") == ""
    assert why_of(verdict(Decision.ERROR, reason="dark"), None) == "dark"


def test_without_a_network_the_hub_is_a_folder(tmp_path: Path) -> None:
    """No contact is expected, so none is missed."""
    stage = Stage(tmp_path)
    from edge_agent.page.snapshot import Asker

    now = Asker(stage.facts).snapshot()
    assert hub_line(now, "dir:/media/stick", 30).level == "plain"
    assert hub_line(now, "http://hub", 30).short == "no contact yet"


def _ticking(steps: list[float]) -> Callable[[], float]:
    return lambda: steps.pop(0)


def test_what_costs_is_asked_seldom() -> None:
    """Every five seconds; rarer when the answer takes long."""
    asked: list[int] = []

    def ask() -> int:
        asked.append(1)
        return len(asked)

    quick = Seldom(ask, _ticking([0.0, 0.0, 4.9, 5.0, 5.0]))
    assert [quick(), quick(), quick()] == [1, 1, 2]
    slow = Seldom(ask, _ticking([0.0, 2.0, 101.9, 102.0, 102.0]))
    assert [slow(), slow(), slow()] == [3, 3, 4]


def test_the_boards_picture_may_be_of_any_mode(tmp_path: Path) -> None:
    """Collecting without a bundle, the picture is shown, without a map."""
    stage = Stage(tmp_path)
    stage.active = Active(None, Mode.COLLECT)
    image: Image = picture(1)
    stage.show(image, "c")
    assert stage.board.last is not None
    assert stage.board.last.inspected.defect_map is None
