"""Arm's compiler for Ethos-U in a child process: its estimates of cycles and memory, per layer. Nothing runs on an NPU.

The compiler ends itself on models with 4-bit weights (a division by zero, SIGFPE); that is said with the layers' names.
"""

from __future__ import annotations

import csv
import difflib
import importlib.metadata
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edge_deploy.core.errors import BadInput, MissingExtra, Refusal, ToolchainError, Unsupported
from runtimes.formats.facts import read_facts

__all__ = ["ACCELERATORS", "NpuEstimate", "NpuLayer", "estimate_npu"]

TIMEOUT_S = 600.0
# System and memory that the compiler's own configuration file describes, for each family.
SYSTEMS = {
    "ethos-u55": ("Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "ethos-u65": ("Ethos_U65_High_End", "Dedicated_Sram"),
    "ethos-u85": ("Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_384KB"),
}
ACCELERATORS = (
    *(f"ethos-u55-{macs}" for macs in (32, 64, 128, 256)),
    *(f"ethos-u65-{macs}" for macs in (256, 512)),
    *(f"ethos-u85-{macs}" for macs in (128, 256, 512, 1024, 2048)),
)
KIB = 1024
LEFT = re.compile(r"^Warning \([^)]*\) operator: (\S+), ofm: '(.*)'\n\W*(?:Reason: )?(.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class NpuLayer:
    """One operator as the compiler sees it.

    Attributes:
        target: "NPU" or "CPU".
        sram_bytes: Staging memory while it runs.
    """

    layer: str
    op: str
    target: str
    cycles: float
    macs: int
    sram_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NpuEstimate:
    """What the compiler estimates; no measurement of anything.

    Attributes:
        system: Of the compiler's configuration: system and memory mode that the estimate is for.
        sram_bytes: For values.
        flash_bytes: Of weights and commands as the NPU reads them.
        cpu_operators: Operators that it leaves to the CPU, of `operators`.
        reasons: Why, in its own words.
    """

    accelerator: str
    system: str
    clock_hz: float
    cycles: float
    seconds: float
    sram_bytes: int
    flash_bytes: int
    operators: int
    cpu_operators: int
    layers: tuple[NpuLayer, ...]
    reasons: tuple[str, ...] = ()
    compiler: str = ""
    provenance: str = "estimated"


def estimate_npu(path: Path, accelerator: str, *, timeout_s: float = TIMEOUT_S) -> NpuEstimate:
    """Compile the file for the accelerator and read what the compiler says of the result.

    Args:
        accelerator: E.g. "ethos-u55-128".

    Raises:
        BadInput: No such accelerator.
        Unsupported: The model has 4-bit weights, of which the compiler dies.
        ToolchainError: It failed, died or gave no answer.
        MissingExtra: It is not installed.
    """
    if accelerator not in ACCELERATORS:
        close = difflib.get_close_matches(accelerator, ACCELERATORS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(ACCELERATORS)}."
        raise BadInput(f"{accelerator}: unknown accelerator; {hint}")
    system, memory = SYSTEMS[accelerator.rpartition("-")[0]]
    with tempfile.TemporaryDirectory(prefix="edge-deploy-vela-") as folder:
        out = Path(folder, "out")
        command = [
            *(sys.executable, "-m", "ethosu.vela", str(path.resolve()), "--accelerator-config", accelerator),
            *("--config", "Arm/vela.ini", "--system-config", system, "--memory-mode", memory),
            *("--output-dir", str(out), "--verbose-performance"),
        ]
        done = _run(command, path, Path(folder), timeout_s)
        if done.returncode:
            raise _failure(path, done)
        summary = _rows(out, "*_summary_*.csv", path, done)[0]
        layers = tuple(_layer(row) for row in _rows(out, "*_per-layer.csv", path, done))
    counts = {what: int(n) for what, n in re.findall(r"^(CPU|NPU) operators = (\d+)", done.stdout, re.MULTILINE)}
    return NpuEstimate(
        accelerator=accelerator,
        system=f"{system}, {memory}",
        clock_hz=float(summary["core_clock"]),
        cycles=float(summary["cycles_total"]),
        seconds=float(summary["inference_time"]),
        sram_bytes=round(float(summary["sram_memory_used"]) * KIB),
        flash_bytes=round(
            (float(summary["on_chip_flash_memory_used"]) + float(summary["off_chip_flash_memory_used"])) * KIB
        ),
        operators=sum(counts.values()),
        cpu_operators=counts.get("CPU", 0),
        layers=layers,
        reasons=tuple(f"layer {name} ({op}): {why}" for op, name, why in LEFT.findall(done.stdout)),
        compiler=f"ethos-u-vela {_version()}",
    )


def _run(command: list[str], path: Path, folder: Path, timeout_s: float) -> subprocess.CompletedProcess[str]:
    import importlib.util

    if importlib.util.find_spec("ethosu") is None:
        raise MissingExtra(f"{path}: estimates for Ethos-U need Arm's compiler: pip install 'edge-deploy[ethos-u]'")
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False, cwd=folder
        )
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(f"{path}: vela gave no answer within {timeout_s:.0f} s and was ended.") from error


def _failure(path: Path, done: subprocess.CompletedProcess[str]) -> ToolchainError | Unsupported:
    number = -done.returncode
    how = f"died of {signal.Signals(number).name}" if number > 0 else f"ended with exit code {done.returncode}"
    narrow = [fact for fact in read_facts(path) if fact.weight_dtype in ("int4", "int2", "uint4")]
    if narrow and number > 0:
        reason = f"has {narrow[0].weight_dtype} weights, of which vela {_version()} {how}"
        return Unsupported(
            refusals=tuple(
                Refusal(layer=fact.layer, op=fact.op, reason=reason, remedy="convert with --precision int8")
                for fact in narrow
            )
        )
    words = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-6:])
    return ToolchainError(f"{path}: vela {_version()} {how}: {words}")


def _rows(out: Path, pattern: str, path: Path, done: subprocess.CompletedProcess[str]) -> list[dict[str, str]]:
    found = sorted(out.glob(pattern))
    if not found:
        raise ToolchainError(f"{path}: vela {_version()} wrote no {pattern}: {done.stdout.strip()[-500:]}")
    with found[0].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ToolchainError(f"{path}: vela {_version()} wrote an empty {found[0].name}.")
    return rows


def _layer(row: dict[str, str]) -> NpuLayer:
    return NpuLayer(
        layer=row.get("Name", ""),
        op=row.get("NNG Operator", ""),
        target=row.get("Target", ""),
        cycles=float(row.get("Op Cycles") or 0),
        macs=int(float(row.get("MAC Count") or 0)),
        sram_bytes=int(float(row.get("Staging Usage") or 0)),
    )


def _version() -> str:
    try:
        return importlib.metadata.version("ethos-u-vela")
    except importlib.metadata.PackageNotFoundError:
        return "(version unknown)"
