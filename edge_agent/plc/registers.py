"""The register map as data, and what goes through it: the words of the handshake, to and from registers.

`python -m edge_agent.plc.registers` prints the map as it stands in ``REGISTERS.md``. Invariants: whatever a controller
writes is decoded to something, never to an exception; a bit and a code keep their number for ever.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from inspection.contracts import ErrorCode

MAX_COUNT = 65_535  # of a register; counters begin again at 0 after it
MAX_TEXT = 254  # characters of a part id: the longest string most controllers have


class Command(IntFlag):
    """The bits of the command word."""

    TRIGGER = 1 << 0
    RESULTS_ACK = 1 << 1
    CLEAR_FAULTS = 1 << 2


NO_COMMAND = Command(0)


class Status(IntFlag):
    """The bits of the status word."""

    TRIGGER_READY = 1 << 0
    BUSY = 1 << 1
    RESULTS_READY = 1 << 2
    OK = 1 << 3
    NG = 1 << 4
    INCONCLUSIVE = 1 << 5
    ERROR = 1 << 6
    MISSED_ACQUISITION = 1 << 7
    RESULTS_OVERRUN = 1 << 8
    JUDGING = 1 << 9


class Code(IntEnum):
    """The numbers of the error code register: those of `ErrorCode`, and those only a controller hears."""

    NONE = 0
    NO_FRAME = 1
    UNFIT_FRAME = 2
    NO_BUNDLE = 3
    MODEL = 4
    MISFIT = 5
    LATE = 6
    NO_MEMORY = 7
    OTHER = 99
    LINK_LOST = 100
    NOT_JUDGING = 101
    STOPPED = 102

    @classmethod
    def of(cls, error_code: str | None) -> "Code":
        """The number of a verdict's error code; OTHER for one that has none here."""
        known = {code.value: cls[code.name] for code in ErrorCode if code.name in cls.__members__}
        return known.get(error_code or "", cls.OTHER)


@dataclass(frozen=True)
class Inputs:
    """What the controller says. ``part`` and ``lot`` are None where it named none."""

    command: Command = NO_COMMAND
    part: str | None = None
    lot: str | None = None


@dataclass(frozen=True)
class Data:
    """What goes with a status. The counts are between 0 and `MAX_COUNT`; ``inspection_ms`` is in milliseconds."""

    error_code: Code = Code.NONE
    result_number: int = 0
    inspection_ms: int = 0
    missed_count: int = 0
    part_id_echo: str = ""
    defect_class: str = ""


@dataclass(frozen=True)
class Outputs:
    """What the agent says."""

    status: Status
    data: Data
    heartbeat: int = 0


@dataclass(frozen=True)
class Register:
    """One register, or ``count`` of them that hold text, ``offset`` after the first of its block."""

    name: str
    offset: int
    meaning: str
    count: int = 1

    @property
    def is_text(self) -> bool:
        """Two characters a register, or else a number."""
        return self.count > 1


TEXT = "Text is ASCII, two characters a register, the first in the high byte, filled up with NUL."
COMMAND_BLOCK = (
    Register("command", 0, "the bits of the command word"),
    Register("part_id", 1, "the part's id as text, may be empty", 16),
    Register("lot", 17, "its lot as text, may be empty", 16),
)
RESULT_BLOCK = (
    Register("status", 0, "the bits of the status word"),
    Register("heartbeat", 1, "counts up about every 0.5 s, 0 after 65535"),
    Register("error_code", 2, "why there is no OK (last table); holds while `results_ready` or `error` is up"),
    Register("result_number", 3, "counts the results that were offered, 0 after 65535"),
    Register("inspection_ms", 4, "milliseconds from the trigger to the verdict, at most 65535"),
    Register("missed_count", 5, "counts the triggers that were missed, 0 after 65535"),
    Register("part_id_echo", 6, "the part the result is about, as text", 16),
    Register("defect_class", 22, "what was found, as text, cut to 32 characters", 16),
)
COMMAND_REGISTERS = COMMAND_BLOCK[-1].offset + COMMAND_BLOCK[-1].count
RESULT_REGISTERS = RESULT_BLOCK[-1].offset + RESULT_BLOCK[-1].count
DATA_BLOCK = RESULT_BLOCK[2:]
DATA_OFFSET = DATA_BLOCK[0].offset
STATUS_OFFSET, HEARTBEAT_OFFSET = RESULT_BLOCK[0].offset, RESULT_BLOCK[1].offset

COMMAND_MEANINGS = {
    Command.TRIGGER: "rises when a part is in place; part id and lot are written before it",
    Command.RESULTS_ACK: "rises when the result was read; falls when `results_ready` has fallen",
    Command.CLEAR_FAULTS: "rises to clear `missed_acquisition`, `results_overrun` and the error `link_lost`",
}
STATUS_MEANINGS = {
    Status.TRIGGER_READY: "the next trigger is taken; one that comes while this is down is missed",
    Status.BUSY: "a part is being inspected",
    Status.RESULTS_READY: "the result of the last trigger stands, until it is acknowledged",
    Status.OK: "the part is good; never up without `results_ready`, never together with `ng`",
    Status.NG: "up whenever `ok` is down",
    Status.INCONCLUSIVE: "the model cannot tell (`ng` is up too)",
    Status.ERROR: "there is no verdict, or nobody is there to give one (`ng` is up too); see `error_code`",
    Status.MISSED_ACQUISITION: "a trigger was not taken, and no result will come for it; stays until `clear_faults`",
    Status.RESULTS_OVERRUN: "a trigger came before the last result was acknowledged, which was withdrawn; stays likewise",
    Status.JUDGING: "the newest result was made in mode judge, about a part of the line",
}
CODE_MEANINGS = {
    Code.NONE: "no error",
    Code.NO_FRAME: "the camera gave no picture in time",
    Code.UNFIT_FRAME: "the picture cannot be judged (stale, frozen, black, out of focus, wrong size)",
    Code.NO_BUNDLE: "the station has no verified bundle",
    Code.MODEL: "the model failed",
    Code.MISFIT: "model, recipe and picture do not fit one another",
    Code.LATE: "the verdict came later than the takt",
    Code.NO_MEMORY: "the computer had too little memory for the picture",
    Code.OTHER: "another error; the station's page says which",
    Code.LINK_LOST: "the connection was lost while a part was inspected or its result not acknowledged: no result comes",
    Code.NOT_JUDGING: "no error: the station collects, or is in shadow, or is shown known parts, and answers nobody",
    Code.STOPPED: "the agent has not started to inspect, or has stopped",
}


def decode(registers: Sequence[int]) -> Inputs:
    """The `COMMAND_REGISTERS` registers of the command block. Bits without a name are ignored."""
    part, lot = (_text(registers[r.offset : r.offset + r.count]) for r in COMMAND_BLOCK[1:])
    return Inputs(command(registers[0]), part, lot)


def command(word: int) -> Command:
    """The bits of a command word that have a name."""
    return Command(word & sum(Command))


def _text(registers: Iterable[int]) -> str | None:
    data = b"".join((register & MAX_COUNT).to_bytes(2, "big") for register in registers)
    return readable(data.decode("latin-1"))


def readable(text: str) -> str | None:
    """Text of a controller up to its first NUL, with what is not printable ASCII shown as ``\\xNN``; None when nothing is
    left."""
    shown = "".join(c if " " <= c <= "~" else f"\\x{ord(c):02x}" for c in text.partition("\0")[0][:MAX_TEXT])
    return shown.strip() or None


def encode(data: Data) -> list[int]:
    """The registers of the data block, from `DATA_OFFSET` on."""
    registers: list[int] = []
    for register in DATA_BLOCK:
        value = getattr(data, register.name)
        registers += _registers(value, register.count) if register.is_text else [int(value)]
    return registers


def _registers(text: str, count: int) -> list[int]:
    data = cut(text, 2 * count).encode("ascii").ljust(2 * count, b"\0")
    return [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]


def cut(text: str, characters: int) -> str:
    """The first ``characters`` of it, with ``?`` for what is not printable ASCII."""
    return "".join(c if " " <= c <= "~" else "?" for c in text[:characters])


def markdown() -> str:
    """The whole map as Markdown."""
    blocks = [
        _table("Command block, written by the controller", ("register", "name", "meaning"), _places(COMMAND_BLOCK)),
        _table("Bits of `command`", ("bit", "name", "meaning"), _bits(COMMAND_MEANINGS)),
        _table("Result block, written by the agent", ("register", "name", "meaning"), _places(RESULT_BLOCK)),
        _table("Bits of `status`", ("bit", "name", "meaning"), _bits(STATUS_MEANINGS)),
        _table("Numbers of `error_code`", ("number", "name", "meaning"), _codes()),
    ]
    return f"# The register map\n\n{TEXT}\n\n" + "\n".join(blocks)


def _places(block: Sequence[Register]) -> list[tuple[str, str, str]]:
    return [(_place(register), register.name, register.meaning) for register in block]


def _place(register: Register) -> str:
    last = register.offset + register.count - 1
    return f"+{register.offset}" if register.count == 1 else f"+{register.offset} to +{last}"


def _bits(meanings: "dict[Command, str] | dict[Status, str]") -> list[tuple[str, str, str]]:
    return [(str(bit.bit_length() - 1), str(bit.name).lower(), meaning) for bit, meaning in meanings.items()]


def _codes() -> list[tuple[str, str, str]]:
    return [(str(code.value), code.name.lower(), meaning) for code, meaning in CODE_MEANINGS.items()]


def _table(title: str, head: tuple[str, str, str], rows: list[tuple[str, str, str]]) -> str:
    lines = [head, ("---",) * 3, *((place, f"`{name}`", meaning) for place, name, meaning in rows)]
    return f"## {title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(markdown())
