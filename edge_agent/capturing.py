"""A request to a frame. Invariant: whatever the camera does, a frame comes back, perhaps only a fault, in time."""

from dataclasses import replace

from edge_agent.camera import Camera, Frame
from edge_agent.trigger import Request


def capture(camera: Camera, request: Request, *, deadline_seconds: float) -> Frame:
    """The frame of a request: its own, or the first one a live camera takes after it."""
    frame = request.frame or camera.next(deadline_seconds, since=request.at)
    if frame is None:
        frame = no_frame(deadline_seconds)
    named = {name: value for name in ("part", "lot") if (value := getattr(request, name)) is not None}
    return replace(frame, **named) if named else frame


def no_frame(after_seconds: float) -> Frame:
    """What stands for a frame that did not come."""
    return Frame(None, "no-frame", fault=f"camera gave no frame for {after_seconds:g} s; check cable and power")
