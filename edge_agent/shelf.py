"""Where bundles and recipes lie on this device, and the one small file that says which of them is in force.

Invariants: `installed.json` is replaced atomically, so a power cut leaves the old choice or the new; a target appears
under its digest only complete, with its signed release beside it; what neither slot names is deleted.

    bundles/<sha256>/content, release.json     recipes/<sha256>/content, release.json     staging/     installed.json
"""

import shutil
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from edge_agent.errors import DeviceError
from edge_agent.files import sync_folder, write_durably
from inspection.contracts import TargetKind

INSTALLED_NAME = "installed.json"
SEEN_NAME = "seen.json"


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
    refused: dict[str, str] = {}


_Kept = TypeVar("_Kept", bound=BaseModel)


class Shelf:
    """The files of bundles and recipes."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._staging = state / "staging"
        for kind in TargetKind:
            self._folder(kind).mkdir(parents=True, exist_ok=True)
        self._staging.mkdir(exist_ok=True)

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

    def staging_file(self, digest: str) -> Path:
        """Where a download may grow."""
        return self._staging / f"{digest}.part"

    def has(self, kind: TargetKind, digest: str) -> bool:
        """True when the target is here."""
        return (self._folder(kind) / digest).is_dir()

    def put(self, kind: TargetKind, digest: str, data: bytes, envelope: bytes) -> None:
        """Make a checked target appear, whole."""
        target = self._folder(kind) / digest
        building = self._staging / f"{kind.value}-{digest}"
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        building.mkdir()
        write_durably(building / "content", data)
        write_durably(building / "release.json", envelope)
        building.rename(target)
        sync_folder(target.parent)
        self.staging_file(digest).unlink(missing_ok=True)

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
            for path in self._folder(kind).iterdir():
                if path.name not in wanted:
                    self.drop(kind, path.name)
        for path in self._staging.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _folder(self, kind: TargetKind) -> Path:
        return self._state / f"{kind.value}s"
