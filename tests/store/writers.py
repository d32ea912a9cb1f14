"""What other processes write into a blob store; apart from the tests, so that a process imports nothing else."""

import itertools

from inspection.store.blobs import Blobs

SIZE = 1_000_000


def content(number: int) -> bytes:
    """The bytes that `put_for_ever` keeps at ``keys/<number>``."""
    return bytes([number % 256]) * SIZE


def put_often(url: str, data: bytes) -> None:
    """Replace one key again and again."""
    for _ in range(10):
        Blobs(url).put_at("same/key", data)


def put_for_ever(url: str) -> None:
    """Keep one key after the other until somebody ends the process."""
    blobs = Blobs(url)
    for number in itertools.count():
        blobs.put_at(f"keys/{number}", content(number))
