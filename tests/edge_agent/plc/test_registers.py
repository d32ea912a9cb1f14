"""The register map: what the document says is what the code does, and nothing a controller writes breaks it."""

import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.plc import registers
from edge_agent.plc.registers import (
    COMMAND_BLOCK,
    COMMAND_REGISTERS,
    DATA_OFFSET,
    RESULT_BLOCK,
    Code,
    Command,
    Data,
    Inputs,
    Status,
    decode,
    encode,
    markdown,
    readable,
)
from inspection.contracts import ErrorCode

DOCUMENT = Path(registers.__file__).with_name("REGISTERS.md")


def block(word: int, part: bytes = b"", lot: bytes = b"") -> list[int]:
    """A command block as a controller writes it."""
    texts = part.ljust(32, b"\0") + lot.ljust(32, b"\0")
    return [word] + [texts[i] << 8 | texts[i + 1] for i in range(0, 64, 2)]


def test_the_document_is_what_the_code_says() -> None:
    """`python -m edge_agent.plc.registers` prints how REGISTERS.md begins."""
    printed = subprocess.run([sys.executable, "-m", registers.__name__], capture_output=True, text=True, check=True).stdout
    assert printed == markdown()
    assert DOCUMENT.read_text(encoding="utf-8").startswith(printed)


def test_the_document_knows_every_bit_and_number() -> None:
    """A bit, a code or a register that is added without words for it is no part of the map yet."""
    assert set(registers.COMMAND_MEANINGS) == set(Command)
    assert set(registers.STATUS_MEANINGS) == set(Status)
    assert set(registers.CODE_MEANINGS) == set(Code)


def test_registers_lie_side_by_side() -> None:
    """No gap, no overlap, and both blocks fit one request (123 registers of function 16)."""
    for of_block in (COMMAND_BLOCK, RESULT_BLOCK):
        ends = [r.offset + r.count for r in of_block]
        assert [r.offset for r in of_block] == [0, *ends[:-1]]
        assert ends[-1] <= 123
    assert len(encode(Data())) == RESULT_BLOCK[-1].offset + RESULT_BLOCK[-1].count - DATA_OFFSET


def test_every_error_code_has_its_own_number() -> None:
    """A new one in the contract must get one here; one of a later version is OTHER."""
    numbers = {Code.of(code.value) for code in ErrorCode}
    assert len(numbers) == len(ErrorCode)
    assert not numbers & {Code.NONE, Code.OTHER, Code.LINK_LOST, Code.NOT_JUDGING, Code.STOPPED}
    assert {Code.of("from a later version"), Code.of(None)} == {Code.OTHER}


def test_text_is_two_characters_a_register_high_byte_first() -> None:
    """As the document says, in both directions; padding is no part of an id."""
    assert decode(block(1, b"AB-7", b"L1  ")) == Inputs(Command.TRIGGER, "AB-7", "L1")
    data = encode(Data(part_id_echo="AB-7", defect_class="dent"))
    assert data[4:7] == [0x4142, 0x2D37, 0]
    assert data[20:23] == [0x6465, 0x6E74, 0]


def test_an_id_ends_at_its_first_nul() -> None:
    """What an earlier, longer id left behind it is not read."""
    assert decode(block(0, b"A1\0old rest", b"\0X")) == Inputs(Command(0), "A1", None)


def test_what_cannot_be_printed_is_shown() -> None:
    """Two ids that differ in it stay different."""
    assert decode(block(0, b"\xff\x01A")).part == "\\xff\\x01A"
    assert readable("Größe") == "Gr\\xf6\\xdfe"


def test_what_does_not_fit_is_cut() -> None:
    """A long defect class or part id keeps its beginning; what is no ASCII is a question mark."""
    data = encode(Data(part_id_echo="p" * 99, defect_class="Lötfehler"))
    assert data[4:20] == [0x7070] * 16
    assert data[20:22] == [0x4C3F, 0x7466]


@given(st.lists(st.integers(0, 65535), min_size=COMMAND_REGISTERS, max_size=COMMAND_REGISTERS))
def test_any_registers_are_some_inputs(found: list[int]) -> None:
    """Never an exception, only printable ASCII, and only bits that have a name."""
    inputs = decode(found)
    assert int(inputs.command) == found[0] & 0b111
    for text in (inputs.part, inputs.lot):
        assert text is None or (text.isascii() and text.isprintable() and text.strip() == text)


@given(st.text(), st.text(), st.integers(0, 65535))
def test_any_data_fit_their_registers(part: str, found: str, number: int) -> None:
    """Whatever a camera or a model calls things, 36 numbers that fit a register come out."""
    data = encode(Data(Code.OTHER, number, number, number, part, found))
    assert len(data) == 36
    assert all(0 <= value <= 65535 for value in data)
    assert data[:4] == [99, number, number, number]
