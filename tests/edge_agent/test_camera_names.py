"""A camera is called by a name that stays with it; a name that may swap is refused, unless a person insists."""

from pathlib import Path

import pytest

from edge_agent.camera.identity import check_name, devices, find
from edge_agent.camera.opening import CameraSettings, open_camera
from edge_agent.errors import DeviceError, UsageError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A computer with two cameras of the same kind, one without a serial, and the metadata node that Linux adds to each."""
    for number, (serial, socket) in enumerate((("SN-7", "usb-0:1"), ("SN-7", "usb-0:1"), (None, "usb-0:2"))):
        node = tmp_path / f"sys/class/video4linux/video{number}"
        usb = tmp_path / f"sys/devices/{socket}"
        (usb / "face").mkdir(parents=True, exist_ok=True)
        node.mkdir(parents=True)
        (node / "device").symlink_to(usb / "face")
        (node / "name").write_text("Line camera\n")
        (node / "index").write_text("1\n" if number == 1 else "0\n")
        if serial is not None:
            (usb / "serial").write_text(f"{serial}\n")
        names = tmp_path / "dev/v4l/by-path"
        names.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"dev/video{number}").touch()
        (names / f"pci-{socket}-index{number}").symlink_to(tmp_path / f"dev/video{number}")
    return tmp_path


def test_cameras_are_found_by_serial_and_by_socket(root: Path) -> None:
    """The node behind a name, as it is now; metadata nodes are no cameras."""
    assert [device.node.name for device in devices(root)] == ["video0", "video2"]
    assert find("serial=SN-7", root) == str(root / "dev/video0")
    assert find("id=pci-usb-0:2-index2", root) == str(root / "dev/video2")
    assert find("rtsp://camera/1", root) == "rtsp://camera/1"


def test_a_camera_that_is_not_there_is_named_with_those_that_are(root: Path) -> None:
    """It may be plugged in again: the device is unwell, nobody used anything wrongly."""
    with pytest.raises(DeviceError, match=r"no camera with serial=SN-8 here.*Line camera.*serial=SN-7"):
        find("serial=SN-8", root)


def test_two_cameras_with_one_serial_are_not_guessed_between(root: Path) -> None:
    """Some makers give all their cameras the same serial."""
    (root / "sys/devices/usb-0:2/serial").write_text("SN-7\n")
    with pytest.raises(DeviceError, match="2 cameras, use id= of the socket"):
        find("serial=SN-7", root)


@pytest.mark.parametrize("name", ["0", "/dev/video0"])
def test_a_name_that_may_swap_needs_unsafe(name: str) -> None:
    """The refusal says how to allow it."""
    with pytest.raises(UsageError, match=r"another after a reboot.*--unsafe"):
        check_name(name, unsafe=False)
    check_name(name, unsafe=True)


@pytest.mark.parametrize("name", ["id=", "camera", "http//camera"])
def test_what_is_no_name_is_wrong_usage(name: str) -> None:
    """Even with --unsafe."""
    with pytest.raises(UsageError, match="is no camera"):
        check_name(name, unsafe=True)


@pytest.mark.parametrize("spec", ["opencv:", "webcam:0", "opencv:0"])
def test_a_wrong_specification_opens_nothing(spec: str) -> None:
    """Said before a process is started for it."""
    with pytest.raises(UsageError):
        open_camera(spec, CameraSettings(), deadline_seconds=2, max_pixels=10**6)


def test_a_camera_that_is_missing_at_the_start_is_tried_again_for_ever() -> None:
    """An agent that starts before its camera is plugged in says why it has no frames."""
    camera = open_camera("opencv:serial=SN-none", CameraSettings(), deadline_seconds=2, max_pixels=10**6)
    try:
        assert camera.next(3.0) is None
        health = camera.health()
        assert health["ok"] is False
        assert "no camera with serial=SN-none" in str(health["last_fault"])
    finally:
        camera.close()
