"""How much memory TensorFlow Lite Micro takes for a model: counted by itself, in a child process."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edge_deploy.core.child import run_in_child
from edge_deploy.core.errors import ToolchainError
from edge_deploy.core.serde import from_json
from runtimes.forked import run_forked

__all__ = ["KERNELS", "MicroArena", "measure_arena"]

KERNELS = "x86-64 reference kernels"
TIMEOUT_S = 300.0
ALIGNMENT = 16
STEPS = 128  # of the arena: how finely it is searched where an operator does not say how much is missing
MOST_PREPARATION = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroArena:
    """The smallest arena with which the model runs.

    Attributes:
        total_bytes: Head and tail, and what making them takes for a moment where that is more.
        head_bytes: Of values and scratch memory, the same on every processor with these kernels.
        tail_bytes: Of the interpreter's own structures; they hold pointers, so that a 32-bit core needs less.
        parts: Bytes by what the allocator says they are for.
        kernels: What was measured; kernels tuned for a core may want scratch memory of their own.
    """

    total_bytes: int
    head_bytes: int
    tail_bytes: int
    parts: dict[str, int]
    kernels: str = KERNELS
    runtime: str = ""


def measure_arena(path: Path) -> MicroArena:
    """Load the model and run it once, in a child process.

    Raises:
        BadInput: TensorFlow Lite Micro refuses the model.
        ToolchainError: The child died; some operators end their process.
        MissingExtra: The wheel is not installed.
    """
    found = run_in_child(
        "runtimes.micro.arena:measure_here",
        {"path": path},
        stage=f"{path.name}: TensorFlow Lite Micro",
        timeout_s=TIMEOUT_S,
    )
    return from_json(MicroArena, found, where=str(path))


def measure_here(path: str) -> MicroArena:
    """The child's part of `measure_arena`."""
    from runtimes.micro.interpreter import inlined_bytes, open_interpreter, run_once, said, version

    model = inlined_bytes(Path(path))
    interpreter = open_interpreter(model, where=path)
    run_once(interpreter, where=path)
    with said() as words:
        interpreter.print_allocations()
    text = "\n".join(words)
    sizes = {name: int(size) for name, size in re.findall(r"Arena allocation (\w+) (\d+) bytes", text)}
    if not {"total", "head", "tail"} <= sizes.keys():
        raise ToolchainError(f"{path}: TensorFlow Lite Micro {version()} does not say its allocations: {text[-500:]}")
    parts = {name: int(size) for name, size in re.findall(r"'([^']+)' used (\d+) bytes", text)}
    return MicroArena(
        total_bytes=_least(model, sizes["total"], path),
        head_bytes=sizes["head"],
        tail_bytes=sizes["tail"],
        parts=parts,
        runtime=f"tflite-micro {version()}",
    )


def _least(model: bytes, size: int, where: str) -> int:
    """`size`, or what the interpreter needs on top of it while it prepares its operators.

    The model runs in a large arena. So whatever becomes of it in this one is for want of memory, which not every
    operator says: some look at a tensor that found no place, and refuse its type or end the process. Hence a fork each.
    """
    from runtimes.micro.interpreter import open_interpreter, run_once

    def attempt() -> str:
        run_once(open_interpreter(model, where=where, arena_bytes=size), where=where)
        return ""

    most = 2 * size + MOST_PREPARATION
    while True:
        try:
            run_forked(attempt, stage=f"{where}: an arena of {size} bytes", timeout_s=TIMEOUT_S)
        except ToolchainError as error:
            missing = [int(count) for count in re.findall(r"missing: (\d+)", str(error))]
            step = max(missing) if missing else size // STEPS
            size += max(1, -(-step // ALIGNMENT)) * ALIGNMENT
            if size > most:
                raise
        else:
            return size
