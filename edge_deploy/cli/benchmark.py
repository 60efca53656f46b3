"""`edge-deploy benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json
from edge_deploy.cli.tables import print_benchmarks, print_layers

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
    print_benchmarks(reports)
    if layers:
        for report in reports:
            print_layers(report)
