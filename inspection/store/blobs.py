"""Blobs: bytes under keys, over fsspec; a local folder by default, S3 by URL.

Invariants: a blob is visible whole or not at all; a key that carries a SHA-256 (``pictures/<sha256>``,
``snapshots/<sha256>.json``) never yields other bytes; a store that does not answer is never taken for an empty one.
"""

import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from inspection.contracts import sha256_hex
from inspection.errors import EnvironmentTroubleError, IntegrityError, MissingPictureError, ServerError, UsageError

_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_S3 = ("s3://", "s3a://")
_CARRIES_DIGEST = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.[a-z0-9]+)?")


class Blobs:
    """A blob store at ``url``: ``file:///folder`` or ``s3://bucket/prefix``.

    Address and credentials of S3 come from its own settings (``AWS_...``; see this package's README).
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url, **_options(url))
        except (ValueError, ImportError) as error:
            hint = "use file:///FOLDER, or s3://BUCKET/PREFIX with the extra `s3` installed"
            raise UsageError(f"{url!r} is not a place for blobs: {error}; {hint}") from error
        self._failures = _failures(url)

    def put(self, prefix: str, data: bytes) -> str:
        """Keep ``data`` at ``prefix/<sha256>`` and return the digest; doing it again changes nothing."""
        digest = sha256_hex(data)
        self.put_at(f"{prefix}/{digest}", data)
        return digest

    def put_at(self, key: str, data: bytes) -> None:
        """Keep ``data`` at ``key``, atomically.

        A key that carries a digest must carry that of ``data`` (IntegrityError). A damaged blob of the same key is
        replaced by the good bytes.
        """
        path = self._path(key)
        carried = _CARRIES_DIGEST.fullmatch(key)
        if carried and carried.group(1) != sha256_hex(data):
            raise IntegrityError(f"the bytes for {key} have the digest {sha256_hex(data)}: they were changed on the way")
        with self._own_errors(key):
            if not (carried and self._holds(path, data)):
                self._write(path, data)

    def get(self, key: str) -> bytes:
        """The bytes at ``key``. Raises MissingPictureError, or IntegrityError when they do not have the key's digest."""
        with self._own_errors(key):
            data = bytes(self._fs.cat_file(self._path(key)))
        carried = _CARRIES_DIGEST.fullmatch(key)
        if carried and carried.group(1) != sha256_hex(data):
            raise IntegrityError(f"the blob {key} in {self.url} is damaged: its bytes have the digest {sha256_hex(data)}")
        return data

    def exists(self, key: str) -> bool:
        """Whether there is a blob at ``key`` (its bytes are not read)."""
        with self._own_errors(key):
            try:
                return bool(self._fs.info(self._path(key))["type"] == "file")  # `isfile` takes every failure for a no
            except FileNotFoundError:
                return False

    def missing(self, folder: str, keys: Sequence[str]) -> list[str]:
        """Those of ``keys`` (all in ``folder``) where there is no blob. A remote store is asked once, by a listing."""
        if isinstance(self._fs, LocalFileSystem):
            return [key for key in keys if not self.exists(key)]
        with self._own_errors(folder):
            held = {name.rpartition("/")[2] for name in self._fs.find(self._path(folder))}
        return [key for key in keys if key.rpartition("/")[2] not in held]

    def delete(self, key: str) -> None:
        """Remove the blob at ``key``; none there is no error."""
        with self._own_errors(key), suppress(FileNotFoundError):
            self._fs.rm_file(self._path(key))

    def _path(self, key: str) -> str:
        if not _KEY.fullmatch(key):
            raise UsageError(f"{key!r} cannot be the key of a blob: letters, digits, '.', '_', '-' and '/' only")
        return f"{self._root.rstrip('/')}/{key}"

    def _holds(self, path: str, data: bytes) -> bool:
        try:
            return bytes(self._fs.cat_file(path)) == data
        except FileNotFoundError:
            return False

    def _write(self, path: str, data: bytes) -> None:
        if isinstance(self._fs, LocalFileSystem):
            _write_file(Path(path), data)
        else:
            self._fs.pipe_file(path, data)  # an object store shows an object when its upload is complete

    @contextmanager
    def _own_errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if "specified bucket" in str(error):
                hint = "create it, or correct ESCAPEMENT_BLOB_URL"
                raise ServerError(f"blob {key} in {self.url}: the object store has no such bucket; {hint}") from error
            raise MissingPictureError(f"there is no blob {key} in {self.url}: it was removed, or never arrived") from error
        except self._failures as error:
            if isinstance(self._fs, LocalFileSystem):
                said = getattr(error, "strerror", None) or error
                raise EnvironmentTroubleError(f"blob {key} in {self.url}: {said}; look at that disk") from error
            hint = "look at the object store, its address and the credentials"
            raise ServerError(f"blob {key} in {self.url}: {error}; {hint}") from error


def _options(url: str) -> dict[str, Any]:
    """How the file system of ``url`` is used: listings are not remembered, other programs write there too."""
    options: dict[str, Any] = {"use_listings_cache": False}
    if url.startswith(_S3):
        options["max_concurrency"] = 1  # parts read one by one of a blob that is replaced meanwhile would not fit together
    return options


def _failures(url: str) -> tuple[type[Exception], ...]:
    """What the file system of ``url`` raises when it fails; s3fs hands some errors of its client on untranslated."""
    if not url.startswith(_S3):
        return (OSError,)
    from botocore.exceptions import BotoCoreError

    return OSError, BotoCoreError


def _write_file(path: Path, data: bytes) -> None:
    """Temporary file, fsync, rename, fsync of the folder: after a power cut the old state or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
