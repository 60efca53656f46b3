"""`edge-deploy bench-suite`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json, print_table

if TYPE_CHECKING:
    from device_tests.tasks.run import SuiteResult

__all__ = ["command"]


def command(
    suite: Annotated[
        str, typer.Argument(metavar="SUITE", help="tiny, recommender or all; a task that `list` shows; a task's .toml.")
    ],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder that holds the tasks' data, e.g. DIR/ic01.")],
    artifact: Annotated[
        list[str],
        typer.Option(
            metavar="[TASK=]PATH",
            help="Artifact folder, folder of them, or model file. Repeatable; default: all models below DIR that fit.",
        ),
    ] = [],  # noqa: B006
    device: Annotated[str, typer.Option(metavar="DEVICE", help="Where to run; see `edge-deploy list`.")] = "host",
    backend: Annotated[
        list[str], typer.Option(metavar="RUNTIME", help="Runtime instead of the file's own. Repeatable: a row each.")
    ] = [],  # noqa: B006
    kernels: Annotated[str, typer.Option(metavar="SET", help="Kernels of LiteRT: default, builtin or reference.")] = (
        "default"
    ),
    threads: Annotated[int, typer.Option(metavar="N", help="Threads of the runtime.")] = 1,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="Items of each task; default: all, on emulated devices 50.")
    ] = None,
    part: Annotated[
        str, typer.Option(metavar="PART", help="all, or evaluate: without the fifth that calibration may have seen.")
    ] = "all",
    min_seconds: Annotated[float, typer.Option(metavar="SECONDS", help="Measure each row's latency that long.")] = 1.0,
    rounds: Annotated[int, typer.Option(metavar="N", help="Rounds of the latency measurement.")] = 6,
    cpus: Annotated[str, typer.Option(metavar="CPUS", help='CPUs to bind to: auto, none, or e.g. "0,2-3".')] = "auto",
    gate: Annotated[
        str, typer.Option(metavar="POLICY", help="On a busy or hot machine: wait, flag, refuse, or off.")
    ] = "flag",
    check: Annotated[bool, typer.Option("--check", help="Exit with 8 when a floor is missed.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the result as JSON.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure quality, p90 and memory on a suite of tasks.

    The tasks and their data formats are those of MLPerf Tiny; the results are ours and no MLPerf results.
    """
    import sys

    from device_tests.protocol_gates import Gate
    from device_tests.tasks.run import SuiteOptions
    from edge_deploy.api.bench_suite import bench_suite
    from edge_deploy.core.errors import BadInput, VerificationFailed, error_from_json

    if part not in ("all", "evaluate"):
        raise BadInput(f"--part {part}: must be all or evaluate.")
    options = SuiteOptions(
        backends=tuple(backend) or (None,),
        kernels=kernels,
        threads=threads,
        limit=limit,
        part=part,  # type: ignore[arg-type]  # checked above
        min_seconds=min_seconds,
        rounds=rounds,
        cpus=cpus,
        gate=Gate(policy=gate),  # type: ignore[arg-type]  # checked there
    )
    result = bench_suite(
        suite,
        data,
        artifacts=artifact,
        device=device,
        options=options,
        out=out,
        progress=lambda line: print(f"- {line}", file=sys.stderr, flush=True),
    )
    if as_json:
        print_json(result)
    else:
        _print(result)
    if result.failed and len(result.failed) == len(result.rows):
        # Nothing but failures: the command fails as the first of them did.
        problems = list(dict.fromkeys(row.problem for row in result.failed))
        raise error_from_json({"class": result.failed[0].problem_kind, "problems": problems, "refusals": []})
    if check and (result.missed or result.failed):
        told = [
            f"{row.task}: {row.model} {row.precision}: {row.problem or 'below the floor'}"
            for row in (*result.missed, *result.failed)
        ]
        raise VerificationFailed(*told)


def _print(result: SuiteResult) -> None:
    from edge_deploy.report.suite_table import SUITE_COLUMNS, suite_cells

    first = result.rows[0]
    print_table(f"{first.provenance} on {first.device}", SUITE_COLUMNS, [suite_cells(row) for row in result.rows])
    for row in result.rows:
        if row.quality is not None and row.quality.parts:
            parts = ", ".join(f"{name} {value:.3f}" for name, value in row.quality.parts.items())
            print(f"{row.task} {row.model} {row.precision}: {row.quality.metric} by group: {parts}")
    told: dict[str, list[str]] = {}
    for row in result.rows:
        for note in row.notes:
            told.setdefault(note, []).append(f"{row.task} {row.model} {row.precision}".strip())
    for note, rows in told.items():
        print(f"note ({'all' if len(rows) == len(result.rows) else '; '.join(rows)}): {note}")
    for line in result.skipped:
        print(f"skipped: {line}")
