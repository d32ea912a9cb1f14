"""Blobs: whole or absent, and never other bytes than the key promises."""

import hashlib
import multiprocessing
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from inspection.errors import EnvironmentTroubleError, IntegrityError, MissingPictureError, ServerError, UsageError
from inspection.store.blobs import Blobs
from tests.conftest import faults_are_long
from tests.store.object_store import ObjectStore
from tests.store.writers import content, put_for_ever, put_often

DATA = b"a picture, say"
DIGEST = hashlib.sha256(DATA).hexdigest()
S3 = pytest.param("s3", marks=pytest.mark.service)
ASK: dict[str, Callable[[Blobs], object]] = {
    "put": lambda blobs: blobs.put("pictures", DATA),
    "put_at": lambda blobs: blobs.put_at("a/key", DATA),
    "get": lambda blobs: blobs.get(f"pictures/{DIGEST}"),
    "exists": lambda blobs: blobs.exists(f"pictures/{DIGEST}"),
    "missing": lambda blobs: blobs.missing("pictures", [f"pictures/{DIGEST}"]),
    "delete": lambda blobs: blobs.delete(f"pictures/{DIGEST}"),
}


@pytest.fixture(params=["file", "memory", S3])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder, an object store as fsspec shows one, and a real S3."""
    if request.param == "s3":
        server: ObjectStore = request.getfixturevalue("s3")
        return f"{server.new_bucket()}/pre/fix"
    return f"file://{tmp_path}/blobs" if request.param == "file" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def blobs(url: str) -> Blobs:
    """Blobs there."""
    return Blobs(url)


def write_behind_its_back(url: str, key: str, data: bytes) -> None:
    """What another program would do."""
    with fsspec.open(f"{url}/{key}", "wb", skip_instance_cache=True, auto_mkdir=True) as out:
        out.write(data)


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


def test_what_others_write_is_seen_at_once(blobs: Blobs, url: str) -> None:
    """No listing is remembered: several programs share one store."""
    keys = ["pictures/first", "pictures/second"]
    write_behind_its_back(url, keys[0], DATA)
    assert blobs.missing("pictures", keys) == [keys[1]]
    write_behind_its_back(url, keys[1], DATA)
    assert (blobs.exists(keys[1]), blobs.get(keys[1]), blobs.missing("pictures", keys)) == (True, DATA, [])


def test_a_damaged_blob_is_noticed_and_healed_by_the_same_bytes(blobs: Blobs, url: str) -> None:
    """One flipped byte is an IntegrityError until the true bytes arrive again."""
    blobs.put("pictures", DATA)
    write_behind_its_back(url, f"pictures/{DIGEST}", DATA[:-1] + b"?")
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


@pytest.mark.fault
@pytest.mark.parametrize("after", [0.01 * n for n in range(40 if faults_are_long() else 3)])
def test_a_killed_writer_leaves_whole_blobs_only(tmp_path: Path, after: float) -> None:
    """SIGKILL at any moment: each key that is there has all of its bytes."""
    blobs = Blobs(f"file://{tmp_path}")
    writer = multiprocessing.get_context("spawn").Process(target=put_for_ever, args=(blobs.url,))
    writer.start()
    while not blobs.exists("keys/0"):
        assert writer.is_alive()
        time.sleep(0.001)
    time.sleep(after)
    writer.kill()
    writer.join()
    written = sorted(int(path.name) for path in (tmp_path / "keys").glob("[0-9]*"))
    assert written == list(range(len(written)))
    assert all(blobs.get(f"keys/{number}") == content(number) for number in written)


@pytest.mark.parametrize("url", ["file", S3], indirect=True)
def test_readers_see_one_of_the_writers_whole(url: str) -> None:
    """Two processes write one key over and over: every read is one of the two contents, complete."""
    contents = [b"a" * 300_000, b"b" * 300_000]
    Blobs(url).put_at("same/key", contents[0])
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=put_often, args=(url, data)) for data in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert Blobs(url).get("same/key") in contents
    assert [writer.exitcode for writer in writers] == [0, 0]


@pytest.mark.service
@pytest.mark.parametrize("ask", ASK)
def test_a_silent_object_store_is_a_server_error(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch, ask: str) -> None:
    """It is never taken for one that holds nothing, and a removal that did not happen is said."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ServerError, match=r"127\.0\.0\.1:1"):
        ASK[ask](Blobs("s3://bucket/prefix"))


@pytest.mark.service
@pytest.mark.parametrize("ask", ASK)
def test_missing_credentials_are_said(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch, ask: str) -> None:
    """Whoever set the store up reads what is lacking."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ServerError, match="credentials"):
        ASK[ask](Blobs(s3.new_bucket()))


@pytest.mark.service
@pytest.mark.parametrize("ask", ["put", "put_at", "get", "missing"])
def test_a_bucket_that_does_not_exist_is_not_a_missing_picture(s3: ObjectStore, ask: str) -> None:
    """The setting is wrong, not the records."""
    with pytest.raises(ServerError, match="no such bucket"):
        ASK[ask](Blobs("s3://nobody-made-this-one/prefix"))


def test_an_unknown_scheme_is_refused() -> None:
    """A place fsspec does not know is a wrong setting."""
    with pytest.raises(UsageError, match="s3://"):
        Blobs("nowhere://x")
