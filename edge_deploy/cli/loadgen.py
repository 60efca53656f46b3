"""`edge-deploy loadgen`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json

if TYPE_CHECKING:
    from device_tests.loadgen import LoadGenReport
    from device_tests.tasks.quality import Quality

__all__ = ["command"]


def command(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="An artifact folder, or a model file.")],
    scenario: Annotated[
        str, typer.Option(metavar="NAME", help="single-stream, multi-stream, server or offline.")
    ] = "single-stream",
    mode: Annotated[
        str, typer.Option(metavar="MODE", help="performance, or accuracy: every sample once, judged by its label.")
    ] = "performance",
    length: Annotated[
        str, typer.Option(metavar="LENGTH", help="normal (at least 60 s), quick (10 s) or rapid (6 s).")
    ] = "normal",
    qps: Annotated[
        float | None, typer.Option(metavar="RATE", help="Server: queries a second; default: search the highest.")
    ] = None,
    latency_limit: Annotated[
        str, typer.Option(metavar="TIME", help="Server: what 99 % of the queries must be answered within.")
    ] = "100ms",
    task: Annotated[
        str | None, typer.Option(metavar="TASK", help="Take a task's samples, e.g. keyword-spotting, from --data.")
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder that holds the task's data.")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Take that many items of the task.")] = None,
    inputs: Annotated[
        Path | None, typer.Option(metavar="FILE", help=".npz of inputs by name; default: random ones that fit.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="Where to run; see `edge-deploy list`.")] = "host",
    threads: Annotated[int, typer.Option(metavar="N", help="Threads of the runtime.")] = 1,
    backend: Annotated[str | None, typer.Option(metavar="RUNTIME", help="A runtime that `list` shows.")] = None,
    kernels: Annotated[str, typer.Option(metavar="SET", help="Kernels of LiteRT: default, builtin or reference.")] = (
        "default"
    ),
    signature: Annotated[str | None, typer.Option(metavar="NAME", help="Signature to call, e.g. batch_64.")] = None,
    cpus: Annotated[str, typer.Option(metavar="CPUS", help='CPUs to bind to: auto, none, or e.g. "0,2-3".')] = "auto",
    seed: Annotated[int, typer.Option(metavar="N", help="Of the choice of samples and of arrival times.")] = 0,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the logs and loadgen.json go.")] = Path("loadgen"),
    as_json: AsJson = False,
) -> None:
    """Measure an artifact with MLCommons' LoadGen.

    Its summary and detail logs stand beside loadgen.json.

    These are LoadGen results of your own, and no MLPerf results.
    """
    import sys

    from device_tests.loadgen_settings import SCENARIOS
    from edge_deploy.api.loadgen import loadgen
    from edge_deploy.core.errors import BadInput
    from edge_deploy.core.units import parse_seconds

    problems = [
        f"--{name} {given}: must be one of {', '.join(known)}."
        for name, given, known in (("scenario", scenario, SCENARIOS), ("mode", mode, ("performance", "accuracy")))
        if given not in known
    ]
    if problems:
        raise BadInput(*problems)
    report, quality = loadgen(
        artifact,
        out=out,
        scenario=scenario,  # type: ignore[arg-type]  # checked above
        mode=mode,  # type: ignore[arg-type]  # likewise
        length=length,
        qps=qps,
        latency_limit_s=parse_seconds(latency_limit, where="--latency-limit"),
        task=task,
        data=data,
        limit=limit,
        inputs=inputs,
        device=device,
        threads=threads,
        backend=backend,
        signature=signature,
        kernels=kernels,
        cpus=cpus,
        seed=seed,
        progress=lambda line: print(f"- {line}", file=sys.stderr, flush=True),
    )
    if as_json:
        print_json({"report": report, "quality": quality})
    else:
        _print(report, quality, out)


def _print(report: LoadGenReport, quality: Quality | None, out: Path) -> None:
    from edge_deploy.core.units import format_seconds

    name = f"{report.artifact} {report.format} {report.recipe}".strip()
    what = f"LoadGen {report.settings.scenario}, {report.settings.mode}"
    print(f"{what}: {name} on {report.device.name} ({report.provenance}), {report.conditions.kernels}")
    label, value = report.headline()
    shown = format_seconds(value) if label.endswith(", s") else f"{value:.6g}"
    print(f"  {label.removesuffix(', s')}: {shown}, {'valid' if report.valid else 'NOT VALID'}")
    own = report.own_estimate_s()
    if own is not None:
        print(f"  the same computed from the raw latencies: {format_seconds(own)}")
    for key in ("result_invalid_reason", "early_stopping_result"):
        text = str(report.results.get(key, "")).strip()
        for line in text.splitlines() if not report.valid or key.startswith("early") else ():
            print(f"  {line.strip()}")
    for error in report.results.get("errors", ()):
        print(f"  error: {error}")
    if quality is not None:
        floor = "" if quality.floor is None else f", floor {quality.floor:g} {quality.verdict}"
        print(
            f"  {quality.metric} {quality.value:.4f} (95 % {quality.low:.4f} to {quality.high:.4f}) on {quality.items} "
            f"items{floor}"
        )
    for note in report.notes:
        print(f"note: {note}")
    print(f"logs in {out}")
