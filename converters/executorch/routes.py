"""From a float exported program and a choice for each layer to the quantized exported program.

CNNs get static activations. Programs with tables get dynamic linears, as recognised recommenders do: products of
look-ups have ranges that no per-tensor scale serves well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from converters.compress.trained_layers import usable_layers
from converters.contracts import LowerRequest
from converters.executorch.calibration import Samples
from converters.executorch.dynamic_linears import quantize_dynamic
from converters.executorch.embeddings import quantize_embeddings
from converters.executorch.odd_linear import pad_odd_linears
from converters.executorch.pointwise import pointwise_to_linear
from converters.executorch.program import example_inputs, export, tidy
from converters.executorch.quantize import INT4_PACKED, INT4_STORED, quantize
from converters.executorch.shared_weights import unshare
from converters.executorch.subsample import subsample_by_convolution
from converters.executorch.widths import Choice
from edge_deploy.core.tensor import TensorInfo

__all__ = ["Quantized", "is_dynamic", "quantize_program"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """The quantized program.

    Attributes:
        inputs: What it takes, and `outputs` what it gives.
        stored4: Layers whose 4-bit weights live beside the program.
        shared: Layers whose weights are a copy, and the layer that had them first.
    """

    program: Any
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    stored4: tuple[str, ...]
    shared: dict[str, str]


_BITS = {"float32": 32, "int8": 8, INT4_PACKED: 4}


def is_dynamic(request: LowerRequest) -> bool:
    """Whether linears quantize their inputs on the fly, so that no calibration is needed."""
    is_recommender = request.captured.kind == "recommender" and request.spec.io == "float"
    return is_recommender or not request.spec.needs_ranges


def quantize_program(program: Any, choices: Sequence[Choice], request: LowerRequest) -> Quantized:
    """Calibrate, where the route needs it, and convert `program`.

    Raises:
        BadInput: The calibration data cannot be used.
        Unsupported: An input or output cannot be int8.
        ToolchainError: PT2E or torch.export fails.
    """
    from converters.executorch.io_int8 import strip_float_border

    captured, spec = request.captured, request.spec
    widths = {choice.layer.name: choice.width for choice in choices}
    packed = {name for name, width in widths.items() if width == INT4_PACKED}
    tables = {choice.layer.name: _BITS[choice.width] for choice in choices if choice.layer.kind == "embedding"}
    tables = {name: bits for name, bits in tables.items() if bits < 32}
    graph = program.module(check_guards=False)
    changed, shared = unshare(graph)
    changed += pointwise_to_linear(graph, packed) + pad_odd_linears(graph, packed)
    if not is_dynamic(request):
        changed += subsample_by_convolution(graph)
    changed += quantize_embeddings(graph, tables, spec.table_scale)
    if changed:
        tidy(graph)
        graph = export(graph, captured.inputs, captured.batches).module(check_guards=False)
    if is_dynamic(request):
        linears = {choice.layer.name: _BITS[choice.width] for choice in choices if choice.layer.kind == "linear"}
        converted = quantize_dynamic(graph, linears, example_inputs(captured.inputs, captured.batches))
        tidy(converted)
        made = export(converted, captured.inputs, captured.batches)
        return Quantized(program=made, inputs=captured.inputs, outputs=captured.outputs, stored4=(), shared=shared)
    assert request.calibration is not None
    batch = int(example_inputs(captured.inputs, captured.batches)[0].shape[0])
    samples = Samples(path=request.calibration, inputs=captured.inputs, batch=batch)
    converted = quantize(graph, widths, samples, spec, trained=usable_layers(captured.folder, spec))
    stored4 = tuple(name for name, width in widths.items() if width == INT4_STORED)
    inputs, outputs = captured.inputs, captured.outputs
    if spec.io == "int8":
        inputs, outputs = strip_float_border(converted, inputs, outputs)
    tidy(converted)
    return Quantized(
        program=export(converted, inputs, captured.batches),
        inputs=inputs,
        outputs=outputs,
        stored4=stored4,
        shared=shared,
    )
