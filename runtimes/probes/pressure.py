"""How busy others keep this machine: CPU that other processes use, free memory they took, pressure stall information.

Linux files only; what the system does not tell is None or 0 and never invented.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from runtimes.probes.memory import memory_now

__all__ = ["EdgeProbe", "EdgeState", "cpu_pressure"]

ROOT = Path("/")
IDLE_COLUMNS = (3, 4)  # of the cpu line in /proc/stat: idle, iowait
_SOME = re.compile(r"^some avg10=([0-9.]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeState:
    """One look.

    Attributes:
        load: Share of all CPUs that others used since the last look, 0 to 1; where only pressure is told, that.
        memory: Share of the memory that was free at the first look that others have taken since, 0 to 1.
        cpu_pressure: Share of the last ten seconds in which something waited for a CPU; None where unknown.
        memory_pressure: The same for memory.
    """

    load: float
    memory: float
    cpu_pressure: float | None = None
    memory_pressure: float | None = None


class EdgeProbe:
    """Looks at the machine; what happened since the last look counts, so keep one and ask it regularly.

    Args:
        root: Where /proc lies.
    """

    def __init__(self, *, root: Path = ROOT) -> None:
        self._root = root
        self._before = _ticks(root)
        self._own_before = _own_ticks()
        self._free_first = _free_bytes(root)
        self._own_first = _own_bytes()
        self._load = 0.0

    def read(self) -> EdgeState:
        """What others do now."""
        return EdgeState(
            load=self._others_load(),
            memory=self._others_memory(),
            cpu_pressure=cpu_pressure(self._root, "cpu"),
            memory_pressure=cpu_pressure(self._root, "memory"),
        )

    def _others_load(self) -> float:
        now, own = _ticks(self._root), _own_ticks()
        if now is None or self._before is None:
            # Systems that hide how busy they are, such as Android, may still tell how much waits for a CPU.
            return cpu_pressure(self._root, "cpu") or 0.0
        passed = now[1] - self._before[1]
        if passed > 0:  # else two looks within one tick of the system's clock
            busy = now[0] - self._before[0] - (own - self._own_before)
            self._load = min(max(busy / passed, 0.0), 1.0)
            self._before, self._own_before = now, own
        return self._load

    def _others_memory(self) -> float:
        free = _free_bytes(self._root)
        if not self._free_first or free is None:
            return 0.0
        taken = self._free_first - free - (_own_bytes() - self._own_first)
        return min(max(taken / self._free_first, 0.0), 1.0)


def cpu_pressure(root: Path = ROOT, what: str = "cpu") -> float | None:
    """Share of the last ten seconds in which some task waited for `what`: cpu, memory or io; None where unknown."""
    found = _SOME.search(_text(root / "proc/pressure" / what))
    return None if found is None else min(float(found.group(1)) / 100, 1.0)


def _ticks(root: Path) -> tuple[float, float] | None:
    """Busy and all clock ticks of all CPUs together."""
    fields = _text(root / "proc/stat").partition("\n")[0].split()
    if len(fields) < 6 or fields[0] != "cpu":
        return None
    counts = [float(text) for text in fields[1:9]]
    return sum(counts) - sum(counts[column] for column in IDLE_COLUMNS), sum(counts)


def _own_ticks() -> float:
    """What this process used, in the unit of /proc/stat."""
    used = os.times()
    per_second = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
    return (used.user + used.system) * per_second


def _free_bytes(root: Path) -> int | None:
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _own_bytes() -> int:
    kinds = memory_now()
    return 0 if kinds is None else kinds.anonymous_bytes + kinds.shared_bytes


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
