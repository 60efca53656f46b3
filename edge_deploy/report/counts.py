"""What emulated boards counted: instructions, memory, and the bits that differ from the reference kernels."""

from __future__ import annotations

from edge_deploy.core.benchmark import BenchmarkReport, Counted
from edge_deploy.core.units import format_bytes
from edge_deploy.report.collect import Entry, Model
from edge_deploy.report.look import named
from edge_deploy.report.markup import Markup, element
from edge_deploy.report.tables import Column, table

__all__ = ["counts_section"]


def counts_section(model: Model) -> Markup | None:
    """None where nothing was counted."""
    rows = [
        (entry, entry.counts, entry.counts.counted) for entry in model.entries if entry.counts and entry.counts.counted
    ]
    if not rows:
        return None
    columns: list[Column[tuple[Entry, BenchmarkReport, Counted]]] = [
        Column(title="Artifact", cell=lambda r: named(r[0])),
        Column(title="Device", cell=lambda r: f"{r[1].device.name}, {r[1].machine.cpu_model}"),
        Column(title="Instructions", cell=lambda r: f"{r[2].instructions:,.0f}", numeric=True),
        Column(title="Flash, all code", cell=lambda r: format_bytes(r[2].flash_bytes), numeric=True),
        Column(title="RAM, stack too", cell=lambda r: format_bytes(r[2].ram_bytes), numeric=True),
        Column(title="Bits that differ", cell=lambda r: f"{r[2].differing_bits} of {r[2].compared_bits}", numeric=True),
        Column(title="From", cell=lambda r: r[2].reference),
    ]
    note = "Emulated: instructions of one inference are counted, and repeat exactly; they are no cycles and no time."
    return element("div", element("h3", "Emulated boards"), table(columns, rows), element("p", note, css="muted"))
