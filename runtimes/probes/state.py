"""What a machine does at this moment: how busy its cores are, how hot and how fast they run. Linux files only."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from edge_deploy.core.benchmark import MachineState

__all__ = ["pick_cpus", "read_state"]

ROOT = Path("/")
WINDOW_S = 0.2
IDLE_COLUMNS = (3, 4)  # of a cpu line in /proc/stat: idle, iowait
HOTTEST_C = 150.0  # above, a zone reports something else than degrees


def read_state(
    *, root: Path = ROOT, window_s: float = WINDOW_S, wait: Callable[[float], None] = time.sleep
) -> MachineState:
    """Load, temperature, clock and throttling; this process sleeps meanwhile, so that what is busy are others.

    Args:
        root: Where /proc and /sys lie.
        window_s: How long the load is watched.
    """
    before = _busy_and_all(root)
    wait(window_s)
    after = _busy_and_all(root)
    busy = None
    if before is not None and after is not None and after[1] > before[1]:
        busy = round((after[0] - before[0]) / (after[1] - before[1]) * after[2], 3)
    return MachineState(
        busy_cores=busy, temperature_c=_temperature_c(root), clock_hz=_clock_hz(root), throttled=_throttled(root)
    )


def pick_cpus(count: int, *, allowed: tuple[int, ...] | None = None, root: Path = ROOT) -> tuple[int, ...]:
    """The `count` fastest CPUs that this process may use, by their highest clock; the last ones of equals.

    The last ones, because systems serve interrupts on the first ones. Empty where affinity is unknown to the system.
    """
    if allowed is None:
        allowed = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()
    ranked = sorted(allowed, key=lambda cpu: (_highest_clock(root, cpu), cpu), reverse=True)
    return tuple(sorted(ranked[:count]))


def _highest_clock(root: Path, cpu: int) -> int:
    return _number(root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq") or 0


def _busy_and_all(root: Path) -> tuple[int, int, int] | None:
    """Busy and all clock ticks of all CPUs, and how many CPUs there are."""
    try:
        lines = (root / "proc/stat").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    cpus = [line.split() for line in lines if line.startswith("cpu") and line[3:4].isdigit()]
    rows = [[int(text) for text in fields[1:9]] for fields in cpus]
    if not rows:
        return None
    everything = sum(map(sum, rows))
    return everything - sum(row[column] for row in rows for column in IDLE_COLUMNS), everything, len(rows)


def _temperature_c(root: Path) -> float | None:
    found = [_number(path) for path in root.glob("sys/class/thermal/thermal_zone*/temp")]
    degrees = [value / 1000 for value in found if value is not None and 0 < value / 1000 < HOTTEST_C]
    return max(degrees, default=None)


def _clock_hz(root: Path) -> float | None:
    found = [_number(path) for path in root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")]
    return max((value * 1000.0 for value in found if value), default=None)


def _throttled(root: Path) -> int | None:
    found = [_number(p) for p in root.glob("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count")]
    counts = [value for value in found if value is not None]
    return sum(counts) if counts else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii", errors="replace"))
    except (OSError, ValueError):
        return None
