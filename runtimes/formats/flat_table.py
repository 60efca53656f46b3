"""Read any flatbuffer by field number, checking every offset: damaged bytes raise BadInput and nothing else.

The layout (tables behind vtables, vectors, unions) is described at https://flatbuffers.dev/internals/.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.errors import BadInput

__all__ = ["FlatTable", "MOST_ENTRIES", "root_table"]

MOST_ENTRIES = 1 << 20
"""No file we read has more entries in a vector of tables; damaged lengths run into billions."""

_FORMATS = {"u8": "<B", "i8": "<b", "i16": "<h", "u16": "<H", "i32": "<i", "u32": "<I", "i64": "<q", "u64": "<Q"}
_FORMATS |= {"f32": "<f", "f64": "<d", "bool": "<?"}
_NUMPY = {"u8": "<u1", "i8": "<i1", "i32": "<i4", "u32": "<u4", "i64": "<i8", "u64": "<u8", "f32": "<f4"}


@dataclass(frozen=True, slots=True)
class FlatTable:
    """One table: a position in the bytes of a flatbuffer.

    Attributes:
        where: Named in messages.
    """

    data: bytes | memoryview
    position: int
    where: str

    def number(self, slot: int, kind: str, default: int = 0) -> int:
        """A scalar field; `default` when the table leaves it out."""
        at = self._field(slot)
        return default if at is None else int(_unpack(self, kind, at))

    def real(self, slot: int, kind: str = "f32") -> float:
        """A floating-point field; 0 when the table leaves it out."""
        at = self._field(slot)
        return 0.0 if at is None else float(_unpack(self, kind, at))

    def text(self, slot: int) -> str:
        """A string field; empty when the table leaves it out."""
        return bytes(self.vector(slot, "u8").tobytes()).decode("utf-8", errors="replace")

    def vector(self, slot: int, kind: str) -> np.ndarray:
        """A vector of scalars; empty when the table leaves it out."""
        dtype = np.dtype(_NUMPY[kind])
        at = self._field(slot)
        if at is None:
            return np.empty(0, dtype)
        start, count = self._vector_at(at)
        if count * dtype.itemsize > len(self.data) - start:
            raise self._damaged(f"a vector of {count} entries does not fit")
        return np.frombuffer(self.data, dtype, count, start)

    def vector_start(self, slot: int) -> int:
        """Where the first entry of a vector stands in the bytes; for changing it in place.

        Raises:
            BadInput: The table leaves the vector out.
        """
        at = self._field(slot)
        if at is None:
            raise self._damaged(f"no vector in field {slot}")
        return self._vector_at(at)[0]

    def table(self, slot: int) -> FlatTable | None:
        """A table field, or the value of a union; None when left out."""
        at = self._field(slot)
        return None if at is None else self._follow(at)

    def tables(self, slot: int) -> Iterator[FlatTable]:
        """The entries of a vector of tables."""
        at = self._field(slot)
        if at is None:
            return
        start, count = self._vector_at(at)
        if count > MOST_ENTRIES or count * 4 > len(self.data) - start:
            raise self._damaged(f"a vector of {count} tables does not fit")
        for index in range(count):
            yield self._follow(start + 4 * index)

    def _follow(self, at: int) -> FlatTable:
        target = at + int(_unpack(self, "u32", at))
        if not 0 <= target <= len(self.data) - 4:
            raise self._damaged(f"an offset leads to byte {target}")
        return FlatTable(self.data, target, self.where)

    def _vector_at(self, at: int) -> tuple[int, int]:
        target = self._follow(at).position
        return target + 4, int(_unpack(self, "u32", target))

    def _field(self, slot: int) -> int | None:
        vtable = self.position - int(_unpack(self, "i32", self.position))
        size = int(_unpack(self, "u16", vtable))
        entry = 4 + 2 * slot
        if entry + 2 > size:
            return None
        offset = int(_unpack(self, "u16", vtable + entry))
        return self.position + offset if offset else None

    def _damaged(self, what: str) -> BadInput:
        return BadInput(f"{self.where}: {what} in its {len(self.data)} bytes; the file is damaged, get it again.")


def _unpack(table: FlatTable, kind: str, at: int) -> int | float:
    size = struct.calcsize(_FORMATS[kind])
    if not 0 <= at <= len(table.data) - size:
        raise table._damaged(f"an offset leads to byte {at}")
    value: int | float = struct.unpack_from(_FORMATS[kind], table.data, at)[0]
    return value


def root_table(data: bytes | memoryview, *, where: str) -> FlatTable:
    """The root table of a flatbuffer.

    Raises:
        BadInput: The bytes are too few, or the first offset leads out of them.
    """
    return FlatTable(data, 0, where)._follow(0)
