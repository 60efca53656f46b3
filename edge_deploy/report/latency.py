"""Latency in detail: the distribution, memory, conditions, and the slowest operators."""

from __future__ import annotations

from edge_deploy.core.benchmark import BenchmarkReport, percentiles
from edge_deploy.core.units import format_bytes, format_seconds
from edge_deploy.report.bars import bar
from edge_deploy.report.collect import Entry, Model
from edge_deploy.report.look import named
from edge_deploy.report.markup import Markup, element
from edge_deploy.report.tables import Column, facts, table

__all__ = ["latency_section"]

SLOWEST = 12


def latency_section(model: Model) -> Markup | None:
    """None where nothing was measured."""
    measured = [(entry, entry.benchmark) for entry in model.entries if entry.benchmark]
    if not measured:
        return None
    columns: list[Column[tuple[Entry, BenchmarkReport]]] = [
        Column(title="Artifact", cell=lambda r: named(r[0])),
        *(_statistic(name) for name in ("min", "p10", "p50", "p90", "p99", "max", "mean", "std")),
        Column(title="Runs", cell=lambda r: f"{percentiles(r[1]).runs}", numeric=True),
        Column(title="Import and load", cell=lambda r: format_seconds(r[1].load_s), numeric=True),
        Column(title="Peak memory", cell=lambda r: format_bytes(r[1].peak_rss_bytes), numeric=True),
        Column(title="of it before loading", cell=lambda r: format_bytes(r[1].base_rss_bytes), numeric=True),
        Column(title="Kernels", cell=lambda r: r[1].conditions.kernels),
    ]
    operators = [_slowest(entry, report) for entry, report in measured if report.layer_s]
    return element(
        "div",
        element("h3", "Latency in detail"),
        table(columns, measured),
        _conditions([report for _, report in measured]),
        operators,
    )


def _statistic(name: str) -> Column[tuple[Entry, BenchmarkReport]]:
    return Column(title=name, cell=lambda row: format_seconds(getattr(percentiles(row[1]), f"{name}_s")), numeric=True)


def _conditions(reports: list[BenchmarkReport]) -> Markup:
    """What the reports have in common in one line each; several values where they differ."""

    def each(values: list[str]) -> str:
        return "; ".join(dict.fromkeys(value for value in values if value)) or "not known"

    pairs = [
        ("how", each([f"{r.provenance} on {r.device.name} ({r.device.kind})" for r in reports])),
        ("processor", each([f"{r.machine.cpu_model}, {r.machine.isa}, {r.machine.cores} cores" for r in reports])),
        ("extensions", each([", ".join(r.machine.features) for r in reports])),
        ("system", each([r.machine.kernel for r in reports])),
        ("governor", each([r.machine.governor or "" for r in reports])),
        ("load average", each([_load(r) for r in reports])),
        ("threads, batch", each([f"{r.conditions.threads}, {r.conditions.batch}" for r in reports])),
        ("inputs", each([f"{r.conditions.inputs}, {r.conditions.input_sets} sets in turn" for r in reports])),
        ("rounds", each([f"{len(r.rounds_s)}, taken in turns, new random order each" for r in reports])),
        ("notes", each([note for r in reports for note in r.notes]) if any(r.notes for r in reports) else ""),
    ]
    return facts([(name, value) for name, value in pairs if value])


def _load(report: BenchmarkReport) -> str:
    before, after = report.load_average_before, report.load_average_after
    return f"{before[0]:.2f} before, {after[0]:.2f} after" if before and after else ""


def _slowest(entry: Entry, report: BenchmarkReport) -> Markup:
    total = sum(report.layer_s.values()) or 1.0
    slowest = sorted(report.layer_s.items(), key=lambda item: item[1], reverse=True)
    columns: list[Column[tuple[str, float]]] = [
        Column(title="Operator", cell=lambda r: r[0]),
        Column(title="Time", cell=lambda r: format_seconds(r[1]), numeric=True),
        Column(title="Share", cell=lambda r: bar(r[1] / total, f"{100 * r[1] / total:.1f} %")),
    ]
    shown = f"slowest {min(SLOWEST, len(slowest))} of {len(slowest)} operators, by the runtime's profiler"
    summary = element("summary", named(entry), " ", element("span", shown, css="muted"))
    return element("details", summary, table(columns, slowest[:SLOWEST], css="layers"))
