"""Blobs: whole or absent, and never other bytes than the key promises."""

import hashlib
import multiprocessing
import uuid
from pathlib import Path

import pytest

from inspection.errors import EnvironmentTroubleError, IntegrityError, MissingPictureError, UsageError
from inspection.store.blobs import Blobs

DATA = b"a picture, say"
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(params=["file", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    """A folder, and an object store as fsspec shows one."""
    return Blobs(f"file://{tmp_path}/blobs" if request.param == "file" else f"memory://{uuid.uuid4().hex}")


def test_put_is_content_addressed_and_idempotent(blobs: Blobs) -> None:
    """The key is the digest, and putting the same bytes again changes nothing."""
    assert blobs.put("pictures", DATA) == blobs.put("pictures", DATA) == DIGEST
    assert blobs.get(f"pictures/{DIGEST}") == DATA


def test_a_missing_blob_is_an_error_with_its_key(blobs: Blobs) -> None:
    """What is not there is never an empty answer."""
    assert not blobs.exists(f"pictures/{DIGEST}")
    with pytest.raises(MissingPictureError, match=DIGEST):
        blobs.get(f"pictures/{DIGEST}")


def test_missing_names_what_is_not_there(blobs: Blobs) -> None:
    """Many keys are asked about at once."""
    blobs.put("pictures", DATA)
    absent = f"pictures/{'0' * 64}"
    assert blobs.missing("pictures", [f"pictures/{DIGEST}", absent]) == [absent]


def test_delete_removes_and_does_not_mind_absence(blobs: Blobs) -> None:
    """Deleting twice is deleting once."""
    blobs.put("pictures", DATA)
    blobs.delete(f"pictures/{DIGEST}")
    blobs.delete(f"pictures/{DIGEST}")
    assert not blobs.exists(f"pictures/{DIGEST}")


def test_bytes_that_do_not_fit_their_key_are_refused(blobs: Blobs) -> None:
    """A digest in the key is a promise about the bytes."""
    with pytest.raises(IntegrityError, match="changed on the way"):
        blobs.put_at(f"snapshots/{DIGEST}.json", DATA + b"!")


def test_a_damaged_blob_is_noticed_and_healed_by_the_same_bytes(tmp_path: Path) -> None:
    """One flipped byte on disk is an IntegrityError until the true bytes arrive again."""
    blobs = Blobs(f"file://{tmp_path}")
    blobs.put("pictures", DATA)
    (tmp_path / "pictures" / DIGEST).write_bytes(DATA[:-1] + b"?")
    with pytest.raises(IntegrityError, match="damaged"):
        blobs.get(f"pictures/{DIGEST}")
    blobs.put("pictures", DATA)
    assert blobs.get(f"pictures/{DIGEST}") == DATA


@pytest.mark.parametrize("key", ["../escape", "/etc/passwd", "a/../../b", "", "a//b", ".hidden"])
def test_keys_do_not_lead_out(blobs: Blobs, key: str) -> None:
    """A key is a plain relative path."""
    with pytest.raises(UsageError, match="key"):
        blobs.get(key)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk gives up before the rename, neither the blob nor a temporary file stays."""

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("inspection.store.blobs.os.fsync", full)
    blobs = Blobs(f"file://{tmp_path}")
    with pytest.raises(EnvironmentTroubleError, match="No space left"):
        blobs.put("pictures", DATA)
    assert list((tmp_path / "pictures").iterdir()) == []


def _put_often(url: str, data: bytes) -> None:
    for _ in range(20):
        Blobs(url).put_at("same/key", data)


def test_readers_see_one_of_the_writers_whole(tmp_path: Path) -> None:
    """Two processes write one key over and over: every read is one of the two contents, complete."""
    url = f"file://{tmp_path}"
    contents = [b"a" * 300_000, b"b" * 300_000]
    Blobs(url).put_at("same/key", contents[0])
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_put_often, args=(url, data)) for data in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert Blobs(url).get("same/key") in contents
    assert [writer.exitcode for writer in writers] == [0, 0]


def test_an_unknown_scheme_is_refused() -> None:
    """A place fsspec does not know is a wrong setting."""
    with pytest.raises(UsageError, match="s3://"):
        Blobs("nowhere://x")
