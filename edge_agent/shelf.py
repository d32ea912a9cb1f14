"""Where bundles and recipes lie on this device, and the one small file that says which of them is in force.

Invariants: `installed.json` is replaced atomically, so a power cut leaves the old choice or the new; a target appears
under its digest only complete, with its signed release beside it; what neither slot names is deleted, and so is what a
download that failed left; folders are made when something is put there, so that whoever only looks makes none.

    bundles/<sha256>/content, release.json     recipes/<sha256>/content, release.json     staging/     installed.json
"""

import contextlib
import shutil
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from edge_agent.errors import DeviceError
from edge_agent.files import sync, write_durably
from inspection.contracts import TargetKind

INSTALLED_NAME = "installed.json"
SEEN_NAME = "seen.json"

_MIB = 1024 * 1024
_MARGIN_BYTES = 8 * _MIB  # an update leaves this much to the journal, which must go on meanwhile


class Slot(BaseModel):
    """What runs, or ran: digests of bundle, recipe (None: the bundle's own) and challenger, and the signed assignment
    that asked."""

    model_config = ConfigDict(frozen=True)

    bundle: str | None = None
    recipe: str | None = None
    challenger: str | None = None
    assignment: str


class SeenSerial(BaseModel):
    """The newest assignment this device has seen, kept apart from `installed.json`: when that is lost, a replayed older
    assignment must still be refused."""

    model_config = ConfigDict(frozen=True)

    seen_serial: int = 0
    seen_payload: str | None = None


class Installed(BaseModel):
    """Everything about updates that must survive a power cut."""

    model_config = ConfigDict(frozen=True)

    seen_serial: int = 0
    seen_payload: str | None = None
    current: Slot | None = None
    previous: Slot | None = None
    probation: bool = False
    starts_in_probation: int = 0
    started_on: str | None = None  # the kernel's boot id at the last start: a new one means power cut, not crash
    challenging: str | None = None  # the challenger whose starts are counted
    challenger_starts: int = 0  # since it last looked at enough frames, or this process stopped cleanly
    challenger_started_on: str | None = None
    trying: str | None = None
    tries: int = 0
    tried_on: str | None = None
    refused: dict[str, str] = {}


_Kept = TypeVar("_Kept", bound=BaseModel)


class Shelf:
    """The files of bundles and recipes."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._staging = state / "staging"

    def installed(self) -> Installed:
        """Read `installed.json`; when there is none, a fresh one that knows the newest serial all the same.

        DeviceError when it is damaged.
        """
        return self._read(INSTALLED_NAME, Installed) or self.blank()

    def blank(self) -> Installed:
        """Nothing installed, but the newest serial known. DeviceError when that is damaged too."""
        seen = self._read(SEEN_NAME, SeenSerial) or SeenSerial()
        return Installed(seen_serial=seen.seen_serial, seen_payload=seen.seen_payload)

    def remember(self, installed: Installed) -> None:
        """Replace `installed.json` durably, and before it what was seen (also where that was torn).

        DeviceError when the disk refuses: then the old file stands.
        """
        seen = SeenSerial(seen_serial=installed.seen_serial, seen_payload=installed.seen_payload).model_dump_json(indent=1)
        try:
            if self._bytes(SEEN_NAME) != seen.encode():
                write_durably(self._state / SEEN_NAME, seen.encode())
            write_durably(self._state / INSTALLED_NAME, installed.model_dump_json(indent=1).encode())
        except OSError as error:
            raise DeviceError(
                f"{self._state / INSTALLED_NAME} cannot be written: {error.strerror}; is the disk full or read-only?"
            ) from error

    def _bytes(self, name: str) -> bytes | None:
        """A file as it lies there; None when it cannot be read."""
        try:
            return (self._state / name).read_bytes()
        except OSError:
            return None

    def _read(self, name: str, kind: type[_Kept]) -> _Kept | None:
        path = self._state / name
        try:
            return kind.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise DeviceError(
                f"{path} is damaged: {error}; check the disk, then delete it: the hub assigns again"
            ) from error

    def need_room(self, length: int) -> None:
        """DeviceError unless a target of ``length`` bytes fits on the disk; what earlier downloads left goes first."""
        self.clear_staging()
        needed, free = length + _MARGIN_BYTES, shutil.disk_usage(self._state).free
        if free < needed:
            raise DeviceError(
                f"{-(-needed // _MIB)} MiB are needed for the update, {free // _MIB} are free on the disk of "
                f"{self._state}; make room"
            )

    def clear_staging(self) -> None:
        """Delete what downloads left."""
        with contextlib.suppress(OSError):  # a disk that takes no change at all: the next download says so
            for path in self._staging.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def staging_file(self, digest: str) -> Path:
        """Where a download may grow."""
        self._staging.mkdir(exist_ok=True)
        return self._staging / f"{digest}.part"

    def has(self, kind: TargetKind, digest: str) -> bool:
        """True when the target is here."""
        return (self._folder(kind) / digest).is_dir()

    def put(self, kind: TargetKind, digest: str, envelope: bytes) -> None:
        """Make a checked download appear, whole: its bytes are not written a second time. OSError when the disk refuses."""
        target = self._folder(kind) / digest
        building = self._staging / f"{kind.value}-{digest}"
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        building.mkdir(parents=True)
        self.staging_file(digest).rename(building / "content")
        sync(building / "content")
        write_durably(building / "release.json", envelope)  # syncs the folder, with both names
        target.parent.mkdir(exist_ok=True)
        building.rename(target)
        sync(target.parent)

    def get(self, kind: TargetKind, digest: str) -> tuple[bytes, bytes]:
        """Content and signed release of a target. DeviceError when they cannot be read."""
        folder = self._folder(kind) / digest
        try:
            return (folder / "content").read_bytes(), (folder / "release.json").read_bytes()
        except OSError as error:
            raise DeviceError(f"{kind} {digest[:12]} cannot be read from {folder}: {error.strerror}") from error

    def drop(self, kind: TargetKind, digest: str) -> None:
        """Remove a target."""
        shutil.rmtree(self._folder(kind) / digest, ignore_errors=True)

    def tidy(self, *slots: Slot | None) -> None:
        """Delete targets that no slot names, and leftovers of downloads."""
        bundles = {digest for slot in slots if slot for digest in (slot.bundle, slot.challenger)}
        recipes = {slot.recipe for slot in slots if slot}
        for kind, wanted in ((TargetKind.BUNDLE, bundles), (TargetKind.RECIPE, recipes)):
            for path in self._folder(kind).glob("*"):
                if path.name not in wanted:
                    self.drop(kind, path.name)
        self.clear_staging()

    def _folder(self, kind: TargetKind) -> Path:
        return self._state / f"{kind.value}s"
