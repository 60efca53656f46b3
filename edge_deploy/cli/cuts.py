"""`edge-deploy cuts`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, human_bytes, print_json, print_table

__all__ = ["command", "listed"]


def command(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="An artifact's folder, or a .tflite file.")],
    batch: Annotated[int, typer.Option(metavar="SIZE", help="Batch size, where the model leaves it open.")] = 1,
    as_json: AsJson = False,
) -> None:
    """List where a model can be cut between edge and cloud.

    Each line is a prefix of the layers in their order: what crosses there, in the type it has there, and the edge's
    share of the work; or why no cut can be made.
    """
    from edge_deploy.api.cuts import list_cuts

    found = list_cuts(artifact, batch=batch)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            item.cut.id,
            item.after or "(input)",
            listed([f"{tensor.name} {tensor.dtype}" for tensor in item.cut.up]),
            human_bytes(item.cut.up_bytes),
            f"{item.edge_macs / found.macs:.0%}" if found.macs else "",
            human_bytes(item.edge_weight_bytes),
            "; ".join(item.refused) or "yes",
        )
        for item in found.cuts
    ]
    columns = ("cut", "after layer", "what crosses", "bytes up", "MACs on edge", "weights on edge", "legal")
    legal = sum(not item.refused for item in found.cuts)
    print_table(f"{found.artifact} {found.format}: {legal} legal cuts of {len(rows)} positions", columns, rows)


def listed(names: Sequence[str]) -> str:
    """The first two names and how many there are more."""
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
