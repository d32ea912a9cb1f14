"""Disks that fill up or turn read-only while a program works on them: real file systems, mounted for one test.

Mounting needs root and its capability; where that is missing the test is skipped and says so.
"""

import errno
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_FILL_SECONDS = 0.02
_MIB = 1024 * 1024


def _mount(*arguments: str | Path) -> None:
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


def _unmount(at: Path) -> None:
    subprocess.run(["umount", at], check=True, capture_output=True)


@contextmanager
def small_disk(at: Path, mib: int) -> Iterator[None]:
    """A file system of so many MiB."""
    at.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={mib}m", "escapement-test", at)
    try:
        yield
    finally:
        _unmount(at)


class Hog:
    """Takes every free byte of a disk, again and again, until it is stopped; then all of it is free again."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "somebody-elses.log"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hog")
        self.full = 0

    def __enter__(self) -> "Hog":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._path.unlink()

    def _run(self) -> None:
        with self._path.open("ab", buffering=0) as out:
            while not self._stop.wait(_FILL_SECONDS):
                self._fill(out.fileno())

    def _fill(self, descriptor: int) -> None:
        chunk = bytes(_MIB)
        while chunk:
            try:
                os.write(descriptor, chunk)
            except OSError:  # no room for so much: half of it, until not even one page is left
                chunk = chunk[: len(chunk) // 2 if len(chunk) > 4096 else 0]
        self.full += 1


class FailingDisk:
    """A file system on a file of its own, which the kernel turns read-only when told of an error, as on a worn-out disk."""

    def __init__(self, root: Path, mib: int = 160) -> None:
        self._image = root / "disk.img"
        self.at = root / "disk"
        self.at.mkdir()
        with self._image.open("wb") as image:
            image.truncate(mib * _MIB)
        subprocess.run(["mkfs.ext4", "-q", "-F", self._image], check=True, capture_output=True)

    def mount(self) -> None:
        """Whole and writable."""
        _mount("-o", "loop,errors=remount-ro", self._image, self.at)

    def fail(self) -> None:
        """From now on it is read-only, whoever has files open on it.

        A kernel that gives a file system up may say of the one write it is just syncing that it is on the disk, though it
        is not (a plain loop of `pwrite` and `fdatasync` on Linux 6.18: after one failure in ten). What a program did
        because of that write, it does again.
        """
        major, minor = os.major(self.at.stat().st_dev), os.minor(self.at.stat().st_dev)
        name = Path(f"/sys/dev/block/{major}:{minor}").resolve().name
        Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("a test says that this disk fails")

    @property
    def read_only(self) -> bool:
        """Whether it takes no change. The mount's flags do not say so on every kernel."""
        try:
            (self.at / "probe").touch()
        except OSError as error:
            return error.errno == errno.EROFS
        return False

    def repair(self) -> None:
        """As a technician does: unmount, check, mount."""
        _unmount(self.at)
        done = subprocess.run(["e2fsck", "-f", "-y", self._image], capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), done.stdout  # 1: errors were corrected
        self.mount()

    def unmount(self) -> None:
        """Take it away."""
        _unmount(self.at)


@contextmanager
def failing_disk(root: Path) -> Iterator[FailingDisk]:
    """Mounted, and taken away at the end."""
    disk = FailingDisk(root)
    disk.mount()
    try:
        yield disk
    finally:
        disk.unmount()
