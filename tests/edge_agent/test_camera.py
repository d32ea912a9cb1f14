"""A frame that shows nothing is never judged; a file is delivered once."""

import os
import struct
import threading
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge_agent.camera import Frame
from edge_agent.camera.folder import FolderCamera
from edge_agent.camera.guard import GuardLimits, StreamGuard, look
from edge_agent.camera.port import Health
from edge_agent.camera.video import VideoFile
from edge_agent.capturing import capture
from edge_agent.config import AgentConfig
from edge_agent.errors import PictureError, UsageError
from edge_agent.making import make_camera
from edge_agent.pictures import decode, encode_png
from edge_agent.trigger import Request
from edge_agent.trigger.free import FreeRunning
from edge_agent.trigger.interval import Interval
from tests.edge_agent.helpers import Authority, picture, png, write_picture
from tests.edge_agent.helpers import config as config_of

LIMITS = {"max_bytes": 10**6, "max_pixels": 10**6}


def plain_config() -> AgentConfig:
    return config_of(Authority().root)


def folder_camera(folder: Path, delivered: set[str] | None = None, *, loop: bool = False) -> FolderCamera:
    return FolderCamera(folder, delivered=delivered or set(), loop=loop, **LIMITS)


def drain(camera: FolderCamera) -> list[Frame]:
    frames = []
    while (frame := camera.next(0)) is not None:
        frames.append(frame)
    return frames


def test_files_come_once_in_name_order_and_new_ones_are_waited_for(tmp_path: Path) -> None:
    """Each picture once; a later file with an earlier name is not lost."""
    for name in ("b.png", "a.png"):
        write_picture(tmp_path, name, picture())
    camera = folder_camera(tmp_path)
    assert [f.part for f in drain(camera)] == ["a", "b"]
    write_picture(tmp_path, "0.png", picture())
    assert [f.part for f in drain(camera)] == ["0"]


def test_hidden_files_folders_and_tables_are_no_parts(tmp_path: Path) -> None:
    """Half-written files, sub-folders and labels are not looked at."""
    (tmp_path / ".half.png").write_bytes(b"half")
    (tmp_path / "labels.csv").write_bytes(b"path,label\n")
    (tmp_path / "sub").mkdir()
    assert drain(folder_camera(tmp_path)) == []


def test_what_was_delivered_before_is_not_delivered_again(tmp_path: Path) -> None:
    """Across a restart, by the names the journal remembers."""
    write_picture(tmp_path, "a.png", picture())
    (first,) = drain(folder_camera(tmp_path))
    assert first.source == (str(tmp_path), "a.png")
    assert drain(folder_camera(tmp_path, {"a.png"})) == []


def test_a_loop_begins_again_and_leaves_no_trace(tmp_path: Path) -> None:
    """For benches: endless, and nothing to remember."""
    write_picture(tmp_path, "a.png", picture())
    camera = folder_camera(tmp_path, loop=True)
    assert [f.source for f in (camera.next(0), camera.next(0)) if f] == [None, None]


def test_a_name_that_is_no_utf8_can_still_be_stored(tmp_path: Path) -> None:
    """Its bytes are shown, the part is not skipped."""
    with open(os.fsencode(tmp_path) + b"/a\xff.png", "wb") as out:  # noqa: PTH123  # pathlib takes no bytes
        out.write(png(picture()))
    (frame,) = drain(folder_camera(tmp_path))
    assert frame.part == "a\\xff"
    assert frame.image is not None


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 60000 x 60000 pixels."""
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def jpeg() -> bytes:
    done, data = cv2.imencode(".jpg", picture())
    assert done
    return data.tobytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        png(picture())[:-20],
        png(picture())[:500],
        jpeg()[:300],
        jpeg()[:4],
        bomb(),
        b"\x89PNG\r\n\x1a\n",
        b"BM",
    ],
)
def test_a_bad_file_is_a_fault_with_a_reason(tmp_path: Path, data: bytes) -> None:
    """Empty, junk, truncated, bomb: a frame with a fault, and no image."""
    (tmp_path / "a.png").write_bytes(data)
    (frame,) = drain(folder_camera(tmp_path))
    assert frame.image is None
    assert frame.fault
    assert frame.fault.startswith("a.png: ")


def test_a_flipped_byte_in_a_png_is_a_fault() -> None:
    """A damaged PNG is not silently another picture."""
    data = bytearray(png(picture()))
    data[len(data) // 2] ^= 1
    with pytest.raises(PictureError):
        decode(bytes(data), **LIMITS)


def test_stored_pictures_are_lossless() -> None:
    """What is stored is what was judged."""
    assert np.array_equal(decode(encode_png(picture(3)), **LIMITS), picture(3))


def test_a_picture_that_lay_there_before_the_trigger_does_not_answer_it(tmp_path: Path) -> None:
    """It is of the part before, whose trigger was missed: taken for the next one, every answer would be one part behind."""
    write_picture(tmp_path, "old.png", picture(1))
    camera = folder_camera(tmp_path)
    assert camera.next(0.1, since=time.monotonic()) is None
    saving = threading.Timer(0.2, write_picture, (tmp_path, "new.png", picture(2)))
    saving.start()
    frame = camera.next(5, since=time.monotonic())
    saving.join()
    assert frame is not None
    assert frame.part == "new"
    assert camera.health()["passed_over"] == 1
    assert camera.next(0.1) is None, "what was passed over does not come back"


def test_pictures_of_one_camera_are_guarded_in_a_folder_too(tmp_path: Path) -> None:
    """Where a reference or bounds are set: the same picture again under another name is a camera that hangs."""
    for number, seed in enumerate((1, 2, 2)):
        write_picture(tmp_path, f"{number}.png", picture(seed))
    settings = {"guard": {"max_saturated_share": 0.5}}
    kept = AgentConfig.model_validate(plain_config().model_dump(mode="json") | {"camera_settings": settings})
    for config, faults in ((plain_config(), [False] * 3), (kept, [False, False, True])):
        camera = make_camera(f"folder:{tmp_path}", config, lambda *_: set(), loop=False)
        assert [bool(frame.fault) for frame in drain(camera)] == faults


def test_a_missing_folder_is_wrong_usage(tmp_path: Path) -> None:
    """Said at start, with the next step."""
    with pytest.raises(UsageError, match="does not exist"):
        folder_camera(tmp_path / "nowhere")


@pytest.mark.parametrize("level", [0, 8])
def test_black_is_a_fault(level: int) -> None:
    """Lamp off or lens capped; a dim but structured frame passes."""
    assert look(np.full((1080, 1920, 3), level, np.uint8))
    dim = np.full((480, 640, 3), level, np.uint8)
    dim[100:300, 100:300] = 40
    assert look(dim) is None


def test_a_few_hot_pixels_do_not_make_a_black_frame_pass() -> None:
    """A warm sensor has some; they show nothing of a part."""
    black = np.zeros((480, 640, 3), np.uint8)
    black[::97, ::89] = 255
    assert "black" in str(look(black))


def test_a_frozen_stream_is_a_fault_until_it_moves() -> None:
    """The same exposure twice, or as often as is set, is a fault; a new one clears it."""
    assert [bool(StreamGuard().check(picture(1))) for _ in range(2)] == [False, False]
    guard = StreamGuard(GuardLimits(frozen_frames=3))
    assert [bool(guard.check(picture(1))) for _ in range(4)] == [False, False, True, True]
    assert guard.check(picture(2)) is None


def test_a_bound_that_cannot_be_counted_to_is_refused() -> None:
    """More repetitions than are remembered would switch the check off; as many as are remembered are noticed."""
    with pytest.raises(ValidationError, match="less than or equal to 16"):
        GuardLimits(frozen_frames=17)
    guard = StreamGuard(GuardLimits(frozen_frames=16))
    assert [bool(guard.check(picture(1))) for _ in range(16)] == [False] * 15 + [True]


@given(st.integers(1, 7), st.integers(1, 7), st.data())
def test_a_frame_that_differs_in_one_value_is_not_frozen(height: int, width: int, data: st.DataObject) -> None:
    """Wherever it lies, whether or not the values fill whole words."""
    guard = StreamGuard()
    frame = np.full((height, width, 3), 100, np.uint8)
    assert guard.check(frame) is None
    frame.reshape(-1)[data.draw(st.integers(0, frame.size - 1))] += data.draw(st.integers(1, 99))
    assert guard.check(frame) is None
    assert "frozen" in str(guard.check(frame))


def test_another_size_is_a_fault() -> None:
    """The first frame fixes the size."""
    guard = StreamGuard()
    assert "black" in str(guard.check(np.zeros((480, 640, 3), np.uint8))), "no signal has no size"
    assert guard.check(picture(1)) is None
    assert "expected 64 x 48" in (guard.check(picture(1, size=(64, 48))) or "")


def video(path: Path, frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for seed in range(frames):
        writer.write(picture(seed))
    writer.release()


def test_a_video_file_is_read_whole(tmp_path: Path) -> None:
    """Every frame in order, then the camera has ended."""
    video(tmp_path / "v.avi", 5)
    camera = VideoFile(tmp_path / "v.avi", StreamGuard())
    parts = []
    while (frame := camera.next(0)) is not None:
        parts.append(frame.part)
    camera.close()
    assert parts == [f"v-{i:08d}" for i in range(1, 6)]
    assert camera.ended


class Silent:
    """A camera that delivers what it is given and then nothing."""

    ended = False

    def __init__(self, frames: list[Frame], *, patient: bool = False) -> None:
        self._frames = frames
        self.patient = patient

    def next(self, timeout_seconds: float, *, since: float | None = None) -> Frame | None:
        """The next of the given frames."""
        return self._frames.pop(0) if self._frames else None

    def health(self) -> Health:
        """Well."""
        return {"kind": "silent", "ok": True}

    def close(self) -> None:
        """Nothing."""


def test_an_outage_is_one_error_trigger() -> None:
    """Free-running: one fault per outage, again after frames came back."""
    frames = [Frame(picture(), "a")]
    trigger = FreeRunning(Silent(frames), deadline_seconds=0)
    found = [trigger.next() for _ in range(4)]
    assert [r and r.frame and r.frame.part for r in found] == ["a", "no-frame", None, None]
    frames.append(Frame(picture(), "b"))
    assert [r and r.frame and r.frame.part for r in (trigger.next(), trigger.next())] == ["b", "no-frame"]


def test_a_slot_without_a_frame_is_an_error_trigger() -> None:
    """Interval: the clock triggers, so a missing frame is a fault; a folder without files is no trigger."""
    silent = Silent([])
    request = Interval(silent, seconds=0.001).next()
    assert request is not None
    assert capture(silent, request, deadline_seconds=0).fault
    assert Interval(Silent([], patient=True), seconds=0.001).next() is None


def test_the_grid_begins_with_the_first_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty seconds of waiting for the first bundle are no missed triggers."""
    now = [100.0]
    monkeypatch.setattr("edge_agent.trigger.interval.time.monotonic", lambda: now[0])
    trigger = Interval(Silent([]), seconds=0.5)
    now[0] += 20.0
    assert trigger.next() == Request(at=120.0)
    assert trigger.take_missed() == 0
    now[0] += 0.5
    assert trigger.next() == Request(at=120.5)
    assert trigger.take_missed() == 0


def test_slots_that_pass_by_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An inspection of 3.5 intervals misses three of them."""
    now = [100.0]
    monkeypatch.setattr("edge_agent.trigger.interval.time.monotonic", lambda: now[0])
    trigger = Interval(Silent([Frame(picture(), str(i)) for i in range(3)]), seconds=1.0)
    trigger.next()
    assert trigger.take_missed() == 0
    now[0] += 4.5
    trigger.next()
    assert trigger.take_missed() == 3
    assert trigger.take_missed() == 0
