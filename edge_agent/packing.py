"""Verdict bodies as they lie in the journal: deflated against a sample body, so that what all verdicts say is stored once.

Invariant: unpacking gives the canonical bytes back exactly; digests, receipts and the chain are over those, never over
the packed ones. An empty sample means that the body lies there as it is.
"""

import zlib

from edge_agent.errors import DeviceError

_LEVEL = 6
_DAMAGED = "a journal row is damaged on this device's disk"
_WINDOW_BITS = 12  # 4 KiB hold the sample and the body: a larger window costs time and finds nothing more


def pack(body: bytes, sample: bytes) -> bytes:
    """A body as it is stored: about a fifth of its canonical bytes."""
    if not sample:
        return body
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW_BITS, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY, sample)
    return deflate.compress(body) + deflate.flush()


def unpack(packed: bytes, sample: bytes) -> bytes:
    """The canonical bytes. DeviceError when they rotted on the disk."""
    if not sample:
        return packed
    try:
        inflate = zlib.decompressobj(_WINDOW_BITS, zdict=sample)
        body = inflate.decompress(packed) + inflate.flush()
    except zlib.error as error:
        raise DeviceError(f"{_DAMAGED}: {error}") from error
    if not inflate.eof or inflate.unused_data:
        raise DeviceError(f"{_DAMAGED}: it is {'longer' if inflate.eof else 'shorter'} than it was")
    return body
