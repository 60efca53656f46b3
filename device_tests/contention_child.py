"""A process that takes CPU time or memory until its parent ends: the load behind `device_tests.contention`.

It writes "ready" when its load is there. Standard library only, so that it starts in milliseconds.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
import time
from pathlib import Path

PERIOD_S = 0.02
PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
HEADROOM_BYTES = 256 << 20
BLOCK_BYTES = 16 << 20


def main(arguments: list[str]) -> None:
    """`cpu SHARE CORE` or `memory BYTES`."""
    _die_with_parent()
    if arguments[0] == "cpu":
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {int(arguments[2])})
        _say_ready()
        _burn(float(arguments[1]))
    else:
        _hold(int(arguments[1]))


def _burn(share: float) -> None:
    """Busy for `share` of each period, by this process's own CPU time: what others take does not shorten it."""
    parent = os.getppid()
    while os.getppid() == parent:
        begin, used = time.monotonic(), time.process_time()
        while time.process_time() - used < share * PERIOD_S:
            sum(range(2000))
        # A share that could not be had within its period is not made up for later.
        time.sleep(max(0.0, begin + PERIOD_S - time.monotonic()))


def _hold(wanted: int) -> None:
    """Write to every page, block by block, and stop early where the machine has little left."""
    _be_first_to_go()
    parent = os.getppid()
    held = mmap.mmap(-1, max(wanted, mmap.PAGESIZE))
    block, taken = b"\x5a" * BLOCK_BYTES, 0
    while taken < wanted and _available_bytes() > HEADROOM_BYTES:
        size = min(BLOCK_BYTES, wanted - taken)
        held[taken : taken + size] = block[:size]
        taken += size
    _say_ready(str(taken))
    while os.getppid() == parent:
        time.sleep(0.5)


def _available_bytes() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return HEADROOM_BYTES * 2  # cannot be read: the caller's margin has to do


def _be_first_to_go() -> None:
    """Should memory run out after all, the kernel ends this process and not the measured one."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError:
        return


def _die_with_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it, also after Ctrl-C
    try:
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    except (OSError, AttributeError):
        return


def _say_ready(detail: str = "") -> None:
    sys.stdout.write(f"ready {detail}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
