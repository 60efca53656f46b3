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
    cpus: Annotated[
        str, typer.Option(metavar="CPUS", help='CPUs to bind workers to: auto, none, or e.g. "0,2-3".')
    ] = "auto",
    gate: Annotated[
        str, typer.Option(metavar="POLICY", help="Before a round on a busy or hot machine: wait, flag, refuse, or off.")
    ] = "flag",
    max_load: Annotated[
        float, typer.Option(metavar="CORES", help="Other work, in cores, from which on the machine is busy.")
    ] = 0.25,
    max_temperature: Annotated[float, typer.Option(metavar="CELSIUS", help="From which on the machine is hot.")] = 80.0,
    fail_if_slower: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="Exit with 8 when the first is shown to be slower than another by more than e.g. 5%; with --against, "
            "when any ARTIFACT is than any of those.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write every report there too, for `edge-deploy compare`.")
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Ed25519 public key (PEM) that must have signed each ARTIFACT."),
    ] = None,
    benchmark_model: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Measure by this benchmark_model binary, built for the device, instead."),
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Print the time of the slowest layers too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure the latency and memory of artifacts.

    They take turns, each in a process of its own; all raw values go to benchmark.json beside the model.
    """
    import sys

    from device_tests.benchmark_model import benchmark_by_binary
    from device_tests.compare import compare, parse_margin
    from device_tests.compare import fail_if_slower as fail
    from device_tests.protocol_gates import Gate
    from edge_deploy.api.benchmark import artifact_folders, benchmark_and_keep
    from edge_deploy.core.errors import BadInput

    margin = None if fail_if_slower is None else parse_margin(fail_if_slower)
    bases = len(artifact_folders(against))
    if margin is not None and bases + len(artifact_folders(artifacts)) < 2:
        raise BadInput("--fail-if-slower: needs a second ARTIFACT, or --against, to compare with.")
    if benchmark_model is not None:
        if against or margin is not None or inputs or backend or signature or kernels != "default":
            raise BadInput(
                "--benchmark-model: goes with --device, --threads, --num-runs, --rounds, --min-seconds, --layers only."
            )
        by_binary = [
            benchmark_by_binary(
                path,
                binary=benchmark_model,
                device=device,
                threads=threads,
                runs=max(1, runs // rounds),
                rounds=rounds,
                min_seconds=min_seconds / max(1, rounds),
                layers=layers,
            )
            for path in artifact_folders(artifacts)
        ]
        print_json({"reports": by_binary}) if as_json else print_benchmarks(by_binary)
        for report in by_binary if layers and not as_json else ():
            print_layers(report)
        return
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
        cpus=cpus,
        gate=Gate(policy=gate, busy_cores=max_load, temperature_c=max_temperature),  # type: ignore[arg-type]  # checked
        out=out,
        public_key=public_key,
        progress=lambda line: print(f"- {line}", file=sys.stderr, flush=True),
    )
    if as_json:
        print_json({"reports": list(reports)})
    else:
        print_benchmarks(reports)
        if layers:
            for report in reports:
                print_layers(report)
    if margin is not None:
        first = len(reports) - bases if bases else 1
        lines = fail([compare(ours, theirs) for ours in reports[:first] for theirs in reports[first:]], margin)
        for line in lines:
            print(line, file=sys.stderr if as_json else sys.stdout)
