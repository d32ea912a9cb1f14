"""What is inside a bundle: bytes that were vouched for in, manifest, recipe and files out. No I/O but reading.

Invariants: an uncompressed tar with `manifest.json` first; regular files only, each named once and listed in the
manifest with its size and SHA-256; nothing else; recipe, classes and product agree with each other.
"""

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from edge_agent.errors import BundleError
from inspection.contracts import (
    ANY_DEFECT,
    MANIFEST_NAME,
    MODEL_NAME,
    RECIPE_NAME,
    Manifest,
    Recipe,
    sha256_hex,
)

MAX_MANIFEST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. ``digest`` is the SHA-256 of the tar (of the manifest, for an unpacked folder)."""

    digest: str
    manifest: Manifest
    recipe: Recipe
    files: dict[str, bytes]

    @property
    def model(self) -> bytes:
        """The ONNX file."""
        return self.files[MODEL_NAME]


def _safe(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and str(path) == name and "\\" not in name


def _members(data: bytes) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or not _safe(member.name):
                    raise BundleError(f"bundle member {member.name!r} is not a plain file inside the bundle")
                if member.name in files:
                    raise BundleError(f"bundle member {member.name!r} comes twice")
                content = tar.extractfile(member)
                files[member.name] = content.read() if content else b""
    except tarfile.TarError as error:
        raise BundleError(f"bundle is not a readable uncompressed tar: {error}") from error
    if next(iter(files), None) != MANIFEST_NAME:
        raise BundleError(f"bundle does not begin with {MANIFEST_NAME}; pack it with `inspection build-bundle`")
    return files


def _parse(files: dict[str, bytes]) -> tuple[Manifest, Recipe]:
    for name in (MANIFEST_NAME, MODEL_NAME, RECIPE_NAME):
        if name not in files:
            raise BundleError(f"bundle has no {name}")
    if len(files[MANIFEST_NAME]) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{MANIFEST_NAME} is larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        return Manifest.parse(files[MANIFEST_NAME]), Recipe.parse(files[RECIPE_NAME])
    except ValidationError as error:
        raise BundleError(f"manifest or recipe of the bundle is unreadable: {error}") from error


def _check_listed(manifest: Manifest, files: dict[str, bytes]) -> None:
    listed = {entry.path: entry for entry in manifest.files if entry.path != MANIFEST_NAME}
    present = set(files) - {MANIFEST_NAME}
    if present != set(listed):
        odd = sorted(present ^ set(listed))[:5]
        raise BundleError(f"bundle and manifest disagree about these files: {', '.join(odd)}")
    for path, entry in listed.items():
        if len(files[path]) != entry.length or sha256_hex(files[path]) != entry.sha256:
            raise BundleError(f"bundle file {path} does not have the size and SHA-256 of the manifest")
    for case in manifest.self_test:
        if case.path not in listed:
            raise BundleError(f"self-test picture {case.path} is not in the bundle")


def check_recipe(recipe: Recipe, manifest: Manifest) -> None:
    """BundleError unless the recipe is for this model's product, names only its classes, judges every defect class, and
    asks for no novelty that the model does not give."""
    if recipe.product != manifest.product or recipe.good_class != manifest.good_class:
        raise BundleError(
            f"recipe is for {recipe.product}/{recipe.good_class}, model for {manifest.product}/{manifest.good_class}"
        )
    unknown = sorted(set(recipe.thresholds) - set(manifest.classes) - {ANY_DEFECT})
    if unknown or manifest.good_class not in manifest.classes:
        raise BundleError(f"recipe names classes the model does not know: {', '.join(unknown) or recipe.good_class}")
    unjudged = set(manifest.classes) - {manifest.good_class} - set(recipe.thresholds)
    if unjudged and ANY_DEFECT not in recipe.thresholds:
        raise BundleError(f"recipe has no threshold for {', '.join(sorted(unjudged))}: parts with it would pass")
    if recipe.unfamiliar is not None and manifest.output.novelty is None:
        raise BundleError("recipe asks how unfamiliar a picture is, and the model does not say: build it with its novelty")


def _opened(digest: str, files: dict[str, bytes]) -> Bundle:
    manifest, recipe = _parse(files)
    _check_listed(manifest, files)
    check_recipe(recipe, manifest)
    return Bundle(digest, manifest, recipe, files)


def open_bundle(data: bytes) -> Bundle:
    """Open a bundle's tar. Only for bytes that were checked against a signed release (or by a developer's own hand)."""
    return _opened(sha256_hex(data), _members(data))


def open_path(path: Path) -> Bundle:
    """Open a bundle's tar file, or a folder with the same files unpacked (whose digest is its manifest's)."""
    if not path.is_dir():
        return open_bundle(path.read_bytes())
    files = {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}
    return _opened(sha256_hex(files.get(MANIFEST_NAME, b"")), files)
