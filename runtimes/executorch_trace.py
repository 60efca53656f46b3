"""Turn an ExecuTorch event trace (ETDump) into seconds per layer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge_deploy.core.errors import ToolchainError
from edge_deploy.core.require import require
from runtimes.formats.pte import Operator, PteFile
from runtimes.trimmed import trimmed_mean

__all__ = ["layer_seconds"]

_FRAMES = ("Method::", "Program::", "DELEGATE_CALL", "OPERATOR_CALL")
_WITH_WEIGHTS = ("Convolution", "Deconvolution", "Fully Connected", "PReLU")
_KERNEL_PREFIX = "native_call_"


def layer_seconds(trace: Path, file: PteFile, *, skip: int = 1) -> dict[str, float]:
    """Typical seconds by layer (`trimmed_mean`).

    Events have no layer names. Delegated operators with weights come in the order of the file's, and so do the calls
    of each portable kernel; what else a delegate does, such as conversions, keeps the event's name.

    Args:
        skip: Executions at the beginning that do not count.

    Raises:
        ToolchainError: The trace cannot be read.
    """
    devtools = require("executorch.devtools", extra="run-executorch")
    try:
        blocks = devtools.Inspector(etdump_path=str(trace)).event_blocks
    except Exception as error:  # whatever its parsers raise
        raise ToolchainError(f"ExecuTorch trace: {type(error).__name__}: {error}") from error
    weighted = _names(file, "XNNPACK", with_weights=True)
    kernels = {op: _kernel_names(file, op) for op in {operator.op for operator in file.operators}}
    found: dict[str, float] = {}
    for block in blocks:
        if block.name != "Execute":
            continue
        for event in block.events:
            if event.name.startswith(_FRAMES) or event.perf_data is None:
                continue
            times = event.perf_data.raw[skip:]
            if not times:
                continue
            name = event.name
            if event.name.startswith(_WITH_WEIGHTS):
                name = next(weighted, name)
            elif event.name.startswith(_KERNEL_PREFIX):
                short = event.name.removeprefix(_KERNEL_PREFIX).partition(" #")[0]
                op = next((op for op in kernels if op.rpartition("::")[2] == short), "")
                name = next(kernels[op], name) if op else name
            found[name] = found.get(name, 0.0) + trimmed_mean(times) / 1e3
    return found


def _names(file: PteFile, runs_on: str, *, with_weights: bool) -> Iterator[str]:
    def wanted(operator: Operator) -> bool:
        return operator.runs_on == runs_on and bool(operator.weight_count) == with_weights

    return (operator.layer for operator in file.operators if wanted(operator))


def _kernel_names(file: PteFile, op: str) -> Iterator[str]:
    return (operator.layer for operator in file.operators if operator.op == op)
