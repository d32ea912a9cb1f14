"""A camera that speaks RTSP: GStreamer's own server, run by the system's Python (Debian packages, see `.ci/missing`).

The picture is noise, so that no two frames are alike, as a real sensor's are not.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.ports import free_port

PYTHON = "/usr/bin/python3"
_PROGRAM = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    "( videotestsrc is-live=true pattern=snow ! video/x-raw,format=I420,width=320,height=240,framerate=20/1"
    " ! jpegenc ! rtpjpegpay name=pay0 pt=26 )"
)
factory.set_shared(True)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
server.get_mount_points().add_factory("/line", factory)
assert server.attach(None), "the port is taken"
print("serving", flush=True)
GLib.MainLoop().run()
"""
_IMPORTS = "import gi; gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0')"


def missing() -> str | None:
    """Why no such server can run here, or None."""
    try:
        tried = subprocess.run([PYTHON, "-c", _IMPORTS], capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return tried.stderr.strip().rpartition("\n")[2] or None if tried.returncode else None


@dataclass
class RtspCamera:
    """A server that can be unplugged and plugged in again on the same port."""

    port: int = field(default_factory=free_port)
    _process: "subprocess.Popen[str] | None" = None

    @property
    def url(self) -> str:
        """The stream's address."""
        return f"rtsp://127.0.0.1:{self.port}/line"

    def plug_in(self) -> None:
        """Begin to serve."""
        self._process = subprocess.Popen([PYTHON, "-c", _PROGRAM, str(self.port)], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == "serving"

    def unplug(self) -> float:
        """Kill the server. Returns the `time.monotonic` of it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        return time.monotonic()


@contextmanager
def rtsp_camera() -> Iterator[RtspCamera]:
    """A camera that is plugged in."""
    camera = RtspCamera()
    camera.plug_in()
    try:
        yield camera
    finally:
        camera.unplug()
