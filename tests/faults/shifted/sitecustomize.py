"""Python imports this by itself when its folder is in PYTHONPATH: the wall clock of that process, and of those it starts,
is off by the seconds that stand in the file ESCAPEMENT_TEST_CLOCK (one double), and jumps when that file is written.

Only `time.time`, `time.time_ns` and `datetime.datetime` are shifted: the monotonic clock goes on, as on a real computer.
"""

import datetime as _datetime
import mmap
import os
import struct
import time
from pathlib import Path

_time, _real = time.time, _datetime.datetime
_file = Path(os.environ["ESCAPEMENT_TEST_CLOCK"]).open("rb")  # noqa: SIM115  # held until the process ends
_memory = mmap.mmap(_file.fileno(), 8, access=mmap.ACCESS_READ)


def _shifted_time() -> float:
    return _time() + float(struct.unpack("d", _memory[:8])[0])


class _Kind(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _real)


class _Shifted(_real, metaclass=_Kind):
    @classmethod
    def now(cls, tz: "_datetime.tzinfo | None" = None) -> _real:
        return _real.fromtimestamp(_shifted_time(), tz)

    @classmethod
    def utcnow(cls) -> _real:
        return _real.fromtimestamp(_shifted_time(), _datetime.UTC).replace(tzinfo=None)


time.time = _shifted_time
time.time_ns = lambda: int(_shifted_time() * 1e9)
_datetime.datetime = _Shifted  # type: ignore[misc]  # that is what this file is for
