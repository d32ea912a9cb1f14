"""A camera that speaks RTSP, over the real child process, from a real server."""

import time
from collections.abc import Callable, Iterator

import pytest

from edge_agent.camera.guard import StreamGuard
from edge_agent.camera.live import Feed, LiveCamera
from tests.edge_agent.rtsp_server import RtspCamera, missing, rtsp_camera

_SLACK = 3.0  # of what the product promises, for a machine that is busy with other tests
pytestmark = [pytest.mark.service, pytest.mark.slow]


@pytest.fixture
def network() -> Iterator[RtspCamera]:
    """A camera on the network."""
    if reason := missing():
        pytest.skip(f"GStreamer's RTSP server is not installed ({reason})")
    with rtsp_camera() as camera:
        yield camera


@pytest.fixture
def live(network: RtspCamera) -> Iterator[LiveCamera]:
    """It, watched."""
    camera = LiveCamera(Feed("opencv", network.url), StreamGuard())
    try:
        yield camera
    finally:
        camera.close()


def until(reached: Callable[[], bool], seconds: float = 30) -> float:
    """How long it took."""
    began = time.monotonic()
    while not reached():
        assert time.monotonic() - began < seconds, "not reached in time"
        time.sleep(0.01)
    return time.monotonic() - began


def clean(camera: LiveCamera) -> bool:
    frame = camera.next(0.05)
    return frame is not None and frame.fault is None


def test_frames_come_and_are_new(live: LiveCamera) -> None:
    """Colour pictures of the stream's size, none twice."""
    until(lambda: clean(live))
    frames = [live.next(5) for _ in range(5)]
    assert all(f is not None and f.fault is None and f.image is not None for f in frames)
    assert {f.image.shape for f in frames if f and f.image is not None} == {(240, 320, 3)}
    numbers = [f.number for f in frames if f]
    assert numbers == sorted(set(numbers))


def test_loss_is_noticed_and_mended(network: RtspCamera, live: LiveCamera) -> None:
    """The camera loses its power for some seconds: no frame meanwhile, no old one afterwards."""
    until(lambda: clean(live))
    network.unplug()
    noticed = until(lambda: not live.health()["ok"])
    assert live.next(0.1) is None
    until(lambda: "did not open" in str(live.health()["last_fault"]) or "stopped" in str(live.health()["last_fault"]))
    network.plug_in()
    returned = time.monotonic()
    mended = until(lambda: clean(live))
    frame = live.next(5)
    assert frame is not None
    assert frame.stamp is not None
    assert frame.stamp > returned
    assert noticed < _SLACK * 2.0
    assert mended < _SLACK * 5.0
