"""A CPU quota for processes that run already: a control group where that is allowed, else none, and it says so."""

from __future__ import annotations

import contextlib
import math
import os
import time
from pathlib import Path
from types import TracebackType

from edge_deploy.core.errors import BadInput

__all__ = ["CpuQuota"]

# Short beside an inference: one that is stopped in the middle waits for the next period.
PERIOD_US = 20_000
LEAST_QUOTA_US = 1_000  # the kernel's
_ROOT = Path("/sys/fs/cgroup")
_EMPTY_WITHIN_S = 2.0


class CpuQuota:
    """Processes added get so many cores together; their children too. Use it in a `with` block.

    As with every bandwidth quota, work that needs less than its share of 20 ms is not slowed down.

    Args:
        cores: E.g. 0.5; None for no quota.
        name: Of the control group, for people.

    Attributes:
        how: What was used, in words.

    Raises:
        BadInput: Not a positive number of cores.
    """

    def __init__(self, cores: float | None, *, name: str, root: Path = _ROOT) -> None:
        if cores is not None and not 0 < cores < 1000:
            raise BadInput(f"quota {name}: {cores} cores: must be above 0, e.g. 0.5.")
        self.how = "no quota asked for"
        self._group: Path | None = None
        if cores is None:
            return
        period = max(PERIOD_US, math.ceil(LEAST_QUOTA_US / cores))
        share = round(cores * period)
        for parent, limits in (
            (root / "cpu", {"cpu.cfs_period_us": f"{period}", "cpu.cfs_quota_us": f"{share}"}),
            (root, {"cpu.max": f"{share} {period}"}),
        ):
            group = parent / f"edge-deploy-{name}-{os.getpid()}-{time.monotonic_ns()}"
            try:
                group.mkdir()
                if not all((group / file).exists() for file in limits):
                    group.rmdir()
                    continue
                for file, value in limits.items():
                    (group / file).write_text(value)
            except OSError:
                with contextlib.suppress(OSError):
                    group.rmdir()
                continue
            self._group = group
            self.how = f"control group of version {1 if parent != root else 2}, {cores:g} cores"
            return
        self.how = f"none: control groups cannot be made here (asked: {cores:g} cores)"

    def add(self, pid: int) -> None:
        """Put a process under the quota; what it starts from now on is under it as well."""
        if self._group is not None:
            with contextlib.suppress(ProcessLookupError):
                (self._group / "cgroup.procs").write_text(str(pid))

    def throttled_s(self) -> float:
        """Seconds for which the processes were held back so far; 0 without a quota."""
        if self._group is None:
            return 0.0
        with contextlib.suppress(OSError, ValueError):
            told = dict(line.split() for line in (self._group / "cpu.stat").read_text().splitlines())
            return (
                float(told["throttled_time"]) * 1e-9
                if "throttled_time" in told
                else float(told["throttled_usec"]) * 1e-6
            )
        return 0.0

    def close(self) -> None:
        """Take the quota away; its processes should have ended."""
        group, self._group = self._group, None
        until = time.monotonic() + _EMPTY_WITHIN_S
        while group is not None:
            try:
                group.rmdir()
                return
            except FileNotFoundError:
                return
            except OSError:  # the last process is not quite gone, or still there: back to where it came from
                if time.monotonic() > until:
                    return
                with contextlib.suppress(OSError):
                    for pid in (group / "cgroup.procs").read_text().split():
                        (group.parent / "cgroup.procs").write_text(pid)
                time.sleep(0.01)

    def __enter__(self) -> CpuQuota:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
