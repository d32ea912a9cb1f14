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

_NETWORK_LATENCY_SECONDS = 0.3


class CameraSettings(BaseModel):
    """One camera. ``properties`` by name (width, height, fps, exposure, gain, ...) are set, read back and compared;
    ``reference`` is a picture of a good part as this camera must see it; ``unsafe`` allows names that may swap;
    ``latency_seconds`` from the light on the sensor to the frame in this computer: a picture that arrives sooner after a
    trigger was taken before it. By default 0.3 for a network camera, 0 for another."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    properties: dict[str, float] = {}
    reference: str | None = None
    unsafe: bool = False
    guard: GuardLimits = GuardLimits()
    max_age_seconds: float = Field(default=0.5, gt=0)
    latency_seconds: float | None = Field(default=None, ge=0)
    open_deadline_seconds: float = Field(default=10.0, gt=0)


def guard_of(settings: CameraSettings) -> StreamGuard:
    """What watches the frames of this camera. UsageError when the reference picture cannot be read."""
    return StreamGuard(settings.guard, _reference_of(settings))


def _reference_of(settings: CameraSettings) -> Reference | None:
    return None if settings.reference is None else Reference.load(Path(settings.reference))


def open_camera(spec: str, settings: CameraSettings, *, deadline_seconds: float, max_pixels: int) -> Camera:
    """``opencv:id=NAME | serial=SERIAL | rtsp://... | http://... | FILE``, ``genicam:SERIAL``. UsageError says what is
    wrong with a specification; a live camera that is not there, or does not answer, says so in its health and is tried
    again for ever."""
    kind, _, where = spec.partition(":")
    if kind not in ("opencv", "genicam") or not where:
        raise UsageError(f"--camera {spec!r} is neither folder:DIR nor opencv:... nor genicam:SERIAL")
    reference = _reference_of(settings)
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
        latency_seconds=_latency_of(where) if settings.latency_seconds is None else settings.latency_seconds,
        max_pixels=max_pixels,
    )
    return LiveCamera(feed, guard, reference)


def _latency_of(where: str) -> float:
    """Encoding, network and decoding of a common network camera; a device on a cable is taken as immediate."""
    return _NETWORK_LATENCY_SECONDS if "://" in where else 0.0
