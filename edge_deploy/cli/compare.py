"""`edge-deploy compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json

__all__ = ["command"]


def command(
    report: Annotated[Path, typer.Argument(metavar="A", help="A report of `benchmark`, or the folder it measured.")],
    base: Annotated[Path, typer.Argument(metavar="B", help="The report to compare with.")],
    allow: Annotated[
        list[str],
        typer.Option(metavar="ASPECT", help="Compare although this differs, e.g. runtime. Repeatable."),
    ] = [],  # noqa: B006
    fail_if_slower: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="Exit with 8 when A is shown to be slower by more than e.g. 5%."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether A is faster than B, or that this is open.

    Reports of another device, machine, runtime, number of threads, batch or inputs are refused by name.
    """
    import sys

    from device_tests.compare import compare, parse_margin
    from device_tests.compare import fail_if_slower as fail
    from edge_deploy.api.benchmark import read_report

    margin = None if fail_if_slower is None else parse_margin(fail_if_slower)
    found = compare(read_report(report), read_report(base), allow=allow)
    if as_json:
        print_json(
            {
                "ratio": found.ratio,
                "verdict": found.verdict(margin=margin or 0.0),
                "interleaved": found.interleaved,
                "allowed": found.allowed,
            }
        )
    else:
        print(found)
        for name in found.allowed:
            print(f"note: other {name}, as allowed")
    if margin is not None:
        for line in fail([found], margin):
            print(line, file=sys.stderr if as_json else sys.stdout)
