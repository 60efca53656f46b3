"""A C project as firmware for an emulated board, within the flash and RAM of the device it stands for."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from device_tests.boards.board import Board
from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput, DeviceError, MissingExtra
from edge_deploy.core.tensor import TensorInfo

__all__ = ["COMPILER", "STACK_BYTES", "Firmware", "build_firmware", "require_program"]

HERE = Path(__file__).parent
COMPILER = "arm-none-eabi-gcc"
PACKAGES = {
    COMPILER: "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "arm-none-eabi-size": "gcc-arm-none-eabi",
    "qemu-system-arm": "qemu-system-arm",
    "cc": "gcc",
}
BUILD_S = 300.0
STACK_BYTES = 4096
HANDLER_STACK_BYTES = 256  # of memory.ld.template
ITEM_BYTES = {"int8": 1, "uint8": 1, "int32": 4, "float32": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Firmware:
    """A linked program.

    Attributes:
        flash_bytes: Code and constants, with the start-up and the reading of samples (under 1 kB).
        static_ram_bytes: Values; the stack comes on top.
    """

    elf: Path
    flash_bytes: int
    static_ram_bytes: int


def require_program(name: str) -> str:
    """Path of a program of the toolchain.

    Raises:
        MissingExtra: It is not installed; names the Debian package.
    """
    found = shutil.which(name)
    if found is None:
        raise MissingExtra(f"{name}: not installed; emulated boards need it: apt-get install {PACKAGES[name]}")
    return found


def build_firmware(
    project: Path,
    signature: Signature,
    board: Board,
    folder: Path,
    *,
    samples: int,
    flash_bytes: int | None = None,
    ram_bytes: int | None = None,
    stack_bytes: int = STACK_BYTES,
    optimisation: str = "-O2",
) -> Firmware:
    """Compile the C files of `project` with the board's start-up and link them into its memory.

    Args:
        samples: How many samples one run reads.
        flash_bytes: Of the device that the board stands for; None takes the board's own.
        ram_bytes: The same of its RAM; the stack is part of it.

    Raises:
        DeviceError: It does not fit, with the bytes that are too many; or the compiler refused it.
        MissingExtra: There is no cross compiler.
        BadInput: The folder is no C project.
    """
    compiler = require_program(COMPILER)
    sources = sorted(each for each in project.glob("*.c") if each.name != "selftest.c")
    if not (project / "model.c").is_file():
        raise BadInput(f"{project}: has no model.c; give the folder that convert --to c wrote.")
    flash, ram = _limits(board, flash_bytes, ram_bytes)
    script = folder / "memory.ld"
    text = (HERE / "memory.ld.template").read_text(encoding="ascii")
    vectors = board.flash_origin if board.vectors_origin is None else board.vectors_origin
    for name, value in (
        ("VECTORS", "FLASH" if board.vectors_origin is None else "VECTORS"),
        ("VECTORS_ORIGIN", vectors),
        ("FLASH_ORIGIN", board.flash_origin),
        ("RAM_ORIGIN", board.ram_origin),
        ("FLASH_BYTES", flash),
        ("RAM_BYTES", ram),
        ("STACK_BYTES", stack_bytes),
    ):
        text = text.replace(f"@{name}@", str(value))
    script.write_text(text, encoding="ascii")
    elf = folder / "firmware.elf"
    command = [
        *(compiler, "-std=gnu99", optimisation, *board.flags, "-ffunction-sections", "-fdata-sections"),
        *("-nostartfiles", "--specs=nosys.specs", "--specs=nano.specs", "-Wl,--gc-sections", "-T", str(script)),
        *(f"-I{project}", f"-I{HERE}", f"-DEDGE_SAMPLES={samples}"),
        *(f"-DEDGE_INPUT_BYTES={_sizes(signature.inputs)}", f"-DEDGE_OUTPUT_BYTES={_sizes(signature.outputs)}"),
        *(str(HERE / "startup.c"), str(HERE / "main.c"), *map(str, sources), "-lm", "-o", str(elf)),
    ]
    done = run(command, timeout_s=BUILD_S, what=f"{COMPILER} for {board.name}")
    if done.returncode:
        raise DeviceError(_refusal(project, board, done.stderr, flash, ram))
    used_flash, used_ram = _used(elf, stack_bytes)
    return Firmware(elf=elf, flash_bytes=used_flash, static_ram_bytes=used_ram)


def run(
    command: Sequence[str], *, timeout_s: float, what: str, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program of the toolchain to its end.

    Raises:
        DeviceError: It gave no answer in time; it is ended.
    """
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False, cwd=folder
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"{what}: gave no answer within {timeout_s:.0f} s and was ended.") from error
    except OSError as error:
        raise DeviceError(f"{what}: cannot be started ({error.strerror}).") from error


def _limits(board: Board, flash_bytes: int | None, ram_bytes: int | None) -> tuple[int, int]:
    """What the device has, which the emulated board must have too."""
    problems = []
    for what, wanted, have in (("flash", flash_bytes, board.flash_bytes), ("RAM", ram_bytes, board.ram_bytes)):
        if wanted is not None and not 0 < wanted <= have:
            problems.append(f"qemu:{board.name}: {what} of {wanted} bytes: must lie in 1 to {have}, which is emulated.")
    if problems:
        raise BadInput(*problems)
    return flash_bytes or board.flash_bytes, ram_bytes or board.ram_bytes


def _sizes(infos: tuple[TensorInfo, ...]) -> str:
    sizes = []
    for info in infos:
        size = ITEM_BYTES[info.dtype]
        for length in info.shape:
            size *= length
        sizes.append(str(size))
    return ",".join(sizes)


def _refusal(project: Path, board: Board, text: str, flash: int, ram: int) -> str:
    over = re.findall(r"region [`']?(FLASH|RAM)'? overflowed by (\d+) bytes", text)
    if not over:
        return f"{project}: {COMPILER} refused it for {board.name}: {text.strip()[-1500:]}"
    have = {"FLASH": flash, "RAM": ram}
    parts = [f"{int(by)} bytes too many for {have[region]} bytes of {region}" for region, by in over]
    return f"{project}: does not fit {board.name}: {'; '.join(parts)}."


def _used(elf: Path, stack_bytes: int) -> tuple[int, int]:
    done = run([require_program("arm-none-eabi-size"), str(elf)], timeout_s=BUILD_S, what="arm-none-eabi-size")
    if done.returncode:
        raise DeviceError(f"{elf.name}: arm-none-eabi-size refused it: {done.stderr.strip()}")
    text, data, bss = (int(word) for word in done.stdout.splitlines()[1].split()[:3])
    return text + data, data + bss - stack_bytes - HANDLER_STACK_BYTES
