"""Read the embedding tables back out of a written `.pte`, with ExecuTorch's own reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.executorch.recommender_tables import StackedTables
from edge_deploy.core.errors import VerificationFailed
from edge_deploy.core.require import require

__all__ = ["read_back"]


def read_back(path: Path, expected: Sequence[StackedTables]) -> tuple[StackedTables, ...]:
    """`expected` with rows and per-row scales from the file's bytes.

    Args:
        expected: What was to be written; gives shapes, and the scales where there is one a table.

    Raises:
        VerificationFailed: The file has another number of look-ups, or tables of another size.
    """
    reader: Any = require("executorch.exir._serialize._program", extra="export-executorch")
    program = reader.deserialize_pte_binary(path.read_bytes()).program
    plan = next(plan for plan in program.execution_plan if plan.name == "forward")
    calls = [
        instruction.instr_args
        for chain in plan.chains
        for instruction in chain.instructions
        if hasattr(instruction.instr_args, "op_index")
    ]
    lookups = [call for call in calls if "embedding" in plan.operators[call.op_index].name]
    if len(lookups) != len(expected):
        raise VerificationFailed(f"{path}: has {len(lookups)} look-ups, {len(expected)} were written.")
    found = []
    for tables in expected:
        call, stored = _choose(program, plan, lookups, tables.stored, path)
        lookups.remove(call)
        scales: np.ndarray | None = tables.scales
        if tables.granularity == "row":
            scales = _constant(program, plan, call.args[1], tables.scales)
        if scales is None:
            raise VerificationFailed(f"{path}: the scales of a table of {len(tables.stored)} rows are not there.")
        found.append(replace(tables, stored=stored, scales=scales))
    return tuple(found)


def _choose(program: Any, plan: Any, lookups: list[Any], like: np.ndarray, path: Path) -> tuple[Any, np.ndarray]:
    """The look-up into this table: lowering changes their order, so shape decides, then content."""
    fitting = [(call, rows) for call in lookups if (rows := _constant(program, plan, call.args[0], like)) is not None]
    if not fitting:
        raise VerificationFailed(f"{path}: no look-up has a table of {like.shape}.")
    return next((choice for choice in fitting if np.array_equal(choice[1], like)), fitting[0])


def _constant(program: Any, plan: Any, value: int, like: np.ndarray) -> np.ndarray | None:
    tensor = plan.values[value].val
    data = program.constant_buffer[tensor.data_buffer_idx].storage if tensor.data_buffer_idx else b""
    if tuple(tensor.sizes) != like.shape or len(data) < like.nbytes:
        return None
    return np.frombuffer(data, like.dtype, count=like.size).reshape(like.shape)
