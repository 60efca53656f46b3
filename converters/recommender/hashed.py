"""A table over a shared array (ROBE) while a program is being read: it has the shape of a table, not its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_deploy.core.robe import RobeTable

__all__ = ["HashedRows", "array_name"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HashedRows:
    """What a look-up reads instead of a tensor [rows, dim].

    Attributes:
        array: The shared tensor [size, 1].
    """

    array: Any
    table: RobeTable

    @property
    def shape(self) -> tuple[int, int]:
        """Of the table that it stands for."""
        return self.table.rows, self.table.hash.dim

    def numbers(self) -> np.ndarray:
        """The shared array in NumPy, in its own memory."""
        found: np.ndarray = self.array.detach().float().numpy()
        return found


def array_name(rows: HashedRows, arrays: dict[str, np.ndarray]) -> str:
    """The name under which the shared array stands in `arrays`, where it is put if it is not there yet.

    Exports may keep the parameter once for every table; equal numbers are one array.
    """
    numbers = rows.numbers()
    named = {name: array for name, array in arrays.items() if name.endswith(".shared")}
    for name, array in named.items():
        if array.shape == numbers.shape and (
            array.ctypes.data == numbers.ctypes.data or np.array_equal(array, numbers)
        ):
            return name
    name = f"array.{len(named)}.shared"
    arrays[name] = numbers
    return name
