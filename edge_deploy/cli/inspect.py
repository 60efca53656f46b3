"""`edge-deploy inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, human_bytes, print_json, print_table

__all__ = ["command"]


def command(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A .tflite or .pte file, ours or not, or an artifact.")],
    as_json: AsJson = False,
) -> None:
    """Show what a model file really contains.

    Every layer with its storage, bits and kernels, inputs and outputs, whether it loads, and what is wrong with it.
    """
    from edge_deploy.api.inspect import inspect

    report = inspect(path)
    if as_json:
        print_json(report)
        return
    loads = f"{report.loads} ({report.runtime})" if report.runtime else report.loads
    print(f"{report.path}: {report.format}, {human_bytes(report.bytes)}; loads: {loads}")
    stored = ", ".join(f"{kind} {human_bytes(count)}" for kind, count in report.weight_bytes.items())
    print(f"  weights: {stored or 'none'}")
    for signature in report.signatures:
        for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
            for tensor in tensors:
                shape = "x".join(map(str, tensor.shape))
                scale = f", scale {tensor.scale[0]:.6g}, zero point {tensor.zero_point[0]}" if tensor.scale else ""
                print(f"  {signature.name} {kind} {tensor.name}: {tensor.dtype} {shape}{scale}")
    rows = [
        (
            fact.layer,
            fact.op,
            fact.weight_dtype or "",
            f"{fact.weight_bits:g}" if fact.weight_count else "",
            fact.granularity if fact.weight_count else "",
            human_bytes(fact.weight_bytes) if fact.weight_count else "",
            fact.activation_dtype,
            fact.runs_on,
        )
        for fact in report.layers
    ]
    columns = ("layer", "operator", "weights", "bits each", "scales", "bytes", "activations", "runs on")
    print_table(f"{len(report.layers)} layers", columns, rows)
    for problem in report.problems:
        print(f"problem: {problem}")
    for warning in report.warnings:
        print(f"note: {warning}")
    if report.problems or report.loads not in ("yes", "not tried"):
        raise typer.Exit(3)
