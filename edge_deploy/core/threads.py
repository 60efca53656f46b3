"""Environment that every process of ours runs under, set before a library starts its threads."""

from __future__ import annotations

import os
from collections.abc import Mapping

__all__ = ["QUIET_THREADS", "half_the_cores"]

# Threads that spin while they wait make small networks tens of times slower as soon as the machine has other work.
QUIET_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}


def half_the_cores() -> Mapping[str, str]:
    """For a process that computes beside another one of ours: what the user has set wins.

    On two cores, calibration with two threads beside another busy process took twelve times the CPU time of one thread.
    """
    cores = max(1, (os.cpu_count() or 1) // 2)
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(cores))}
