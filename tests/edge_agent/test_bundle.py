"""A bundle holds what its manifest says, as plain files, and nothing else."""

import gzip
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.bundle import open_bundle, open_path
from edge_agent.errors import BundleError
from tests.edge_agent.helpers import bundle, recipe, tar


def files_of(data: bytes) -> dict[str, bytes]:
    return open_bundle(data).files


def test_a_good_bundle_opens_from_tar_and_folder(tmp_path: Path) -> None:
    """Tar and unpacked folder hold the same files."""
    opened = open_bundle(bundle())
    for name, content in opened.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert open_path(tmp_path).files == opened.files
    assert open_path(tmp_path).recipe == opened.recipe


def without(name: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda files: {k: v for k, v in files.items() if k != name}


@pytest.mark.parametrize(
    "change",
    [
        without("manifest.json"),
        without("model.onnx"),
        without("recipe.json"),
        without("selftest/good.png"),
        lambda files: files | {"extra.txt": b"x"},
        lambda files: files | {"../evil": b"x"},
        lambda files: files | {"/etc/evil": b"x"},
        lambda files: files | {"model.onnx": files["model.onnx"] + b"\0"},
        lambda files: files | {"recipe.json": recipe(product="gadget").canonical()},
        lambda files: files | {"manifest.json": b"{}"},
        lambda files: dict(reversed(files.items())),
    ],
)
def test_other_content_is_refused(change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> None:
    """Missing, extra, changed, outside or out of order: refused."""
    with pytest.raises(BundleError):
        open_bundle(tar(change(files_of(bundle()))))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(kind: bytes) -> None:
    """Only plain files may lie in a bundle."""

    def edit(info: tarfile.TarInfo) -> None:
        if info.name == "model.onnx":
            info.type, info.linkname = kind, "/etc/passwd"

    with pytest.raises(BundleError):
        open_bundle(tar(files_of(bundle()), edit))


@pytest.mark.parametrize("data", [b"", b"x" * 2048, gzip.compress(bundle()), bundle()[:600]])
def test_no_tar_is_refused(data: bytes) -> None:
    """Junk, compressed and truncated archives: refused."""
    with pytest.raises(BundleError):
        open_bundle(data)
