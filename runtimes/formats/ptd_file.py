"""Find the named weights in a `.ptd` file, stock or with 4-bit regions packed."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from edge_deploy.core.errors import BadInput
from runtimes.formats.flat_table import root_table
from runtimes.formats.nibble_ptd import MAGIC, inflate, read_regions

__all__ = ["NamedWeight", "named_weights"]

_HEADER_AT = 8
_HEADER = struct.Struct("<4sIQQQQ")


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedWeight:
    """One entry.

    Attributes:
        start: Where its bytes begin in the (inflated) file.
        size: Its bytes there.
        stored: Its bytes in the file on disk; half of `size` where it is packed.
    """

    start: int
    size: int
    stored: int


def named_weights(data: bytes, *, where: str) -> dict[str, NamedWeight]:
    """The entries of a `.ptd` file by key.

    Raises:
        BadInput: The bytes are not a whole `.ptd` file.
    """
    stored: dict[tuple[int, int], int] = {}
    if data[: len(MAGIC)] == MAGIC:
        _, regions = read_regions(data, where=where)
        stored = {(region.start, region.size): region.stored for region in regions}
        data = inflate(data, where=where)
    if len(data) < _HEADER_AT + _HEADER.size or data[4:6] != b"FT":
        raise BadInput(f"{where}: is not a .ptd file; give the one that came with the program.")
    magic, _, _, flat_bytes, base, _ = _HEADER.unpack_from(data, _HEADER_AT)
    if magic != b"FH01" or base > len(data) or flat_bytes > len(data):
        raise BadInput(f"{where}: has a damaged .ptd header; get it again.")
    root = root_table(memoryview(data)[:base] if base else data, where=where)
    segments = [(base + entry.number(0, "u64"), entry.number(1, "u64")) for entry in root.tables(1)]
    found = {}
    for entry in root.tables(2):
        index = entry.number(1, "u32")
        if index >= len(segments) or sum(segments[index]) > len(data):
            raise BadInput(f"{where}: entry {entry.text(0)!r} lies outside the file; get it again.")
        start, size = segments[index]
        found[entry.text(0)] = NamedWeight(start=start, size=size, stored=stored.get((start, size), size))
    return found
