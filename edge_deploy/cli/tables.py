"""The tables that several commands print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_deploy.cli.output import human_bytes, print_table

if TYPE_CHECKING:
    from edge_deploy.core.artifact import Artifact
    from edge_deploy.core.benchmark import BenchmarkReport

__all__ = ["print_artifacts", "print_benchmarks", "print_layers"]


def print_artifacts(title: str, artifacts: Sequence[Artifact]) -> None:
    """One line an artifact: size, agreement with its source, metric, verdict; then what the user should know."""
    rows = [_row(artifact) for artifact in artifacts]
    columns = ("artifact", "size", "SNR dB", "top-1 agreement", "metric float -> artifact", "layers", "verdict")
    print_table(title, columns, rows)
    told: dict[str, list[Artifact]] = {}
    for artifact in artifacts:
        for warning in artifact.warnings:
            told.setdefault(warning, []).append(artifact)
    for warning, concerned in told.items():
        print(f"note ({_whom(concerned, artifacts)}): {warning}")


def _whom(concerned: Sequence[Artifact], all_of_them: Sequence[Artifact]) -> str:
    """The artifacts that a note is about, in as few words as tell them."""
    words = []
    for name in dict.fromkeys(artifact.name for artifact in concerned):
        mine = [f"{artifact.format} {artifact.spec.name}" for artifact in concerned if artifact.name == name]
        everyone = len(mine) == sum(artifact.name == name for artifact in all_of_them)
        words.append(name if everyone else f"{name} {', '.join(mine)}")
    return "; ".join(words)


def _row(artifact: Artifact) -> tuple[str, ...]:
    comparison = artifact.verification.comparisons[0] if artifact.verification.comparisons else None
    agreement = comparison.top1_agreement if comparison is not None else None
    likeness = "not run" if comparison is None else f"{comparison.snr_db:.1f}"
    metric = ""
    if artifact.verification.differences:
        found = artifact.verification.differences[0]
        metric = (
            f"{found.metric} {found.source:.4f} -> {found.artifact:.4f} "
            f"({found.difference:+.4f}, 95 % {found.low:+.4f} to {found.high:+.4f})"
        )
    changed = sum(not outcome.is_as_asked for outcome in artifact.outcomes)
    layers = f"{len(artifact.outcomes)}" + (f", {changed} not as asked" if changed else "")
    return (
        f"{artifact.name} {artifact.format} {artifact.spec.name}",
        human_bytes(artifact.device_bytes),
        "identical" if comparison is not None and comparison.snr_db >= 999 else likeness,
        "" if agreement is None else f"{agreement:.1%}",
        metric,
        layers,
        artifact.verification.verdict,
    )


def print_benchmarks(reports: Sequence[BenchmarkReport]) -> None:
    """One line a report, each compared with the first, which it took turns with."""
    from edge_deploy.core.benchmark import median_interval, percentiles, ratio

    counted = [report for report in reports if report.counted is not None]
    if counted:
        _print_counts(counted)
        return
    first, rows = reports[0], []
    for report in reports:
        stats = percentiles(report)
        compared = ""
        if report is not first:
            found = ratio(report, first)
            compared = f"{found.median:.2f}x ({found.low:.2f} to {found.high:.2f})"
            compared += "" if found.resolved else ", difference not resolved"
        low, high = median_interval(report)
        rows.append(
            (
                f"{report.artifact} {report.format} {report.recipe}".strip(),
                human_bytes(report.model_bytes),
                f"{stats.p50_s * 1e6:.1f} ({low * 1e6:.1f} to {high * 1e6:.1f})",
                f"{stats.p10_s * 1e6:.1f} to {stats.p90_s * 1e6:.1f}",
                compared,
                human_bytes(report.peak_rss_bytes) + _kinds(report),
                report.conditions.kernels,
            )
        )
    columns = ("artifact", "size", "p50 us (95 %)", "p10 to p90 us", "latency over the first", "peak memory", "kernels")
    title = (
        f"{first.provenance} on {first.device.name} ({first.machine.cpu_model}), {first.conditions.threads} thread(s)"
    )
    print_table(title, columns, rows)
    for note in dict.fromkeys(note for report in reports for note in report.notes):
        print(f"note: {note}")


def _kinds(report: BenchmarkReport) -> str:
    """Anonymous memory cannot be taken back, mapped files can."""
    peak = report.memory_peak
    if peak is None:
        return ""
    return f" ({human_bytes(peak.anonymous_bytes)} anonymous, {human_bytes(peak.mapped_bytes)} mapped)"


def _print_counts(reports: Sequence[BenchmarkReport]) -> None:
    """Instructions in place of times, and whether every bit is the reference's."""
    rows = []
    for report in reports:
        found = report.counted
        assert found is not None
        rows.append(
            (
                f"{report.artifact} {report.format} {report.recipe}".strip(),
                f"{found.instructions:,.0f}",
                human_bytes(found.flash_bytes),
                human_bytes(found.ram_bytes),
                f"{found.differing_bits} of {found.compared_bits}",
                found.reference,
            )
        )
    first = reports[0]
    title = f"{first.provenance} on {first.device.name} ({first.machine.cpu_model}): instructions, no times"
    columns = ("artifact", "instructions", "flash, all code", "RAM, stack too", "bits that differ", "from")
    print_table(title, columns, rows)


def print_layers(report: BenchmarkReport) -> None:
    """The slowest layers; of a device that counts, the functions with the most instructions."""
    if report.counted is not None:
        most = [(name, f"{count:,.0f}") for name, count in list(report.counted.by_function.items())[:15]]
        print_table(f"{report.artifact} {report.format} {report.recipe}: functions", ("function", "instructions"), most)
        return
    if report.layer_source == "none":
        print(f"{report.artifact} {report.format} {report.recipe}: this runtime gave no times per layer")
        return
    slowest = sorted(report.layer_s.items(), key=lambda item: -item[1])[:15]
    rows = [(name, f"{seconds * 1e6:.1f}") for name, seconds in slowest]
    print_table(f"{report.artifact} {report.format} {report.recipe}: slowest layers", ("layer", "us"), rows)
