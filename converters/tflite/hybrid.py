"""Generic graphs with tables, for phones: quantized rows, dynamic-INT8 layers, everything between in float."""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.quantize.scale_search import weight_scales
from converters.quantize.uniform import quantize_symmetric
from converters.support import lookup
from converters.tflite.compact import compact
from converters.tflite.flatbuffer import add_opcode, set_affine, set_constant, tensor_name
from converters.tflite.lookups import TableStore, cannot_be_table, is_lookup, rewrite_lookup
from converters.tflite.operators import OPERATORS
from converters.tflite.plan import Choice
from converters.tflite.pool_pads import is_lowest_pad
from converters.tflite.structure import Node, View, views
from edge_deploy.core.errors import BadInput, Refusal, Unsupported
from edge_deploy.core.quant_spec import QuantSpec

__all__ = ["choose_hybrid", "choose_tables", "has_tables", "quantize_hybrid"]

# Versions whose kernels take per-channel INT8 weights under float activations.
HYBRID_VERSIONS = {"FULLY_CONNECTED": 12, "CONV_2D": 5, "DEPTHWISE_CONV_2D": 6}
# A stored float operand of at least this many values is weights in all but name and must not stay float unnoticed.
LARGE_CONSTANT = 1024


def has_tables(model: Any) -> bool:
    """Whether the float model looks rows up in a stored table."""
    return any(is_lookup(view, node) for view in views(model) for node in view.nodes)


def choose_tables(graphs: tuple[View, ...], spec: QuantSpec) -> dict[tuple[int, int], Choice]:
    """Width of the tables alone, for a graph whose other layers become full-integer afterwards.

    Raises:
        Unsupported, BadInput: As `choose_hybrid`.
    """
    return _choose(graphs, spec, tables_only=True)


def choose_hybrid(graphs: tuple[View, ...], spec: QuantSpec) -> dict[tuple[int, int], Choice]:
    """Width of every layer with weights: tables at `weight_bits`, the others at `mlp_bits`.

    Raises:
        Unsupported: Layers that cannot become what was asked and may not fall back, each by name.
        BadInput: Weights hold NaN or infinity.
    """
    return _choose(graphs, spec, tables_only=False)


def _choose(graphs: tuple[View, ...], spec: QuantSpec, *, tables_only: bool) -> dict[tuple[int, int], Choice]:
    choices: dict[tuple[int, int], Choice] = {}
    refusals: dict[str, Refusal] = {}
    problems: dict[str, str] = {}
    for view in graphs:
        for node in view.nodes:
            if tables_only and not is_lookup(view, node):
                continue
            for index in node.inputs if not is_lowest_pad(view.model, view.graph, node.operator) else ():
                if view.is_float(index) and view.is_constant(index) and not np.isfinite(view.values(index)).all():
                    problems[node.layer] = (
                        f"layer {node.layer} ({node.kind}): constant {tensor_name(view.tensor(index))} holds NaN or "
                        "infinity; repair or retrain the model."
                    )
            choice = _choose_one(view, node, spec)
            if isinstance(choice, Refusal):
                refusals.setdefault(node.layer, choice)
            elif choice is not None:
                choices[node.key] = choice
    if problems:
        raise BadInput(*problems.values())
    if refusals:
        raise Unsupported(refusals=tuple(refusals.values()))
    return choices


def _choose_one(view: View, node: Node, spec: QuantSpec) -> Choice | Refusal | None:
    if is_lookup(view, node):
        asked = spec.bits_for(node.layer)
        return _settled(node, asked, cannot_be_table(view, node, asked) if asked != 32 else "", spec)
    if node.kind in HYBRID_VERSIONS and view.is_constant(node.inputs[OPERATORS[node.kind].weight]):
        asked = spec.bits_for(node.layer, default=spec.mlp_bits)
        return _settled(node, asked, _cannot_be_dynamic(view, node, asked) if asked != 32 else "", spec)
    largest = max((view.values(i).size for i in view.float_inputs(node) if view.is_constant(i)), default=0)
    if largest >= LARGE_CONSTANT:
        asked = spec.bits_for(node.layer, default=spec.mlp_bits)
        reason = f"{lookup('tflite', 'int8-dynamic', '*').reason} ({largest} values)"
        return _settled(node, asked, reason if asked != 32 else "", spec, only_float=True)
    return None


def _cannot_be_dynamic(view: View, node: Node, bits: int) -> str:
    if bits == 4:
        support = lookup("tflite", "int4-dynamic", node.kind)
        if support.status == "refused":
            return support.reason
        if int(view.tensor(node.inputs[1]).shape[-1]) % 2:
            return "a row of its packed INT4 weights would end within a byte"
    return ""


def _settled(node: Node, asked: int, reason: str, spec: QuantSpec, *, only_float: bool = False) -> Choice | Refusal:
    if not reason:
        return Choice(bits=asked, asked=asked)
    fallback = spec.fallback_bits
    if fallback == 32 or (fallback == 8 and asked == 4 and not only_float):
        got = "left in float" if fallback == 32 else "INT8"
        return Choice(bits=fallback, asked=asked, reason=f"{reason}; {got} as permitted")
    remedy = "pass --fallback int8" if asked == 4 and not only_float else "pass --fallback float32 to leave it in float"
    return Refusal(layer=node.layer, op=node.kind, reason=reason, remedy=remedy)


def quantize_hybrid(model: Any, choices: dict[tuple[int, int], Choice], spec: QuantSpec) -> None:
    """Quantize tables and layers of a float model in place; activations, inputs and outputs stay as they are."""
    tables = TableStore(model, spec)
    weights: dict[tuple[int, int], int] = {}
    for view in views(model):
        operators: list[Any] = []
        for node in view.nodes:
            bits = choices[node.key].bits if node.key in choices else 32
            if bits == 32:
                operators.append(node.operator)
            elif is_lookup(view, node):
                operators += rewrite_lookup(view, node, tables.table(view, node, bits))
            else:
                operators.append(_dynamic(view, node, bits, weights))
        view.graph.operators = operators
    compact(model)


def _dynamic(view: View, node: Node, bits: int, stored: dict[tuple[int, int], int]) -> Any:
    rule = OPERATORS[node.kind]
    source = view.tensor(node.inputs[rule.weight])
    values = view.values(node.inputs[rule.weight])
    scales = weight_scales(values, axis=rule.axis, bits=bits)
    tensor = type(source)()
    tensor.name, tensor.shape, tensor.hasRank = source.name, source.shape, source.hasRank
    set_affine(tensor, scales, np.zeros(scales.size), axis=rule.axis)
    key = (int(source.buffer), bits)
    set_constant(view.model, tensor, quantize_symmetric(values, scales, axis=rule.axis, bits=bits), f"int{bits}")
    tensor.buffer = stored.setdefault(key, tensor.buffer)
    view.graph.tensors.append(tensor)
    inputs = list(node.inputs)
    inputs[rule.weight] = len(view.graph.tensors) - 1
    operator = node.operator
    operator.inputs = inputs
    old = view.model.operatorCodes[operator.opcodeIndex].version
    operator.opcodeIndex = add_opcode(view.model, node.kind, max(old, HYBRID_VERSIONS[node.kind]))
    if node.kind == "FULLY_CONNECTED":
        # An asymmetric scale for each inference and row halves the step of one-sided (ReLU) activations.
        operator.builtinOptions.asymmetricQuantizeInputs = True
    return operator
