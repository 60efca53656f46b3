"""Look at this installation and machine: what works, what is missing, and what to do about it."""

from __future__ import annotations

from edge_deploy.doctor.delegates import check_delegates
from edge_deploy.doctor.engines import check_engines
from edge_deploy.doctor.finding import Finding
from edge_deploy.doctor.machine import check_machine, read_resources
from edge_deploy.doctor.packages import check_cuda, check_packages, check_python, installed_packages, wished_packages
from edge_deploy.doctor.placement import check_placement

__all__ = ["Finding", "diagnose"]


def diagnose(*, try_imports: bool = True) -> tuple[Finding, ...]:
    """Findings about Python, packages, runtimes, processor, memory and disk; heavy libraries load in children only.

    Args:
        try_imports: Import every installed runtime in a child process, some seconds each.
    """
    installed = installed_packages()
    return (
        check_python(),
        *check_placement(),
        *check_packages(wished_packages(), installed),
        *check_cuda(installed),
        *check_engines(installed, try_imports=try_imports),
        *check_delegates(installed),
        *check_machine(read_resources(), has_executorch="executorch" in installed),
    )
