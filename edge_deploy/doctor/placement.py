"""Whether the five packages that are found are the five that belong together."""

from __future__ import annotations

from edge_deploy.core.errors import BadInput
from edge_deploy.core.registry import PACKAGES, check_packages_lie_side_by_side
from edge_deploy.doctor.finding import Finding

__all__ = ["check_placement"]


def check_placement() -> tuple[Finding, ...]:
    """One finding for every package that another folder hides."""
    try:
        check_packages_lie_side_by_side()
    except BadInput as error:
        return tuple(Finding(level="problem", text=problem) for problem in error.problems)
    return (Finding(level="ok", text=f"packages lie side by side: {', '.join(PACKAGES)}"),)
