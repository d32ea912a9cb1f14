"""A bundle's bytes follow from its content, and nothing else is ever read."""

import io
import tarfile
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.contracts import Decision, InputDescription, SelfTestCase
from inspection.errors import BundleError, UsageError
from inspection.release.bundle import (
    choose_self_test,
    distance_to_threshold,
    pack,
    read_manifest,
    read_recipe,
)
from tests.release.making import recipe

CASE = SelfTestCase(path="selftest/a.png", decision=Decision.OK, scores={"good": 0.9, "dent": 0.1}, tolerance=0.05)
FIELDS: dict[str, Any] = {
    "name": "plate-edge",
    "version": 1,
    "product": "plate",
    "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    "backbone": "mobilenetv4_conv_small",
    "precision": "int8",
    "input": InputDescription(model_height=64, model_width=64),
    "classes": ["good", "dent"],
    "good_class": "good",
    "self_test": [CASE],
}
FILES = {"selftest/a.png": b"png", "recipe.json": recipe().canonical(), "model.onnx": b"onnx" * 300}


@pytest.fixture(scope="module")
def bundle() -> bytes:
    """A packed bundle."""
    return pack(FILES, **FIELDS)


def test_same_content_same_bytes(bundle: bytes) -> None:
    """Neither the order of the files nor the time of packing matters."""
    assert pack(dict(reversed(FILES.items())), **FIELDS) == bundle
    assert pack(FILES | {"model.onnx": b"other"}, **FIELDS) != bundle


def test_the_order_is_the_wires(bundle: bytes) -> None:
    """Manifest, model, recipe, self-test; plain files of nobody and of no time."""
    with tarfile.open(fileobj=io.BytesIO(bundle)) as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == ["manifest.json", "model.onnx", "recipe.json", "selftest/a.png"]
    assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in members} == {(0, 0, 0, 0o644, "")}


def test_it_holds_what_was_packed(bundle: bytes) -> None:
    """Every file, and the manifest and recipe as read."""
    manifest = read_manifest(bundle)
    with tarfile.open(fileobj=io.BytesIO(bundle)) as tar:
        held = {member.name: opened.read() for member in tar if (opened := tar.extractfile(member)) is not None}
    assert held == {"manifest.json": manifest.canonical(), **FILES}
    assert {entry.path for entry in manifest.files} == FILES.keys()
    assert read_recipe(bundle) == recipe()


@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_one_flipped_bit_outside_the_manifest_is_refused(bundle: bytes, place: int, bit: int) -> None:
    """Content, header, padding, end: no bit is free (those of the manifest are held by the bundle's signed digest)."""
    text = read_manifest(bundle).canonical()
    start = bundle.index(text)
    place %= len(bundle) - len(text)
    changed = bytearray(bundle)
    changed[place if place < start else place + len(text)] ^= 1 << bit
    with pytest.raises(BundleError):
        read_manifest(bytes(changed))


@pytest.mark.parametrize("cut", [0, 1, 512, 2000])
def test_a_cut_or_prolonged_bundle_is_refused(bundle: bytes, cut: int) -> None:
    """Too short, empty, or with something behind its end."""
    for bad in (bundle[:cut], bundle + b"x" * (cut + 1), bundle + bundle):
        with pytest.raises(BundleError):
            read_manifest(bad)


def _hostile(kind: bytes, name: str, link: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.mode = kind, link, 0o644
        tar.addfile(info)
    return out.getvalue()


@pytest.mark.parametrize(
    "bad",
    [
        _hostile(tarfile.SYMTYPE, "manifest.json", "/etc/passwd"),
        _hostile(tarfile.LNKTYPE, "manifest.json", "model.onnx"),
        _hostile(tarfile.CHRTYPE, "manifest.json"),
        _hostile(tarfile.DIRTYPE, "selftest"),
        _hostile(tarfile.REGTYPE, "../manifest.json"),
        _hostile(tarfile.REGTYPE, "/manifest.json"),
        _hostile(tarfile.REGTYPE, "manifest.json"),
        b"",
        b"not a tar",
    ],
)
def test_hostile_archives_are_not_read(bad: bytes) -> None:
    """Links, devices, folders, traversal, an empty manifest: refused."""
    with pytest.raises(BundleError):
        read_manifest(bad)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"model.onnx": b"", "selftest/a.png": b""}, "missing"),
        (FILES | {"manifest.json": b"{}"}, "handed in"),
        (FILES | {"../up": b""}, "plain relative path"),
        (FILES | {"a/../../up": b""}, "plain relative path"),
        (FILES | {"x" * 101: b""}, "plain relative path"),
        ({k: v for k, v in FILES.items() if "selftest" not in k}, "self-test"),
    ],
)
def test_a_bad_bundle_is_not_packed(files: dict[str, bytes], message: str) -> None:
    """What reading would refuse is never packed."""
    with pytest.raises(BundleError, match=message):
        pack(files, **FIELDS)


def test_bad_manifest_fields_are_a_bundle_error() -> None:
    """A manifest without a self-test is no manifest."""
    with pytest.raises(BundleError, match="self_test"):
        pack(FILES, **FIELDS | {"self_test": []})


def _scores(total: float) -> dict[str, float]:
    return {"good": 1 - total, "dent": total}


def test_the_self_test_holds_near_threshold_pictures_and_each_outcome() -> None:
    """The nearest to an edge that a sound device cannot round over it, and a sure OK and a sure NG."""
    totals = {"at-edge": 0.61, "near": 0.68, "nearer": 0.34, "sure-ok": 0.0, "ok": 0.05, "sure-ng": 1.0, "ng": 0.97}
    chosen = choose_self_test({k: _scores(v) for k, v in totals.items()}, recipe(), count=4, tolerance=0.05)
    assert set(chosen) == {"near", "nearer", "sure-ok", "sure-ng"}
    assert chosen["near"].decision is Decision.NG
    assert chosen["nearer"].path == "selftest/nearer.png"


def test_a_picture_at_the_edge_is_better_than_none() -> None:
    """With nothing else to choose from, the farthest from an edge is taken."""
    chosen = choose_self_test({"a": _scores(0.6), "b": _scores(0.62)}, recipe())
    assert list(chosen) == ["b"]
    assert distance_to_threshold(_scores(0.62), recipe()) == pytest.approx(0.02)
    with pytest.raises(UsageError, match="at least one"):
        choose_self_test({}, recipe())
