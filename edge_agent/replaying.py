"""A folder of pictures through a bundle, as on the line: one verdict per picture. Gate 2 runs this as a subprocess.

Invariants: every listed picture gives exactly one verdict, an unreadable one an ERROR with its reason; the frame check,
the runtime and the judge are those of the loop.
"""

import csv
import uuid
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from edge_agent.bundle import Bundle, check_recipe
from edge_agent.camera import Frame
from edge_agent.camera.folder import printable, read_picture_timed
from edge_agent.errors import UsageError
from edge_agent.inspecting import Active, Identity, Loaded, inspect
from edge_agent.runtime import Runtime
from inspection.contracts import Mode, Recipe, Verdict

LABELS_NAME = "labels.csv"
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif"})
_MAX_BYTES = 64 * 1024 * 1024
_MAX_PIXELS = 64_000_000


def listed(folder: Path) -> list[str]:
    """Relative paths of the pictures: those of `labels.csv` in its order, else every picture file by name.

    UsageError when the folder is missing or holds no picture.
    """
    table = folder / LABELS_NAME
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as lines:
            rows = csv.DictReader(lines)
            if "path" not in (rows.fieldnames or []):
                raise UsageError(f"{table} has no column 'path'; its columns are path, label and optionally others")
            found = [row["path"] for row in rows]
    else:
        files = (p.relative_to(folder) for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
        found = sorted(p.as_posix() for p in files if not any(part.startswith(".") for part in p.parts))
    if not found:
        raise UsageError(f"no pictures in {folder}; give a folder of pictures, of classes, or with {LABELS_NAME}")
    return found


def replay(
    bundle: Bundle, runtime: Runtime, folder: Path, paths: list[str], *, recipe: Recipe | None = None
) -> Iterator[Verdict]:
    """One verdict per path, in order; ``part`` is the path. BundleError when ``recipe`` is for another model."""
    if recipe is not None:
        check_recipe(recipe, bundle.manifest)
    active = Active(Loaded(bundle, recipe or bundle.recipe, runtime), Mode.JUDGE)
    who = Identity("replay", "replay", bundle.manifest.product, str(uuid.uuid4()))
    for sequence, path in enumerate(paths, start=1):
        image, fault, decode_ms = read_picture_timed(folder / path, max_bytes=_MAX_BYTES, max_pixels=_MAX_PIXELS)
        frame = Frame(image, printable(path), decode_ms=decode_ms, fault=fault)
        yield inspect(frame, active, who, sequence).verdict


def read_recipe(data: bytes) -> Recipe:
    """A recipe from JSON. UsageError when it is none."""
    try:
        return Recipe.parse(data)
    except ValidationError as error:
        raise UsageError(f"this is not a recipe: {error}") from error
