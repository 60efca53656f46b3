"""`edge-deploy benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_deploy.cli.output import AsJson, human_bytes, print_json, print_table

if TYPE_CHECKING:
    from edge_deploy.core.benchmark import BenchmarkReport

__all__ = ["command"]


def command(
    artifacts: Annotated[list[Path], typer.Argument(help="Artifact folders, folders of them, or bare model files.")],
    against: Annotated[list[Path], typer.Option(help="Compare with these, interleaved. May repeat.")] = [],  # noqa: B006
    device: Annotated[str, typer.Option(help="Device name or TOML file.")] = "host",
    threads: Annotated[int, typer.Option(help="Threads of the runtime.")] = 1,
    backend: Annotated[str | None, typer.Option(help="Runtime; default: the one of the file's type.")] = None,
    signature: Annotated[str | None, typer.Option(help="Signature (batch size) to run.")] = None,
    kernels: Annotated[str, typer.Option(help="default, builtin or reference.")] = "default",
    inputs: Annotated[Path | None, typer.Option(help="npz of inputs; default: random ones that fit.")] = None,
    min_seconds: Annotated[float, typer.Option(help="Measured time to aim at for each artifact.")] = 1.0,
    runs: Annotated[int, typer.Option("--num-runs", help="Least number of raw values for each artifact.")] = 60,
    rounds: Annotated[int, typer.Option(help="Turns that the artifacts take.")] = 12,
    seed: Annotated[int, typer.Option(help="Of the random inputs and of the order.")] = 0,
    layers: Annotated[bool, typer.Option("--layers", help="Show the slowest layers too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure latency and memory on this machine; artifacts take turns, raw values go to benchmark.json."""
    import sys

    from edge_deploy.api.benchmark import benchmark_and_keep

    reports = benchmark_and_keep(
        artifacts,
        against=against,
        device=device,
        threads=threads,
        backend=backend,
        signature=signature,
        kernels=kernels,
        inputs=inputs,
        min_seconds=min_seconds,
        runs=runs,
        rounds=rounds,
        seed=seed,
        progress=lambda line: print(f"- {line}", file=sys.stderr, flush=True),
    )
    if as_json:
        print_json({"reports": list(reports)})
        return
    _print(reports)
    if layers:
        for report in reports:
            _print_layers(report)


def _print(reports: tuple[BenchmarkReport, ...]) -> None:
    from edge_deploy.core.benchmark import percentiles, ratio

    first, rows = reports[0], []
    for report in reports:
        stats = percentiles(report)
        compared = ""
        if report is not first:
            found = ratio(report, first)
            compared = f"{found.median:.2f}x ({found.low:.2f} to {found.high:.2f})"
            compared += "" if found.resolved else ", not resolved"
        rows.append(
            (
                f"{report.artifact} {report.format} {report.recipe}".strip(),
                human_bytes(report.model_bytes),
                f"{stats.p50_s * 1e6:.1f}",
                f"{stats.p10_s * 1e6:.1f} to {stats.p90_s * 1e6:.1f}",
                compared,
                human_bytes(report.peak_rss_bytes),
                report.conditions.kernels,
            )
        )
    columns = ("artifact", "size", "p50 us", "p10 to p90 us", "latency over the first", "peak memory", "kernels")
    title = (
        f"{first.provenance} on {first.device.name} ({first.machine.cpu_model}), {first.conditions.threads} thread(s)"
    )
    print_table(title, columns, rows)


def _print_layers(report: BenchmarkReport) -> None:
    if report.layer_source == "none":
        print(f"{report.artifact} {report.format} {report.recipe}: this runtime gave no times per layer")
        return
    slowest = sorted(report.layer_s.items(), key=lambda item: -item[1])[:15]
    rows = [(name, f"{seconds * 1e6:.1f}") for name, seconds in slowest]
    print_table(f"{report.artifact} {report.format} {report.recipe}: slowest layers", ("layer", "us"), rows)
