"""Boards that QEMU emulates with a Cortex-M core: their machine, their compiler flags, their memory map."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from edge_deploy.core.errors import BadInput

__all__ = ["BOARDS", "Board", "find_board"]

MEGABYTE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """An emulated board.

    Attributes:
        machine: QEMU's name of it.
        isa: Architecture of the core, as device files name it.
        flags: What the compiler must know of the core.
        vectors_origin: Where the core looks for its vectors, if that is not the beginning of the flash.
        flash_bytes: All that the emulated board has; a real device has less, which the caller says.
    """

    name: str
    machine: str
    isa: str
    flags: tuple[str, ...]
    flash_origin: int = 0x0000_0000
    ram_origin: int = 0x2000_0000
    vectors_origin: int | None = None
    flash_bytes: int = 4 * MEGABYTE
    ram_bytes: int = 4 * MEGABYTE


HARD = ("-mthumb", "-mfloat-abi=hard")
BOARDS = {
    board.name: board
    for board in (
        Board(name="cortex-m3", machine="mps2-an385", isa="armv7-m", flags=("-mcpu=cortex-m3", "-mthumb")),
        Board(
            name="cortex-m4",
            machine="mps2-an386",
            isa="armv7e-m",
            flags=("-mcpu=cortex-m4", *HARD, "-mfpu=fpv4-sp-d16"),
        ),
        Board(
            name="cortex-m7",
            machine="mps2-an500",
            isa="armv7e-m",
            flags=("-mcpu=cortex-m7", *HARD, "-mfpu=fpv5-sp-d16"),
        ),
        Board(
            name="cortex-m33",
            machine="mps2-an505",
            isa="armv8-m.main",
            flags=("-mcpu=cortex-m33", *HARD, "-mfpu=fpv5-sp-d16"),
            flash_origin=0x1000_0000,
            ram_origin=0x3800_0000,
        ),
        Board(
            name="cortex-m55",
            machine="mps3-an547",
            isa="armv8.1-m.main",
            flags=("-mcpu=cortex-m55", *HARD),
            # The secure names of its two large SRAMs: the core starts secure, and a guard keeps it from the others.
            flash_origin=0x1100_0000,
            ram_origin=0x3100_0000,
            vectors_origin=0x1000_0000,
            flash_bytes=2 * MEGABYTE,
        ),
    )
}


def find_board(name: str) -> Board:
    """The board of this name, e.g. "cortex-m4".

    Raises:
        BadInput: There is none; close names are suggested.
    """
    if name in BOARDS:
        return BOARDS[name]
    close = difflib.get_close_matches(name, BOARDS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(BOARDS)}."
    raise BadInput(f"qemu:{name}: unknown board; {hint}")
