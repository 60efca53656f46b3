"""The table of a suite: one line a row, as the command line and the bench print it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_deploy.core.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from device_tests.tasks.run import SuiteRow

__all__ = ["SUITE_COLUMNS", "suite_cells"]

SUITE_COLUMNS = (
    *("task", "model", "precision", "runtime", "device"),
    *("quality (95 %)", "floor", "items", "p90", "memory", "flash"),
)


def suite_cells(row: SuiteRow) -> tuple[str, ...]:
    """One line; what a device does not tell is left empty."""
    begin = (row.task.replace("_", " "), row.model, row.precision, row.runtime, row.device)
    quality = row.quality
    if quality is None:
        return (*begin, f"failed: {row.problem}", "", "", "", "", "")
    floor = "" if quality.floor is None else f"{quality.floor:.3f} {quality.verdict}"
    floor += "" if quality.resolved else ", not resolved"
    items = str(quality.items) if quality.items == row.offered else f"{quality.items} of {row.offered}"
    items += "" if row.inferences == quality.items else f" ({row.inferences} inferences)"
    if row.instructions is not None:
        speed = f"{row.instructions / 1e6:.3f} M instructions"
    elif row.p90_s is None:
        speed = ""
    else:
        speed = "none: emulated" if row.provenance == "emulated" else format_seconds(row.p90_s)
    memory = "" if row.memory_bytes is None else format_bytes(row.memory_bytes)
    value = f"{quality.metric} {quality.value:.4f} ({quality.low:.4f} to {quality.high:.4f})"
    flash = "" if row.flash_bytes is None else format_bytes(row.flash_bytes)
    return (*begin, value, floor, items, speed, memory, flash)
