"""`edge-deploy inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_deploy.cli.output import AsJson, human_bytes, print_json, print_table

if TYPE_CHECKING:
    from edge_deploy.core.tensor import TensorInfo
    from runtimes.gpu_compatibility import GpuCompatibility

__all__ = ["command"]


def command(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A .tflite or .pte file, ours or not, or an artifact.")],
    gpu: Annotated[
        bool,
        typer.Option("--gpu", help="Also ask TensorFlow Lite's analysis which operators its GPU delegate takes."),
    ] = False,
    public_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Ed25519 public key (PEM) that must have signed the artifact's manifest."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a model file really contains.

    Every layer with its storage, bits and kernels, inputs and outputs, whether it loads, and what is wrong with it.
    """
    from edge_deploy.api.inspect import inspect

    report = inspect(path, gpu=gpu, public_key=public_key)
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
                print(f"  {signature.name} {kind} {tensor.name}: {tensor.dtype} {shape}{scale}{_noted(tensor)}")
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
    if report.layers and report.placement:
        print(f"runs on: {report.placement}")
    if report.gpu is not None:
        _print_gpu(report.gpu)
    for problem in report.problems:
        print(f"problem: {problem}")
    for warning in report.warnings:
        print(f"note: {warning}")
    if report.problems or report.loads not in ("yes", "not tried"):
        raise typer.Exit(3)


def _noted(tensor: TensorInfo) -> str:
    """What the file's metadata say of a tensor."""
    parts: list[str] = [tensor.layout or ""]
    if tensor.mean:
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (tensor.mean, tensor.std))
        parts.append(f"takes (pixel - [{mean}]) / [{std}]")
    if tensor.labels:
        parts.append(f"{len(tensor.labels)} class names")
    return "".join(f", {part}" for part in parts if part)


def _print_gpu(found: GpuCompatibility) -> None:
    if found.is_compatible:
        print(f"GPU delegate: takes every operator, by {found.basis}")
        return
    rows = [(refusal.layer, refusal.op, refusal.reason) for refusal in found.refusals]
    print_table(f"GPU delegate: {len(rows)} operators stay on the CPU", ("layer", "operator", "reason"), rows)
    print(f"by {found.basis}")
