"""`edge-deploy benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json
from edge_deploy.cli.tables import print_benchmarks, print_layers

__all__ = ["command"]


def command(
    artifacts: Annotated[
        list[Path], typer.Argument(metavar="ARTIFACT", help="Artifact folders, folders of them, or model files.")
    ],
    against: Annotated[
        list[Path],
        typer.Option(metavar="ARTIFACT", help="Compare with this one, measured in turns with the others. Repeatable."),
    ] = [],  # noqa: B006
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Where to run: a device that `edge-deploy list` shows, or a .toml file.")
    ] = "host",
    threads: Annotated[int, typer.Option(metavar="N", help="Threads of the runtime.")] = 1,
    backend: Annotated[
        str | None,
        typer.Option(metavar="RUNTIME", help="A runtime that `edge-deploy list` shows; default: by the file's type."),
    ] = None,
    kernels: Annotated[
        str,
        typer.Option(metavar="SET", help="Kernels of LiteRT: default (XNNPACK and builtin), builtin or reference."),
    ] = "default",
    signature: Annotated[
        str | None, typer.Option(metavar="NAME", help="Signature to call, e.g. batch_64; default: the first.")
    ] = None,
    inputs: Annotated[
        Path | None, typer.Option(metavar="FILE", help=".npz of inputs by name; default: random ones that fit.")
    ] = None,
    min_seconds: Annotated[
        float, typer.Option(metavar="SECONDS", help="Measure each artifact for that long, in all rounds together.")
    ] = 1.0,
    runs: Annotated[
        int, typer.Option("--num-runs", metavar="N", help="Keep at least N values of each, in all rounds together.")
    ] = 60,
    rounds: Annotated[
        int, typer.Option(metavar="N", help="Turns that artifacts take; --against needs at least 6.")
    ] = 12,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the random inputs and of the order of turns.")] = 0,
    public_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Ed25519 public key (PEM) that must have signed each ARTIFACT."),
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Print the time of the slowest layers too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure the latency and memory of artifacts.

    They take turns, each in a process of its own; all raw values go to benchmark.json beside the model.
    """
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
        public_key=public_key,
        progress=lambda line: print(f"- {line}", file=sys.stderr, flush=True),
    )
    if as_json:
        print_json({"reports": list(reports)})
        return
    print_benchmarks(reports)
    if layers:
        for report in reports:
            print_layers(report)
