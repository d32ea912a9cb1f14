"""Bundle: one uncompressed tar that holds a model, its recipe, its self-test and its manifest.

Invariants: the same content gives the same bytes (fixed order, times, owners, modes), so the digest names the content;
reading accepts only bytes that packing would have written, so nothing can hide in a bundle: no links, no devices, no paths
outside, no files the manifest does not name, no bytes behind the end. Callers check signature, length and digest first.
"""

import io
import tarfile
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from pydantic import ValidationError

from inspection.contracts import (
    MANIFEST_NAME,
    MODEL_NAME,
    RECIPE_NAME,
    FileEntry,
    Manifest,
    Recipe,
    SelfTestCase,
    decide,
    defect_score,
    sha256_hex,
)
from inspection.contracts.recipe import ANY_DEFECT
from inspection.errors import BundleError, UsageError

SELFTEST = "selftest"
_MODE = 0o644
_MAX_PATH = 100  # of the plain ustar name field


def _check_path(path: str) -> None:
    pure = PurePosixPath(path)
    if str(pure) != path or pure.is_absolute() or ".." in pure.parts or len(path.encode()) > _MAX_PATH:
        raise BundleError(f"bundle names the file {path!r}, which is no plain relative path of at most {_MAX_PATH} bytes")


def _order(path: str) -> tuple[int, str]:
    leading = (MANIFEST_NAME, MODEL_NAME, RECIPE_NAME)
    return (leading.index(path) if path in leading else len(leading), path)


def _tar(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(files, key=_order):
            info = tarfile.TarInfo(path)  # owner, group and time are 0 unless set
            info.size, info.mode = len(files[path]), _MODE
            tar.addfile(info, io.BytesIO(files[path]))
    return out.getvalue()


def entries(files: Mapping[str, bytes]) -> list[FileEntry]:
    """The manifest's list of files, in bundle order. Raises BundleError on a path that does not belong in a bundle."""
    for path in files:
        _check_path(path)
    return [
        FileEntry(path=path, length=len(files[path]), sha256=sha256_hex(files[path])) for path in sorted(files, key=_order)
    ]


def pack(files: Mapping[str, bytes], **manifest_fields: Any) -> bytes:
    """The bytes of a bundle. ``files`` maps paths to contents, with ``model.onnx``, ``recipe.json`` and the self-test's
    pictures; ``manifest_fields`` are those of `Manifest` other than ``files``.

    Raises BundleError on missing files, bad paths, fields the manifest refuses, or a self-test picture that is not there.
    """
    missing = {MODEL_NAME, RECIPE_NAME} - files.keys()
    if missing or MANIFEST_NAME in files:
        raise BundleError(f"cannot pack: missing {sorted(missing)}; {MANIFEST_NAME} is written here and not handed in")
    try:
        manifest = Manifest(files=entries(files), **manifest_fields)
    except ValidationError as error:
        raise BundleError(f"cannot pack: {error}") from error
    lost = [case.path for case in manifest.self_test if case.path not in files]
    if lost:
        raise BundleError(f"cannot pack: the self-test names pictures that are not among the files: {lost}")
    return _tar({MANIFEST_NAME: manifest.canonical(), **files})


def _members(bundle: bytes) -> dict[str, bytes]:
    """Contents by path; only regular files with plain, unrepeated paths."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(bundle), mode="r:") as tar:
            for info in tar:
                _check_path(info.name)
                content = tar.extractfile(info) if info.isreg() else None
                if content is None or info.name in found:
                    raise BundleError(f"bundle holds {info.name!r} twice, or as something that is not a regular file")
                found[info.name] = content.read()
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise BundleError(f"bundle is not a readable tar file: {error}") from error
    if found and next(iter(found)) == MANIFEST_NAME and _tar(found) == bundle:
        return found
    raise BundleError("bundle is not as packing writes it (order, owners, times, or bytes behind its end): refuse it")


def _manifest(files: Mapping[str, bytes]) -> Manifest:
    try:
        return Manifest.parse(files[MANIFEST_NAME])
    except ValidationError as error:
        raise BundleError(f"{MANIFEST_NAME} of the bundle cannot be read: {error}") from error


def _read(bundle: bytes) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest, and all files with it, checked against each other."""
    files = _members(bundle)
    manifest = _manifest(files)
    if entries({path: data for path, data in files.items() if path != MANIFEST_NAME}) != manifest.files:
        raise BundleError("files of the bundle are not those of its manifest (paths, lengths or digests): fetch it again")
    return manifest, files


def read_manifest(bundle: bytes) -> Manifest:
    """The manifest of a bundle whose files were checked against it. Raises BundleError."""
    return _read(bundle)[0]


def read_recipe(bundle: bytes) -> Recipe:
    """The recipe inside a bundle. Raises BundleError."""
    try:
        return Recipe.parse(_read(bundle)[1][RECIPE_NAME])
    except (KeyError, ValidationError) as error:
        raise BundleError(f"{RECIPE_NAME} of the bundle cannot be read: {error}") from error


def distance_to_threshold(scores: Mapping[str, float], recipe: Recipe, novelty: float | None = None) -> float:
    """How far the class scores are from the nearest edge of any band of the recipe, or the novelty from its limit, in
    [0, 1]."""
    found = []
    for name, band in recipe.thresholds.items():
        value = defect_score(scores, recipe.good_class) if name == ANY_DEFECT else scores[name]
        found += [abs(value - band.inconclusive), abs(value - band.ng)]
    if recipe.unfamiliar is not None and novelty is not None:
        found.append(abs(novelty - recipe.unfamiliar))
    return min(found)


def choose_self_test(
    candidates: Mapping[str, Mapping[str, float]],
    recipe: Recipe,
    *,
    novelty: Mapping[str, float] | None = None,
    count: int = 8,
    tolerance: float = 0.05,
) -> dict[str, SelfTestCase]:
    """Pick the pictures a device must answer before it may use the bundle; the result keeps the candidates' keys.

    ``candidates``: class scores by picture, as the shipped file gives them; ``novelty``: the same of a file that gives one.
    Half of ``count`` are the pictures nearest to a threshold; the rest the surest of each kind of outcome in turn. One
    nearer to an edge than ``tolerance`` is not taken while others are there: a sound device may round it over the edge.
    UsageError without candidates.
    """
    if not candidates:
        raise UsageError("a bundle needs at least one self-test picture and none were given")
    said = novelty or {}
    cases = {
        key: self_test_case(f"{SELFTEST}/{key}.png", scores, recipe, novelty=said.get(key), tolerance=tolerance)
        for key, scores in candidates.items()
    }
    away = {key: distance_to_threshold(case.scores, recipe, case.novelty) for key, case in cases.items()}
    by_distance = sorted(cases, key=lambda k: (away[k], k))
    safe = [k for k in by_distance if away[k] > tolerance] or by_distance[-1:]
    near = safe[: (count + 1) // 2]
    chosen = near + _one_of_each(cases, recipe, [k for k in reversed(safe) if k not in near])[: count - len(near)]
    return {key: cases[key] for key in chosen}


def _one_of_each(cases: Mapping[str, SelfTestCase], recipe: Recipe, keys: list[str]) -> list[str]:
    """``keys`` reordered so that every (decision, class) comes once before any comes twice."""
    seen: dict[tuple[str, str | None], int] = {}
    rank = {}
    for place, key in enumerate(keys):
        outcome = decide(cases[key].scores, recipe, cases[key].novelty)
        kind = (outcome.decision.value, outcome.defect_class)
        seen[kind] = seen.get(kind, 0) + 1
        rank[key] = (seen[kind], place)
    return sorted(keys, key=lambda k: rank[k])


def self_test_case(
    path: str, scores: Mapping[str, float], recipe: Recipe, *, novelty: float | None = None, tolerance: float = 0.05
) -> SelfTestCase:
    """What a device must answer on the picture at ``path``: the recipe's decision on ``scores`` and ``novelty``."""
    decision = decide(scores, recipe, novelty).decision
    return SelfTestCase(path=path, decision=decision, scores=dict(scores), tolerance=tolerance, novelty=novelty)
