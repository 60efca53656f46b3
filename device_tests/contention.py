"""Make a machine busy on purpose: CPU time on chosen cores, or part of its free memory, and always let go again."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from edge_deploy.core.errors import BadInput, DeviceError

__all__ = ["available_memory_bytes", "cpu_load", "memory_bound_bytes", "memory_load", "usable_cores"]

# Never taken, whatever share is asked for: what the measured model and everybody else need to go on.
MARGIN_BYTES = 1 << 30
MARGIN_SHARE = 0.10
START_TIMEOUT_S = 10.0
CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> tuple[int, ...]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


@contextlib.contextmanager
def cpu_load(share: float, *, cores: Sequence[int] | None = None) -> Iterator[str]:
    """Take this share of each core's time, with stress-ng where it is installed, else with processes of our own.

    Args:
        share: 0 to 1, as the load would be on a core that is otherwise idle.
        cores: Which; None for all that this process may use.

    Yields:
        What makes the load, for the notes of a profile.

    Raises:
        BadInput: The share is out of range.
        DeviceError: The load did not start.
    """
    if not 0 <= share <= 1:
        raise BadInput(f"cpu load {share}: a share, must be between 0 and 1.")
    where = usable_cores() if cores is None else tuple(cores)
    if share == 0 or not where:
        yield "none"
        return
    program = shutil.which("stress-ng")
    if program is not None:
        command = [program, "--quiet", "--cpu", "1", "--cpu-load", str(round(share * 100)), "--taskset"]
        with _children([[*command, str(core)] for core in where], ready=False):
            yield "stress-ng"
        return
    ours = [sys.executable, "-m", "device_tests.contention_child", "cpu", str(share)]
    with _children([[*ours, str(core)] for core in where], ready=True):
        yield "own load"


@contextlib.contextmanager
def memory_load(share: float) -> Iterator[int]:
    """Hold this share of the memory that is free now, every page written to, but never more than is safe.

    Args:
        share: 0 to 1, of `memory_bound_bytes()`: 1 leaves the margin.

    Yields:
        Bytes held.

    Raises:
        BadInput: The share is out of range.
        DeviceError: The process that holds them did not start.
    """
    if not 0 <= share <= 1:
        raise BadInput(f"memory pressure {share}: a share, must be between 0 and 1.")
    wanted = int(share * memory_bound_bytes())
    if wanted == 0:
        yield 0
        return
    command = [sys.executable, "-m", "device_tests.contention_child", "memory", str(wanted)]
    with _children([command], ready=True) as words:
        yield int(words[0])


def memory_bound_bytes() -> int:
    """The most that a load of ours may take: what is available, less a tenth of it and at least 1 GiB."""
    available = available_memory_bytes()
    return max(0, available - max(MARGIN_BYTES, int(available * MARGIN_SHARE)))


def available_memory_bytes(*, meminfo: Path = Path("/proc/meminfo"), cgroup: Path = CGROUP) -> int:
    """Bytes that can be taken before the machine, or the container this process is in, runs out; 0 where unknown."""
    found = [
        int(line.split()[1]) * 1024 for line in (_text(meminfo) or "").splitlines() if line.startswith("MemAvailable:")
    ]
    # cgroup version 2, then version 1; "max" and absurdly large numbers mean no limit.
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        most, now = _text(cgroup / limit), _text(cgroup / used)
        if most and now and most.isdigit() and now.isdigit():
            found.append(max(0, int(most) - int(now)))
    return min(found, default=0)


@contextlib.contextmanager
def _children(commands: Sequence[Sequence[str]], *, ready: bool) -> Iterator[list[str]]:
    """Run them until the block ends, however it ends; yields what follows "ready" in the first line of each."""
    paths = os.pathsep.join(path for path in sys.path if path)
    started: list[subprocess.Popen[str]] = []
    try:
        for command in commands:
            started.append(
                subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    env={**os.environ, "PYTHONPATH": paths},
                    start_new_session=True,
                )
            )
        if not ready:
            for process in started:
                _wait_for_worker(process)
        yield [_first_line(process) for process in started] if ready else []
    finally:
        for process in started:
            _end(process)


def _first_line(process: subprocess.Popen[str]) -> str:
    stream: IO[str] | None = process.stdout
    assert stream is not None
    line = stream.readline()
    if not line.startswith("ready"):
        raise DeviceError(f"load generator: ended with exit code {process.wait()} before its load was there.")
    return line.removeprefix("ready").strip()


def _wait_for_worker(process: subprocess.Popen[str]) -> None:
    """Until it has forked the process that works, as far as the system tells."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        if _text(children) != "":  # None where the system does not tell
            return
        time.sleep(0.01)
    raise DeviceError(
        f"load generator: stress-ng started no load within {START_TIMEOUT_S:g} s; exit code {process.poll()}."
    )


def _end(process: subprocess.Popen[str]) -> None:
    # Its whole session: stress-ng works in children of its own.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, 9)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
