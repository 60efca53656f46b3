"""Whether this machine has what conversions and honest measurements need: processor, memory, disk, locked memory."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edge_deploy.core.benchmark import Machine
from edge_deploy.core.units import format_bytes
from edge_deploy.doctor.finding import Finding
from runtimes.probes.machine import read_machine

__all__ = ["Resources", "check_machine", "read_resources"]

# A conversion of a small CNN peaks below 2 GB; one of a recommender needs about three times its float tables.
MEMORY_FOR_CONVERSION = 3_000_000_000
DISK_FOR_CONVERSION = 1_000_000_000
# What systems allow by default is too little for any table, so nothing gets locked.
HARMLESS_LOCK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What the machine has to give right now.

    Attributes:
        free_ram_bytes: Available without swapping; None where the system does not tell.
        free_disk_bytes: By folder.
        lock_limit_bytes: How much memory a process may lock; None for no limit, 0 where unknown.
    """

    machine: Machine
    free_ram_bytes: int | None
    free_disk_bytes: dict[str, int]
    lock_limit_bytes: int | None


def read_resources() -> Resources:
    """This machine's."""
    folders = {"the current folder": Path.cwd(), "the folder for temporary files": Path(tempfile.gettempdir())}
    return Resources(
        machine=read_machine(),
        free_ram_bytes=_free_ram(),
        free_disk_bytes={name: shutil.disk_usage(path).free for name, path in folders.items()},
        lock_limit_bytes=_lock_limit(),
    )


def check_machine(resources: Resources, *, has_executorch: bool) -> tuple[Finding, ...]:
    """Findings about the processor, memory, disk, and memory that ExecuTorch would lock."""
    return (
        _processor(resources.machine),
        _cores(resources.machine),
        _memory(resources),
        *_disk(resources),
        *(_locked(resources.lock_limit_bytes) if has_executorch else ()),
    )


def _processor(machine: Machine) -> Finding:
    name = f"processor {machine.cpu_model} ({machine.isa})"
    fast = [
        feature for feature in machine.features if feature in ("avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
    ]
    if fast:
        return Finding(level="ok", text=f"{name} multiplies INT8 natively: {', '.join(fast)}")
    if machine.features:
        return Finding(
            level="note",
            text=f"{name} has {', '.join(machine.features)} but no INT8 dot product: INT8 gains less speed here",
            remedy="measure on the device that will run it",
        )
    return Finding(
        level="note",
        text=f"{name}: its instruction set extensions could not be read, or it has none that quantized kernels use",
    )


def _cores(machine: Machine) -> Finding:
    governor = f", frequency governor {machine.governor}" if machine.governor else ""
    text = f"{machine.cores} cores for this process{governor}"
    if machine.governor not in (None, "performance"):
        return Finding(
            level="note",
            text=f"{text}: the frequency may change during a benchmark",
            remedy="set the governor to performance before measuring",
        )
    if machine.cores == 1:
        return Finding(level="note", text=f"{text}: a benchmark shares it with everything else that runs")
    return Finding(level="ok", text=text)


def _memory(resources: Resources) -> Finding:
    free, total = resources.free_ram_bytes, format_bytes(resources.machine.ram_bytes)
    if free is None:
        return Finding(level="ok", text=f"{total} memory")
    text = f"{format_bytes(free)} of {total} memory free"
    if free < MEMORY_FOR_CONVERSION:
        return Finding(
            level="note",
            text=f"{text}: a conversion may need {format_bytes(MEMORY_FOR_CONVERSION)} and more",
            remedy="convert on a larger machine, or end other programs; running artifacts needs far less",
        )
    return Finding(level="ok", text=text)


def _disk(resources: Resources) -> tuple[Finding, ...]:
    findings = []
    for name, free in resources.free_disk_bytes.items():
        text = f"{format_bytes(free)} free in {name}"
        if free < DISK_FOR_CONVERSION:
            findings.append(Finding(level="problem", text=f"{text}: too little for a conversion", remedy="free some"))
        else:
            findings.append(Finding(level="ok", text=text))
    return tuple(findings)


def _locked(limit: int | None) -> tuple[Finding, ...]:
    if limit is not None and limit <= HARMLESS_LOCK_BYTES:
        return (Finding(level="ok", text="locked memory is limited: ExecuTorch cannot pin whole tables in memory"),)
    how_much = "any amount of" if limit is None else format_bytes(limit)
    return (
        Finding(
            level="note",
            text=f"a process may lock {how_much} memory: ExecuTorch's Python runtime then keeps whole embedding "
            "tables resident instead of reading rows as they are needed",
            remedy="run `ulimit -l 8192` first when the memory of large recommenders matters",
        ),
    )


def _free_ram() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(values[0]) * 1024 if values else None


def _lock_limit() -> int | None:
    try:
        import resource
    except ImportError:  # a system without POSIX limits
        return 0
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if soft == resource.RLIM_INFINITY else soft
