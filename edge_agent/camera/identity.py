"""Which camera is which: names that stay with a device, unlike ``/dev/video0``, which swap at a reboot.

`/dev/v4l/by-id` and the USB serial name the device itself; `/dev/v4l/by-path` names the socket it is plugged into, which
tells two identical cameras without serials apart as long as nobody swaps their cables.
"""

from dataclasses import dataclass
from pathlib import Path

from edge_agent.errors import DeviceError, UsageError

_ROOT = Path("/")
_ADDRESSES = ("rtsp://", "rtsps://", "http://", "https://")


@dataclass(frozen=True)
class Device:
    """One capture device of this computer: its node, its names, its maker's name and serial where it has one."""

    node: Path
    names: tuple[str, ...]
    model: str
    serial: str | None

    def __str__(self) -> str:
        serial = f", opencv:serial={self.serial}" if self.serial else ""
        return f"{self.model}: {', '.join(f'opencv:id={name}' for name in self.names) or self.node}{serial}"


def devices(root: Path = _ROOT) -> list[Device]:
    """All Video4Linux capture nodes, by node. ``root`` stands for ``/``."""
    nodes = sorted((root / "sys/class/video4linux").glob("video*"), key=lambda p: int(p.name.removeprefix("video")))
    return [_device(root, node) for node in nodes if _read(node / "index") in ("0", None)]


def _device(root: Path, node: Path) -> Device:
    links = [link for kind in ("by-id", "by-path") for link in sorted((root / "dev/v4l" / kind).glob("*"))]
    names = tuple(link.name for link in links if link.resolve().name == node.name)
    serial = next((s for up in ("device/../serial", "device/serial") if (s := _read(node / up))), None)
    return Device(root / "dev" / node.name, names, _read(node / "name") or "camera", serial)


def _read(path: Path) -> str | None:
    return path.read_text(errors="replace").strip() if path.is_file() else None


def check_name(where: str, *, unsafe: bool) -> None:
    """Is this a name that stays with a camera? ``id=NAME``, ``serial=SERIAL``, a stable path or an address.

    An index or ``/dev/videoN`` only with ``unsafe``. UsageError names the cameras that are there.
    """
    kind, _, name = where.partition("=")
    if where.startswith((*_ADDRESSES, "/dev/v4l/")) or (kind in ("id", "serial") and name):
        return
    if not where.isdecimal() and not where.startswith("/dev/video"):
        raise UsageError(
            f"{where!r} is no camera: give id=NAME, serial=SERIAL, an rtsp:// or http:// address. {_known(_ROOT)}"
        )
    if not unsafe:
        raise UsageError(
            f"camera {where} is whichever the system found first, and may be another after a reboot. {_known(_ROOT)} "
            "Or say --unsafe."
        )


def find(where: str, root: Path = _ROOT) -> str:
    """What `cv2.VideoCapture` opens now for a name that `check_name` let pass. DeviceError when it is not there, or when
    several have that name."""
    kind, _, name = where.partition("=")
    if kind == "id":
        return str(_only([d for d in devices(root) if name in d.names], where, root))
    if kind == "serial":
        return str(_only([d for d in devices(root) if d.serial == name], where, root))
    return where


def _only(found: list[Device], where: str, root: Path) -> Path:
    if len(found) == 1:
        return found[0].node
    what = "no camera" if not found else f"{len(found)} cameras, use id= of the socket,"
    raise DeviceError(f"there is {what} with {where} here. {_known(root)}")


def _known(root: Path) -> str:
    return "Here are: " + ("; ".join(map(str, devices(root))) or "no cameras at all: check cable and power") + "."
