"""Read the embedding tables back out of a written `.pte`, with ExecuTorch's own reader."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.executorch.recommender_tables import StackedTables
from edge_deploy.core.errors import VerificationFailed
from edge_deploy.core.require import require

__all__ = ["FileTable", "file_tables", "read_back"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTable:
    """The constants of one look-up, as bytes.

    Attributes:
        shape: Of the stored rows.
        scale_data: Per-row scales; empty where the look-up takes none.
    """

    shape: tuple[int, ...]
    data: bytes
    scale_data: bytes

    def rows(self, dtype: Any) -> np.ndarray:
        """The stored rows, read-only; their type is known to the program, not to the bytes."""
        return np.frombuffer(self.data, dtype, count=math.prod(self.shape)).reshape(self.shape)

    def scales(self, dtype: Any) -> np.ndarray:
        """One scale a row, read-only."""
        return np.frombuffer(self.scale_data, dtype, count=self.shape[0])

    def fits(self, shape: tuple[int, ...], itemsize: int) -> bool:
        """Whether rows of this shape and width of element can be in it; constants are padded to 16 bytes or so."""
        return self.shape == shape and 0 <= len(self.data) - math.prod(shape) * itemsize < 64


def file_tables(path: Path) -> tuple[FileTable, ...]:
    """The tables of all look-ups of a `.pte` that stand in the file, in order of execution."""
    reader: Any = require("executorch.exir._serialize._program", extra="export-executorch")
    program = reader.deserialize_pte_binary(path.read_bytes()).program
    plan = next(plan for plan in program.execution_plan if plan.name == "forward")
    calls = [
        instruction.instr_args
        for chain in plan.chains
        for instruction in chain.instructions
        if hasattr(instruction.instr_args, "op_index")
    ]
    found = []
    for call in calls:
        if "embedding" not in plan.operators[call.op_index].name:
            continue
        sizes, data = _constant(program, plan, call.args[0])
        _, scale_data = _constant(program, plan, call.args[1])
        found.append(FileTable(shape=sizes, data=data, scale_data=scale_data))
    return tuple(found)


def _constant(program: Any, plan: Any, value: int) -> tuple[tuple[int, ...], bytes]:
    tensor = plan.values[value].val
    index = getattr(tensor, "data_buffer_idx", 0)
    return tuple(getattr(tensor, "sizes", ())), bytes(program.constant_buffer[index].storage) if index else b""


def read_back(path: Path, expected: Sequence[StackedTables]) -> tuple[StackedTables, ...]:
    """`expected` with rows and per-row scales from the file's bytes.

    Lowering changes the order of look-ups, so shape decides which is which, then content.

    Args:
        expected: What was to be written; gives shapes, and the scales where there is one a table.

    Raises:
        VerificationFailed: The file has another number of look-ups, or tables of another size.
    """
    waiting = list(file_tables(path))
    if len(waiting) != len(expected):
        raise VerificationFailed(f"{path}: has {len(waiting)} look-ups, {len(expected)} were written.")
    found = []
    for tables in expected:
        like = tables.stored
        fitting = [table for table in waiting if table.fits(like.shape, like.itemsize)]
        if not fitting:
            raise VerificationFailed(f"{path}: no look-up has a table of {like.shape}.")
        chosen = next((table for table in fitting if np.array_equal(table.rows(like.dtype), like)), fitting[0])
        waiting = [table for table in waiting if table is not chosen]
        scales = tables.scales
        if tables.granularity == "row":
            if len(chosen.scale_data) < scales.nbytes:
                raise VerificationFailed(f"{path}: the scales of a table of {len(like)} rows are not there.")
            scales = chosen.scales(scales.dtype)
        found.append(replace(tables, stored=chosen.rows(like.dtype), scales=scales))
    return tuple(found)
