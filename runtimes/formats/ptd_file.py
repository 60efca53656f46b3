"""Find the named weights in a `.ptd` file, stock or with 4-bit regions packed.

A stock file is mapped: of tables of many gigabytes only the head is read.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from edge_deploy.core.errors import BadInput
from runtimes.formats.flat_table import root_table
from runtimes.formats.nibble_ptd import MAGIC, inflate, is_packed, read_regions

__all__ = ["NamedWeight", "map_named_weights", "named_weights"]

_HEADER_AT = 8
_HEADER = struct.Struct("<4sIQQQQ")
MOST_HEAD_BYTES = 64 << 20


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


def map_named_weights(path: Path) -> dict[str, NamedWeight]:
    """The entries of a `.ptd` file on disk, without reading its weights.

    Raises:
        BadInput: It cannot be read, or is no whole `.ptd` file.
    """
    try:
        if not path.stat().st_size or is_packed(path):
            return named_weights(path.read_bytes(), where=str(path))
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            # A copy of the head alone: views into the mapping would keep it open.
            head = mapped[: _head_bytes(mapped)]
            return named_weights(head, where=str(path), size=len(mapped))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}).") from error


def _head_bytes(data: mmap.mmap) -> int:
    """How many bytes stand before the weights; all, where the header does not tell."""
    if len(data) < _HEADER_AT + _HEADER.size:
        return len(data)
    base = _HEADER.unpack_from(data, _HEADER_AT)[4]
    return base if _HEADER_AT + _HEADER.size <= base <= MOST_HEAD_BYTES else min(len(data), MOST_HEAD_BYTES)


def named_weights(data: bytes, *, where: str, size: int | None = None) -> dict[str, NamedWeight]:
    """The entries of a `.ptd` file by key.

    Args:
        size: Of the whole file, where `data` is its head alone.

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
    whole = len(data) if size is None else size
    magic, _, _, flat_bytes, base, _ = _HEADER.unpack_from(data, _HEADER_AT)
    if magic != b"FH01" or base > len(data) or flat_bytes > len(data):
        raise BadInput(f"{where}: has a damaged .ptd header; get it again.")
    root = root_table(memoryview(data)[:base] if base else data, where=where)
    segments = [(base + entry.number(0, "u64"), entry.number(1, "u64")) for entry in root.tables(1)]
    found = {}
    for entry in root.tables(2):
        index = entry.number(1, "u32")
        if index >= len(segments) or sum(segments[index]) > whole:
            raise BadInput(f"{where}: entry {entry.text(0)!r} lies outside the file; get it again.")
        start, length = segments[index]
        found[entry.text(0)] = NamedWeight(start=start, size=length, stored=stored.get((start, length), length))
    return found
