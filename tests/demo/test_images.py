"""Real pictures as a line: the phases share nothing, the new classes are new, the figures are of the test split."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inspection.data.importers import read_directory
from inspection.data.snapshot_record import Split
from inspection.demo.images import images_schedule
from inspection.demo.line import PHASES, Schedule, Sizes
from inspection.errors import UsageError

STATIONS = ("S1", "S2")
SMALL = Sizes(start=40, before=20, pool=20, after=20)


def write(root: Path, rows: list[tuple[str, str, str, str]]) -> Path:
    """A directory with ``labels.csv`` of (label, split, group, part); the files are placeholders unless read."""
    root.mkdir(parents=True, exist_ok=True)
    lines = ["path,label,split,group,part"]
    for number, (label, split, group, part) in enumerate(rows):
        (root / f"{number:04d}.png").write_bytes(b"not read here")
        lines.append(f"{number:04d}.png,{label},{split},{group},{part}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def of(schedule: Schedule, directory: Path) -> dict[str, list[tuple[str, str, Split | None]]]:
    """(group, part, split) of each phase's pictures, as the directory has them."""
    items = {item.path: item for item in read_directory(directory, schedule.good_class)}
    return {
        phase: [(i.group, i.part, i.split) for p in schedule.phase(phase) if p.source and (i := items[p.source])]
        for phase in PHASES
    }


def test_phases_share_neither_picture_nor_part_nor_group(tmp_path: Path) -> None:
    """Two pictures a part, four parts a group: each group serves one phase."""
    labels = ("ok", "ok", "scratch", "dent", "stain")
    root = write(tmp_path / "d", [(labels[(i // 2) % 5], "", f"g{i // 8}", f"p{i // 2}") for i in range(400)])
    schedule = images_schedule(root, "ok", STATIONS, seed=1, sizes=SMALL)
    phases = of(schedule, root)
    for place in (0, 1):
        seen = [{row[place] for row in rows} for rows in phases.values()]
        assert sum(map(len, seen)) == len(set().union(*seen))
    parts = [part.part for phase in PHASES for part in schedule.phase(phase)]
    assert len(set(parts)) == len(parts)
    assert not [note for note in schedule.notes if "too few groups" in note]
    assert len({row[0] for row in phases["start"]}) >= 5


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**20))
def test_every_seed_gives_whole_phases(tmp_path: Path, seed: int) -> None:
    """Good and defective parts everywhere, new classes never in the start, always on the line, twice the same."""
    root = tmp_path / "d"
    if not root.exists():
        write(root, [(("ok", "scratch", "dent", "stain")[i % 4], "", "", "") for i in range(300)])
    schedule = images_schedule(root, "ok", STATIONS, seed=seed, sizes=SMALL)
    assert schedule.new_classes
    labels = {phase: Counter(part.label for part in schedule.phase(phase)) for phase in PHASES}
    assert not set(labels["start"]) & set(schedule.new_classes)
    assert set(labels["start"]) == set(schedule.classes) - set(schedule.new_classes)
    for phase in PHASES[1:]:
        assert set(schedule.new_classes) <= set(labels[phase])
        assert labels[phase]["ok"] == 12
    again = images_schedule(root, "ok", STATIONS, seed=seed, sizes=SMALL)
    assert [p.source for p in again.after] == [p.source for p in schedule.after]


def test_a_given_split_is_kept(tmp_path: Path) -> None:
    """What is measured is from the test split, what is learnt is not; a group on both sides is never measured."""
    rows = [(("ok", "scratch", "dent")[i % 3], "train" if i < 200 else "test", f"g{i // 10}", "") for i in range(400)]
    rows += [("ok", "test", "g0", ""), ("dent", "test", "g1", "")]
    root = write(tmp_path / "d", rows)
    schedule = images_schedule(root, "ok", STATIONS, seed=3, sizes=SMALL)
    phases = of(schedule, root)
    assert {row[2] for phase in ("start", "pool") for row in phases[phase]} == {Split.TRAIN}
    assert {row[2] for phase in ("before", "after") for row in phases[phase]} == {Split.GOLDEN}
    assert not {row[0] for phase in ("before", "after") for row in phases[phase]} & {"g0", "g1"}
    assert any("2 test pictures" in note for note in schedule.notes)


def test_one_defect_class_is_held_back_in_number(tmp_path: Path) -> None:
    """Nothing can be new in kind: the start has few of it, and the notes say so."""
    root = write(tmp_path / "d", [("bad" if i % 2 else "ok", "", "", "") for i in range(300)])
    schedule = images_schedule(root, "ok", STATIONS, seed=1, sizes=SMALL)
    labels = {phase: Counter(part.label for part in schedule.phase(phase)) for phase in PHASES}
    assert schedule.new_classes == ()
    assert (labels["start"]["bad"], labels["before"]["bad"]) == (6, 8)
    assert any("simply more pictures of the same class" in note for note in schedule.notes)


def test_a_small_directory_shrinks_every_phase(tmp_path: Path) -> None:
    """With a tenth of the pictures wanted all four phases still have both sides."""
    root = write(tmp_path / "d", [("bad" if i % 3 == 0 else "ok", "", "", "") for i in range(60)])
    schedule = images_schedule(root, "ok", STATIONS, seed=1)
    for phase in PHASES:
        assert {part.label for part in schedule.phase(phase)} == {"ok", "bad"}


def test_too_few_groups_are_said(tmp_path: Path) -> None:
    """Two groups cannot feed four phases: parts are kept apart instead, and a note says it."""
    root = write(tmp_path / "d", [(("ok", "bad")[i % 2], "", f"g{i % 4 // 2}", f"p{i // 2}") for i in range(200)])
    schedule = images_schedule(root, "ok", STATIONS, seed=1, sizes=SMALL)
    seen = [{row[1] for row in rows} for rows in of(schedule, root).values()]
    assert sum(map(len, seen)) == len(set().union(*seen))
    assert any("too few groups" in note for note in schedule.notes)


def test_what_cannot_be_split_is_refused_in_words(tmp_path: Path) -> None:
    """No defects at all, or too few for four phases, or a class that is not there to be held back."""
    with pytest.raises(UsageError, match="no defective pictures"):
        images_schedule(write(tmp_path / "a", [("ok", "", "", "")] * 9), "ok", STATIONS, seed=1)
    few = write(tmp_path / "b", [("ok", "", "", "")] * 50 + [("bad", "", "", "")])
    with pytest.raises(UsageError, match="cannot feed start, before, pool and after"):
        images_schedule(few, "ok", STATIONS, seed=1)
    with pytest.raises(UsageError, match="cannot hold back rust"):
        images_schedule(few, "ok", STATIONS, seed=1, held_back=["rust"])


def test_a_file_becomes_what_a_camera_delivers(tmp_path: Path) -> None:
    """Whatever the file's format: PNG bytes of the same pixels, in colour."""
    rng = np.random.default_rng(0)
    for label in ("ok", "bad"):
        (tmp_path / label).mkdir()
        for number in range(30):
            cv2.imwrite(str(tmp_path / label / f"{number}.bmp"), rng.integers(0, 255, (8, 12), np.uint8))
    schedule = images_schedule(tmp_path, "ok", STATIONS, seed=1, sizes=SMALL)
    part = schedule.before[0]
    assert part.source is not None
    shot = part.shoot()
    assert (shot.truth.width, shot.truth.height, shot.truth.label) == (12, 8, part.label)
    decoded = cv2.imdecode(np.frombuffer(shot.png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(decoded, cv2.imread(str(part.source), cv2.IMREAD_COLOR))


@pytest.mark.parametrize(
    "damage", [b"BM, but no more", b"", b"BM" + b"\x00" * 16 + (60_000).to_bytes(4, "little") * 2 + b"\x00" * 40]
)
def test_a_file_that_is_no_picture_is_delivered_as_it_is(tmp_path: Path, damage: bytes) -> None:
    """Junk, nothing, a header that promises 3.6 billion pixels: the importer refuses it, the agent calls it an ERROR."""
    root = write(tmp_path / "d", [(("ok", "bad")[i % 2], "", "", "") for i in range(120)])
    part = images_schedule(root, "ok", STATIONS, seed=1, sizes=SMALL).before[0]
    assert part.source is not None
    part.source.write_bytes(damage)
    shot = part.shoot()
    assert (shot.png, shot.truth.label, shot.truth.boxes) == (damage, part.label, ())


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize(("name", "good"), [("elpv", "functional"), ("deeppcb_crops", "ok"), ("deeppcb_boards", "ok")])
def test_the_real_sets_feed_a_line(real_data: Path, name: str, good: str) -> None:
    """Every set has all four phases, disjoint by group, and enough defective parts to measure."""
    schedule = images_schedule(real_data / name, good, ("S1", "S2", "S3"), seed=2026)
    seen = [{row[0] for row in rows} for rows in of(schedule, real_data / name).values()]
    assert sum(map(len, seen)) == len(set().union(*seen))
    for phase in ("before", "after"):
        defective = sum(part.label != good for part in schedule.phase(phase))
        assert min(defective, len(schedule.phase(phase)) - defective) >= 100
