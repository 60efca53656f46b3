"""Run firmware in qemu-system-arm: samples in, outputs and instructions out. Emulated: no time means anything here."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_tests.boards.board import Board
from device_tests.boards.firmware import STACK_BYTES, build_firmware, require_program, run
from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import DeviceError, ToolchainError

__all__ = ["BoardRun", "emulator_version", "run_on_board"]

HERE = Path(__file__).parent
TIMEOUT_S = 300.0
# What main.c and startup.c answer.
ANSWERS = {
    3: "could not open its files",
    4: "found too few bytes of input",
    5: "met an id outside its table",
    99: "ran into a fault of the core (a wrong address, or more stack than it was given)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardRun:
    """What one run on an emulated board gave.

    Attributes:
        outputs: [samples, ...] by name, in the types of the signature.
        instructions: Of one inference: the whole run's, divided by the samples; exactly repeatable.
        by_function: The same by function, most first.
        flash_bytes: Code and constants of the whole firmware.
        ram_bytes: Values and the deepest stack seen.
        kernels: Says that it was emulated.
    """

    outputs: dict[str, np.ndarray]
    instructions: float
    by_function: dict[str, float]
    flash_bytes: int
    ram_bytes: int
    stack_bytes: int
    kernels: str


def run_on_board(
    project: Path,
    signature: Signature,
    board: Board,
    inputs: Mapping[str, np.ndarray],
    *,
    flash_bytes: int | None = None,
    ram_bytes: int | None = None,
    stack_bytes: int = STACK_BYTES,
    optimisation: str = "-O2",
    timeout_s: float = TIMEOUT_S,
) -> BoardRun:
    """Build the project for the board and run all samples of `inputs` ([samples, ...] by name) there.

    Args:
        flash_bytes: Of the device that the board stands for; None takes the board's own. RAM likewise.
        stack_bytes: Part of the RAM; what was used of it is measured.
        optimisation: Of the compiler.

    Raises:
        DeviceError: It does not fit, faults, or gives no answer within `timeout_s`.
        MissingExtra: Compiler or emulator are not installed.
    """
    emulator = require_program("qemu-system-arm")
    with tempfile.TemporaryDirectory(prefix="edge-deploy-board-") as scratch:
        folder = Path(scratch)
        arrays = [np.ascontiguousarray(inputs[info.name], info.dtype) for info in signature.inputs]
        samples = len(arrays[0])
        firmware = build_firmware(
            project,
            signature,
            board,
            folder,
            samples=samples,
            flash_bytes=flash_bytes,
            ram_bytes=ram_bytes,
            stack_bytes=stack_bytes,
            optimisation=optimisation,
        )
        (folder / "in.bin").write_bytes(b"".join(a[k].tobytes() for k in range(samples) for a in arrays))
        counter = _counter(folder)
        command = [
            *(emulator, "-M", board.machine, "-display", "none", "-monitor", "none", "-serial", "none"),
            *("-semihosting-config", "enable=on,target=native", "-kernel", str(firmware.elf)),
            *("-plugin", f"{counter},out={folder / 'count.txt'}"),
        ]
        done = run(command, timeout_s=timeout_s, what=f"qemu:{board.name}", folder=folder)
        if done.returncode:
            why = ANSWERS.get(done.returncode, f"ended with exit code {done.returncode}: {done.stderr.strip()[-500:]}")
            raise DeviceError(f"qemu:{board.name}: the program {why}.")
        counted = _counts(folder / "count.txt", samples)
        stack = int.from_bytes((folder / "stack.bin").read_bytes(), "little")
        return BoardRun(
            outputs=_outputs(folder / "out.bin", signature, samples),
            instructions=sum(counted.values()),
            by_function=counted,
            flash_bytes=firmware.flash_bytes,
            ram_bytes=firmware.static_ram_bytes + stack,
            stack_bytes=stack,
            kernels=f"generated C, emulated {board.name} (qemu)",
        )


def emulator_version() -> str:
    """E.g. "QEMU 7.2.22".

    Raises:
        MissingExtra: It is not installed.
    """
    done = run([require_program("qemu-system-arm"), "--version"], timeout_s=60, what="qemu-system-arm")
    found = re.search(r"version (\d[\w.]*)", done.stdout)
    return f"QEMU {found.group(1)}" if found else "QEMU"


def _counter(folder: Path) -> Path:
    """The plugin that counts, compiled for this machine."""
    built = folder / "count_instructions.so"
    command = [require_program("cc"), "-O2", "-shared", "-fPIC", str(HERE / "count_instructions.c"), "-o", str(built)]
    done = run(command, timeout_s=60, what="cc for the counter of instructions")
    if done.returncode:
        raise ToolchainError(f"cc: refused the counter of instructions: {done.stderr.strip()[-500:]}")
    return built


def _counts(path: Path, samples: int) -> dict[str, float]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DeviceError("qemu-system-arm: counted nothing; it must be built with plugins (Debian's is).") from error
    found: dict[str, float] = {}
    for line in lines:
        count, _, function = line.partition(" ")
        found[function] = found.get(function, 0.0) + int(count) / samples
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _outputs(path: Path, signature: Signature, samples: int) -> dict[str, np.ndarray]:
    data = path.read_bytes()
    found: dict[str, list[np.ndarray]] = {info.name: [] for info in signature.outputs}
    at = 0
    for _ in range(samples):
        for info in signature.outputs:
            kind = np.dtype(info.dtype)
            count = int(np.prod(info.shape))
            part = np.frombuffer(data, kind, count, at)
            found[info.name].append(part.reshape(info.shape))
            at += count * kind.itemsize
    return {name: np.stack(rows) for name, rows in found.items()}
