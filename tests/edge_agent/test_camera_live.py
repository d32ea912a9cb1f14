"""A live camera in its own process: the newest frame or a reason in words, in time, whatever the camera does."""

import contextlib
import gc
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edge_agent.camera import Frame
from edge_agent.camera.genicam import GenicamSource, producers, to_bgr
from edge_agent.camera.guard import GuardLimits, StreamGuard
from edge_agent.camera.imaging import Imaging
from edge_agent.camera.live import Feed, LiveCamera, _Child, masked
from edge_agent.camera.mjpeg import MjpegSource
from edge_agent.camera.opening import CameraSettings, open_camera
from edge_agent.camera.ring import SLOTS, Ring
from edge_agent.errors import DeviceError
from tests.edge_agent.helpers import picture
from tests.edge_agent.mjpeg_server import NetworkCamera, network_camera


@pytest.fixture
def network() -> Iterator[NetworkCamera]:
    """A camera on the network."""
    with network_camera() as camera:
        yield camera


@pytest.fixture
def live(network: NetworkCamera) -> Iterator[LiveCamera]:
    """It, watched."""
    camera = LiveCamera(Feed("opencv", network.url), StreamGuard())
    try:
        yield camera
    finally:
        camera.close()


def delivered(camera: LiveCamera, seconds: float = 10) -> Frame:
    frame = camera.next(seconds)
    assert frame is not None, camera.health()
    return frame


def until(reached: Callable[[], bool], seconds: float = 15) -> float:
    """How long it took."""
    began = time.monotonic()
    while not reached():
        assert time.monotonic() - began < seconds, "not reached in time"
        time.sleep(0.01)
    return time.monotonic() - began


def clean(camera: LiveCamera) -> bool:
    frame = camera.next(0.05)
    return frame is not None and frame.fault is None


def children() -> list[int]:
    """Processes that this one started and has not reaped."""
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def test_a_setting_that_the_driver_rounded_was_taken() -> None:
    """Cameras count in steps of their own; another value is refused."""
    camera = LiveCamera(
        Feed("opencv", "id=none", {"fps": 29.97003, "exposure": 0.3, "focus": 0.0, "gain": 10.0}), StreamGuard()
    )
    camera._settings = {"fps": 30.0, "exposure": 0.30000001192, "focus": 1e-9, "gain": 11.0}
    assert camera.health()["settings_refused"] == "gain is 11"
    camera.close()


def test_frames_are_whole_new_and_numbered(live: LiveCamera) -> None:
    """Each with the moment it was handed over; what nobody asked for is counted as skipped."""
    first = delivered(live)
    assert first.image is not None
    assert first.image.shape == (48, 64, 3)
    assert first.fault is None
    time.sleep(0.3)
    second = delivered(live)
    assert first.stamp is not None
    assert second.stamp is not None
    assert second.stamp > first.stamp
    assert time.monotonic() - second.stamp < 0.25  # the newest, not the one that followed the first
    assert second.number - first.number > 1
    assert live.health()["skipped"] == second.number - 2


def test_a_request_gets_a_frame_that_was_taken_after_it(live: LiveCamera) -> None:
    """The part was not there before it was triggered."""
    delivered(live)
    for _ in range(5):
        time.sleep(0.05)
        now = time.monotonic()
        frame = live.next(5, since=now)
        assert frame is not None
        assert frame.stamp is not None
        assert frame.stamp >= now


def test_a_late_camera_is_given_its_time(network: NetworkCamera) -> None:
    """What arrives sooner than its latency after the trigger was exposed before it, and shows the part before."""
    camera = LiveCamera(Feed("opencv", network.url, latency_seconds=0.2), StreamGuard())
    try:
        delivered(camera)
        now = time.monotonic()
        frame = camera.next(5, since=now)
        assert frame is not None
        assert frame.stamp is not None
        assert now + 0.2 <= frame.stamp < now + 1.0
    finally:
        camera.close()


def test_a_network_camera_is_taken_as_late_unless_it_is_said_otherwise(network: NetworkCamera) -> None:
    """Nobody measures it on the first day; a device on a cable is immediate."""
    for where, settings, expected in (
        (network.url, CameraSettings(), 0.3),
        (network.url, CameraSettings(latency_seconds=0.0), 0.0),
        ("id=none", CameraSettings(), 0.0),
    ):
        camera = open_camera(f"opencv:{where}", settings, deadline_seconds=2, max_pixels=10**6)
        assert isinstance(camera, LiveCamera)
        camera.close()
        assert camera._feed.latency_seconds == expected


def test_of_pictures_that_wait_the_newest_is_decoded(network: NetworkCamera) -> None:
    """A camera faster than the decoder must not fill the buffers: each picture would be older than the one before."""
    source = MjpegSource(network.url, "camera", timeout_seconds=5, max_pixels=10**6, damaged=lambda _: None)
    source.open({})
    try:
        assert source.read() is not None
        until(lambda: network.sent >= 30)
        before = network.sent
        network.mode = "black"
        until(lambda: network.sent >= before + 5)
        newest = source.read()
        assert newest is not None
        assert newest.max() < 20, "the newest of them is black"
    finally:
        source.close()


def test_an_old_word_of_the_driver_is_not_the_reason_of_a_later_death(live: LiveCamera) -> None:
    """Drivers grumble; what they said hours ago is told as that, not as why the process ended."""
    delivered(live)
    child = live._child
    assert child is not None
    live._heard(child, ["Corrupt JPEG data: 1 extraneous bytes"])
    os.kill(child.process.pid, signal.SIGKILL)
    until(lambda: "its process ended by itself" in str(live.health()["last_fault"]) or live._restarts > 0)
    assert "last words: Corrupt JPEG data" in child.last_words
    assert child.failed == ""


def test_trouble_in_measuring_or_watching_is_not_the_end_of_the_camera(
    live: LiveCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too little memory for a moment, or an error nobody thought of: pictures come on, or again."""
    troubles: list[Exception] = [RuntimeError("nobody thought of this"), MemoryError()]

    def fails(*_: object) -> Imaging:
        if troubles:
            raise troubles.pop()
        return Imaging(1.0, 2.0, 0.0)

    monkeypatch.setattr("edge_agent.camera.live.measure", fails)
    until(lambda: live.next(0.1) is not None and not troubles, seconds=20)
    until(lambda: clean(live) and bool(live.health()["ok"]), seconds=20)


def test_a_stale_frame_is_never_delivered(network: NetworkCamera, live: LiveCamera) -> None:
    """The camera stops; what lies in the ring grows old and stays there."""
    delivered(live)
    network.mode = "silent"
    time.sleep(1.0)
    assert live.next(0.2) is None


@pytest.mark.parametrize(
    ("mode", "words"), [("frozen", "frozen"), ("two_buffers", "frozen"), ("black", "black"), ("white", "saturated")]
)
def test_frames_that_show_nothing_new_are_faults(network: NetworkCamera, live: LiveCamera, mode: str, words: str) -> None:
    """Also a driver that hands out its two buffers in turn; when it is well again, so are its frames."""
    delivered(live)
    network.mode = mode
    until(lambda: words in str((live.next(1) or Frame(None, "")).fault))
    for _ in range(10):
        frame = live.next(1)
        assert frame is None or frame.fault
    assert not live.health()["ok"]
    network.mode = "fine"
    until(lambda: clean(live))
    assert live.health()["ok"]


@pytest.mark.parametrize("mode", ["corrupt", "truncated"])
def test_damaged_pictures_are_skipped_and_counted_never_shown(network: NetworkCamera, live: LiveCamera, mode: str) -> None:
    """Half a picture is no picture."""
    delivered(live)
    network.mode = mode
    until(lambda: bool(live.health()["damaged"]))
    time.sleep(0.6)
    assert live.next(0.2) is None
    network.mode = "fine"
    until(lambda: clean(live))


def test_a_change_of_size_is_a_fault(network: NetworkCamera, live: LiveCamera) -> None:
    """Somebody turned the camera's settings: what was learnt of the old size does not hold for the new one."""
    delivered(live)
    network.size = (96, 80)
    until(lambda: "expected 64 x 48" in str((live.next(1) or Frame(None, "")).fault))


def test_frames_larger_than_the_ring_make_it_grow(network: NetworkCamera) -> None:
    """Without a setting for it; beyond the bound of pixels they are refused in words."""
    network.size = (2100, 1300)
    for max_pixels, fine in ((10_000_000, True), (2_000_000, False)):
        camera = LiveCamera(Feed("opencv", network.url, max_pixels=max_pixels), StreamGuard())
        try:
            assert (camera.next(8) is not None) is fine, camera.health()
        finally:
            camera.close()


def test_loss_is_noticed_in_two_seconds_and_mended_in_five(network: NetworkCamera, live: LiveCamera) -> None:
    """The cable is pulled and put back: the figures the product promises."""
    delivered(live)
    network.unplug()
    assert until(lambda: not live.health()["ok"]) < 2.0
    assert live.next(0.1) is None
    until(lambda: "does not answer" in str(live.health()["last_fault"]))
    time.sleep(1.0)
    network.plug_in()
    assert until(lambda: clean(live)) < 5.0


def test_a_camera_that_goes_silent_is_lost_too(network: NetworkCamera, live: LiveCamera) -> None:
    """It still holds the connection and says nothing."""
    delivered(live)
    network.mode = "silent"
    assert until(lambda: not live.health()["ok"]) < 2.5
    until(lambda: bool(live.health()["restarts"]))
    network.mode = "fine"
    assert until(lambda: clean(live)) < 5.0


def test_a_driver_that_hangs_is_killed_and_started_again(live: LiveCamera) -> None:
    """Stopped where it stands, as in a system call that never returns."""
    delivered(live)
    (pid,) = children()
    os.kill(pid, signal.SIGSTOP)
    assert until(lambda: not live.health()["ok"]) < 2.5
    assert until(lambda: clean(live)) < 5.0
    assert pid not in children()


def test_a_killed_child_is_replaced_at_once(live: LiveCamera) -> None:
    """A driver that crashed takes nothing with it."""
    delivered(live)
    (pid,) = children()
    os.kill(pid, signal.SIGKILL)
    until(lambda: live.health()["restarts"] == 1)
    assert until(lambda: clean(live)) < 5.0


def test_restarts_leave_nothing_behind(live: LiveCamera) -> None:
    """Descriptors, threads and processes are as many after ten kills as after one."""

    def kill_once(restarts: int) -> None:
        until(lambda: clean(live))
        os.kill(children()[0], signal.SIGKILL)
        until(lambda: live.health()["restarts"] == restarts)

    kill_once(1)
    until(lambda: clean(live))
    before = len(os.listdir("/proc/self/fd")), threading.active_count(), len(children())  # noqa: PTH208
    for restart in range(2, 11):
        kill_once(restart)
    until(lambda: clean(live))
    assert (len(os.listdir("/proc/self/fd")), threading.active_count(), len(children())) == before  # noqa: PTH208


@contextmanager
def descriptors(room: int | None) -> Iterator[None]:
    """This process may open so many more descriptors; None: not one, also where others are closed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.dup(0) for _ in range((room or 0) + 1)]  # the lowest free numbers, which are given out first
    for descriptor in free:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3 if room is None else free[-1], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # as short as it gets


def test_a_computer_that_is_out_of_descriptors_gets_its_camera_back(live: LiveCamera) -> None:
    """A restart that fails is a reason in words and tried again, not the end."""
    until(lambda: clean(live))
    (pid,) = children()
    with descriptors(None):
        os.kill(pid, signal.SIGKILL)
        until(lambda: "descriptors" in str(live.health()["last_fault"]))
    assert until(lambda: clean(live)) < 5.0


def test_a_start_that_fails_half_way_leaves_nothing_open() -> None:
    """Whichever descriptor is the one too many."""
    feed, failed = Feed("opencv", "/nowhere.avi"), 0
    gc.collect()  # what earlier tests left to it may be closed at any time
    before = open_descriptors()
    for room in range(20):
        with contextlib.suppress(OSError), descriptors(room):
            _Child(feed, 100).end()
            break
        failed += 1
        assert open_descriptors() <= before
    assert failed > 5
    assert open_descriptors() <= before


def end_all(camera: LiveCamera) -> None:
    """What the test left running goes too."""
    for process in camera._left:
        process.kill()
        process.wait()


def test_a_process_the_kernel_cannot_end_holds_nobody_up(live: LiveCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hangs in a driver, where no signal reaches it: it is left, the next one delivers, and closing is quick."""
    until(lambda: clean(live))
    (stuck,) = children()
    monkeypatch.setattr(os, "killpg", lambda *_: None)  # stands for that kernel
    os.kill(stuck, signal.SIGSTOP)
    try:
        until(lambda: not live.health()["ok"])
        assert until(lambda: clean(live)) < 8.0
        assert stuck in children()
        began = time.monotonic()
        live.close()
        assert time.monotonic() - began < 5.0
    finally:
        end_all(live)


def test_processes_that_cannot_be_ended_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the third no other is started, and the way out is named."""
    monkeypatch.setattr(os, "killpg", lambda *_: None)
    monkeypatch.setattr("edge_agent.camera.live._END_SECONDS", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        feed = Feed("opencv", f"http://127.0.0.1:{silent.getsockname()[1]}/", open_deadline_seconds=0.3)
        camera = LiveCamera(feed, StreamGuard())
        try:
            until(lambda: "3 processes hang" in str(camera.health()["last_fault"]))
            assert len(children()) <= 3
        finally:
            camera.close()
            end_all(camera)


def test_nothing_is_left_when_the_agent_is_killed(network: NetworkCamera) -> None:
    """The capture process dies with it, so the next agent finds the camera free."""
    code = (
        "import sys, time\n"
        "from edge_agent.camera.live import Feed, LiveCamera\n"
        "from edge_agent.camera.guard import StreamGuard\n"
        "camera = LiveCamera(Feed('opencv', sys.argv[1]), StreamGuard())\n"
        "assert camera.next(20) is not None\n"
        "print(camera._child.process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, network.url], stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        pid = int(agent.stdout.readline())
        agent.kill()
    until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2])


def test_close_is_quick_also_when_nothing_ever_opened() -> None:
    """A camera that is not there: no frame, a reason, no exception; and the thread ends."""
    camera = LiveCamera(Feed("opencv", "/nowhere.avi"), StreamGuard())
    assert camera.next(0.1) is None
    until(lambda: "did not open" in str(camera.health()["last_fault"]))
    began = time.monotonic()
    camera.close()
    camera.close()
    assert time.monotonic() - began < 2
    assert children() == []


def test_user_and_password_are_used_and_never_shown(network: NetworkCamera) -> None:
    """The camera gets them; health, log and errors do not."""
    address = network.url.replace("http://", "http://line:s3cret@")
    camera = LiveCamera(Feed("opencv", address), StreamGuard())
    try:
        delivered(camera)
        assert network.authorization is not None
        (pid,) = children()
        assert b"s3cret" not in Path(f"/proc/{pid}/cmdline").read_bytes()  # everybody here may read it
        network.unplug()
        until(lambda: camera.health()["last_fault"] is not None)
        assert "s3cret" not in str(camera.health())
    finally:
        camera.close()


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://u:p@10.0.0.2/live", "rtsp://***@10.0.0.2/live"),
        ("rtsp://u:p@ss@w@10.0.0.2:554/live@2", "rtsp://***@10.0.0.2:554/live@2"),
        ("http://10.0.0.2/a@b", "http://10.0.0.2/a@b"),
        (
            "'http://u:p@h/' failed, and rtsp://v:q@i too; ask me@home",
            "'http://***@h/' failed, and rtsp://***@i too; ask me@home",
        ),
    ],
)
def test_an_address_is_shown_without_its_secret(address: str, shown: str) -> None:
    """All of it, also where the password holds an @; what is no secret stays."""
    assert masked(address) == shown


def test_a_torn_frame_is_never_handed_out() -> None:
    """The writer comes round while the reader copies: each frame that comes out is of one value throughout."""
    ring = Ring.create(200 * 200 * 3)
    reader = Ring(os.dup(ring.descriptor), ring.slot_bytes)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            ring.write(number, np.full((200, 200, 3), number % 251, np.uint8), float(number), 0.0)

    writer = threading.Thread(target=write)
    writer.start()
    seen = reads = 0
    try:
        while reads < 3000 or seen <= SLOTS:  # on a busy computer the writer may begin late
            reads += 1
            taken = reader.newest(seen)
            if taken is not None:
                assert (taken.image == taken.number % 251).all()
                assert taken.number > seen
                seen = taken.number
    finally:
        stop.set()
        writer.join()
        reader.close()
        ring.close()


@pytest.mark.parametrize(("pixel_format", "channels"), [("Mono8", 1), ("RGB8", 3), ("BGR8", 3), ("BayerRG8", 1)])
def test_buffers_of_industrial_cameras_become_frames(pixel_format: str, channels: int) -> None:
    """Whatever the pixel format, blue comes first; one that is not known is named."""
    data = np.full(6 * 8 * channels, 70, np.uint8)
    if channels == 3:
        data[::3] = 200
    frame = to_bgr(data, 8, 6, pixel_format)
    assert frame.shape == (6, 8, 3)
    assert tuple(frame[2, 2]) == {"RGB8": (70, 70, 200), "BGR8": (200, 70, 70)}.get(pixel_format, (70, 70, 70))
    with pytest.raises(DeviceError, match="YUV422"):
        to_bgr(data, 8, 6, "YUV422")


def test_without_the_extra_or_a_producer_the_next_step_is_named(tmp_path: Path) -> None:
    """What to install, and which variable to set."""
    with pytest.raises(DeviceError, match=r"\.\[genicam\]|GENICAM_GENTL64_PATH"):
        GenicamSource("1").open({})
    with pytest.raises(DeviceError, match="GENICAM_GENTL64_PATH"):
        producers(str(tmp_path))


def test_a_reference_makes_blur_and_displacement_faults() -> None:
    """Out of focus, and moved by more than the bound; the same picture under a darker lamp is fine."""
    import cv2

    from edge_agent.camera.imaging import Reference

    rng = np.random.default_rng(0)
    part = cv2.GaussianBlur(rng.integers(0, 255, (240, 320, 3), dtype=np.uint8), (0, 0), 2)
    part = cv2.normalize(part, None, 40, 200, cv2.NORM_MINMAX)
    guard = StreamGuard(GuardLimits(max_shift_pixels=10), Reference.of(part))

    def seen(image: np.ndarray) -> str | None:
        noise = rng.integers(-2, 3, image.shape)
        return guard.check(np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8))

    assert seen(part) is None
    assert seen(part * 0.6) is None
    assert "out of focus" in str(seen(cv2.GaussianBlur(part, (0, 0), 5)))
    assert "displaced by +24" in str(seen(np.roll(part, 24, axis=1)))
    assert "nothing of the reference" in str(seen(np.ascontiguousarray(rng.permutation(part, axis=0))))
    assert "expected 320 x 240" in str(guard.check(picture(1)))
