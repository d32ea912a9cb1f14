"""A camera from its specification and settings: everything but folders, which need the journal."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from edge_agent.camera.guard import GuardLimits, StreamGuard
from edge_agent.camera.identity import check_name
from edge_agent.camera.imaging import Reference
from edge_agent.camera.live import Feed, LiveCamera
from edge_agent.camera.port import Camera
from edge_agent.camera.video import VideoFile
from edge_agent.errors import UsageError


class CameraSettings(BaseModel):
    """One camera. ``properties`` by name (width, height, fps, exposure, gain, ...) are set, read back and compared;
    ``reference`` is a picture of a good part as this camera must see it; ``unsafe`` allows names that may swap."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    properties: dict[str, float] = {}
    reference: str | None = None
    unsafe: bool = False
    guard: GuardLimits = GuardLimits()
    max_age_seconds: float = Field(default=0.5, gt=0)
    open_deadline_seconds: float = Field(default=10.0, gt=0)


def open_camera(spec: str, settings: CameraSettings, *, deadline_seconds: float, max_pixels: int) -> Camera:
    """``opencv:id=NAME | serial=SERIAL | rtsp://... | http://... | FILE``, ``genicam:SERIAL``. UsageError says what is
    wrong with a specification; a live camera that is not there, or does not answer, says so in its health and is tried
    again for ever."""
    kind, _, where = spec.partition(":")
    if kind not in ("opencv", "genicam") or not where:
        raise UsageError(f"--camera {spec!r} is neither folder:DIR nor opencv:... nor genicam:SERIAL")
    reference = None if settings.reference is None else Reference.load(Path(settings.reference))
    guard = StreamGuard(settings.guard, reference)
    if kind == "opencv" and Path(where).is_file():
        return VideoFile(Path(where), guard)
    if kind == "opencv":
        check_name(where, unsafe=settings.unsafe)
    feed = Feed(
        kind,
        where,
        settings.properties,
        deadline_seconds=deadline_seconds,
        open_deadline_seconds=settings.open_deadline_seconds,
        max_age_seconds=settings.max_age_seconds,
        max_pixels=max_pixels,
    )
    return LiveCamera(feed, guard, reference)
