"""The camera's own process: reads a source and puts each frame into the ring. The parent kills it when it hangs.

    python -m edge_agent.camera.child      {"kind": ..., "where": ..., "ring": FD, "slot_bytes": N, "parent": PID, ...}

The order comes on standard input: it may hold a password, and arguments can be read by everybody. The child says one JSON
object per line on standard output (``opened``, ``damaged``, ``larger``, ``failed``), and one byte per frame on the pipe
``wake``. It ends when its parent does, when the source fails, or when it is killed.
"""

import ctypes
import json
import os
import signal
import sys
import time
from typing import Any

from edge_agent.camera.ring import Ring
from edge_agent.camera.source import Source, make_source
from edge_agent.errors import AgentError

_PR_SET_PDEATHSIG = 1


def _die_with(parent: int) -> None:
    """The kernel kills this process when its parent dies (`prctl(2)`); the parent may have died just before."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)


def _say(what: str, **facts: Any) -> None:
    print(json.dumps({"what": what, **facts}), flush=True)  # noqa: T201  # this is the channel to the parent


def _pump(source: Source, ring: Ring, wake: int) -> None:
    number = 0
    while True:
        image = source.read()
        stamp, wall = time.monotonic(), time.time()
        if image is None:
            _say("failed", reason="it stopped delivering; check cable and power")
            return
        if image.ndim != 3 or image.shape[2] != 3:
            _say("failed", reason=f"frame of shape {image.shape} is no colour picture; check the camera's pixel format")
            return
        if image.nbytes > ring.slot_bytes:
            _say("larger", bytes=image.nbytes, width=image.shape[1], height=image.shape[0])
            return
        number += 1
        ring.write(number, image, stamp, wall)
        try:
            os.write(wake, b".")
        except BlockingIOError:
            pass  # the parent is busy and will find the newest frame when it looks
        except BrokenPipeError:
            return


def main() -> None:
    """Run until the source or the parent ends."""
    order = json.load(sys.stdin)
    _die_with(order["parent"])
    os.set_blocking(order["wake"], False)
    ring = Ring(order["ring"], order["slot_bytes"])
    source = make_source(
        order["kind"],
        order["where"],
        order["name"],
        max_pixels=order["max_pixels"],
        damaged=lambda reason: _say("damaged", reason=reason),
    )
    try:
        _say("opened", settings=dict(source.open(order["settings"])))
        _pump(source, ring, order["wake"])
    except AgentError as error:
        _say("failed", reason=str(error))
    finally:
        source.close()
        ring.close()


if __name__ == "__main__":
    main()
