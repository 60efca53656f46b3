"""What this machine is: processor, instruction set extensions, cores, memory, governor. Standard library only."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from edge_deploy.core.benchmark import Machine

__all__ = ["load_average", "peak_rss_bytes", "read_machine"]

# Extensions that decide which quantized kernels run: x86 names, then ARM's as Linux spells them.
QUANTIZED_FEATURES = (
    "avx2",
    "fma",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "amx_int8",
    "neon",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "sve",
)
CPUINFO = Path("/proc/cpuinfo")
MEMINFO = Path("/proc/meminfo")
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def read_machine() -> Machine:
    """The machine that this process runs on; what cannot be read is "unknown", empty or None, never invented."""
    cpuinfo = _fields(CPUINFO)
    flags = set((cpuinfo.get("flags") or cpuinfo.get("Features") or "").split())
    return Machine(
        cpu_model=cpuinfo.get("model name") or cpuinfo.get("Model") or platform.processor() or "unknown",
        isa=platform.machine() or "unknown",
        features=tuple(name for name in QUANTIZED_FEATURES if name in flags),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        ram_bytes=_ram_bytes(),
        governor=_text(GOVERNOR),
        kernel=f"{platform.system()} {platform.release()}",
    )


def load_average() -> tuple[float, ...]:
    """Runnable processes, averaged over 1, 5 and 15 minutes; empty where the system does not tell."""
    try:
        return tuple(round(value, 2) for value in os.getloadavg())
    except (AttributeError, OSError):
        return ()


def peak_rss_bytes() -> int:
    """The most resident memory this process ever had, in bytes; 0 where the system does not tell.

    Read from /proc and not from `getrusage`, because Linux lets the latter start with the size of the parent that
    started the process.
    """
    text = _fields(Path("/proc/self/status")).get("VmHWM", "").split()
    return int(text[0]) * 1024 if text else 0


def _ram_bytes() -> int:
    text = _fields(MEMINFO).get("MemTotal", "").split()
    if text:
        return int(text[0]) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 1  # a Device must have some; the report shows 1 B, which nobody mistakes for a measurement


def _fields(path: Path) -> dict[str, str]:
    """The first value of every "key : value" line; empty where there is no such file."""
    fields: dict[str, str] = {}
    for line in (_text(path) or "").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    return fields


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None
