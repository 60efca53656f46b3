"""`edge-deploy replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json

__all__ = ["command"]


def command(
    record: Annotated[Path, typer.Argument(metavar="JSONL", help="What `edge-deploy run --record` wrote.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for trace.json and report.html.")],
    policy: Annotated[
        str, typer.Option(metavar="NAMES", help="Policies to simulate beside the run, with commas.")
    ] = "always-best,hysteresis",
    force: Annotated[bool, typer.Option("--force", help="Replace DIR if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at a run that was recorded.

    Writes a trace with lanes for edge, wire and cloud (open it in Perfetto or chrome://tracing), and the simulator's
    page, with the run beside policies and oracles on the conditions that it measured.

    \b
    Example:
      edge-deploy replay run.jsonl --out build/run
    """
    from edge_deploy.api.replay import replay

    found = replay(record, out, policies=[name.strip() for name in policy.split(",") if name.strip()], force=force)
    if as_json:
        print_json(found)
        return
    for score in found.compared.scores:
        milliseconds = f"mean {score.mean_s * 1e3:.3g} ms, p95 {score.p95_s * 1e3:.3g} ms"
        print(f"{score.name}: {milliseconds}, {score.switches} switches, {score.fallbacks} fallbacks")
    print(f"written: {found.folder}")
