"""The limits that plans and simulations keep, as options that both commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from partitioner.constraints import Constraints

__all__ = [
    "AccuracyDrops",
    "CodecMeasured",
    "KeepOffEdge",
    "KeepOnEdge",
    "MaxAccuracyDrop",
    "MaxBytes",
    "MaxEdgeMemory",
    "MaxLatency",
    "Private",
    "constraints",
]

MaxLatency = Annotated[str | None, typer.Option(metavar="TIME", help="Most for one request, e.g. 100ms.")]
MaxEdgeMemory = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Most weights and activations on the edge, e.g. 512KiB.")
]
MaxBytes = Annotated[str | None, typer.Option(metavar="SIZE", help="Most bytes of a request over the link, both ways.")]
KeepOnEdge = Annotated[
    list[str], typer.Option(metavar="LAYER", help="Must run on the edge, e.g. for privacy. Repeatable.")
]
KeepOffEdge = Annotated[list[str], typer.Option(metavar="LAYER", help="Must run in the cloud. Repeatable.")]
Private = Annotated[
    list[str],
    typer.Option(metavar="INPUT", help="Input that must not leave the edge, nor ids made of it. Repeatable."),
]
MaxAccuracyDrop = Annotated[
    float | None,
    typer.Option(metavar="DROP", help="Most that a lossy codec may cost; cuts where it was not measured are out."),
]
AccuracyDrops = Annotated[
    list[str], typer.Option(metavar="CUT=DROP", help="What the codec was measured to cost at a cut. Repeatable.")
]
CodecMeasured = Annotated[
    Path | None, typer.Option(metavar="FILE", help="What `edge-deploy codecs --out` wrote: bytes and losses by cut.")
]


def constraints(
    *,
    max_latency: str | None,
    max_edge_memory: str | None,
    max_bytes: str | None,
    keep_on_edge: Sequence[str],
    keep_off_edge: Sequence[str],
    private: Sequence[str] = (),
    max_accuracy_drop: float | None,
    accuracy_drop: Sequence[str],
) -> Constraints:
    """What the options say.

    Raises:
        BadInput: A size, a time or a pair cannot be read.
    """
    from edge_deploy.cli.pairs import numbers
    from edge_deploy.core.units import parse_bytes, parse_seconds
    from partitioner.constraints import Constraints

    return Constraints(
        max_latency_s=None if max_latency is None else parse_seconds(max_latency, where="--max-latency"),
        max_edge_bytes=None if max_edge_memory is None else parse_bytes(max_edge_memory, where="--max-edge-memory"),
        max_bytes=None if max_bytes is None else parse_bytes(max_bytes, where="--max-bytes"),
        keep_on_edge=tuple(keep_on_edge),
        keep_off_edge=tuple(keep_off_edge),
        private=tuple(private),
        max_accuracy_drop=max_accuracy_drop,
        accuracy_drop=numbers(accuracy_drop, "--accuracy-drop"),
    )
