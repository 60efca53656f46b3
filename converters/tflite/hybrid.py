"""Generic graphs with tables, for phones: quantized rows, dynamic-INT8 layers, everything between in float."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from converters.tflite.choice import Choice
from converters.tflite.compact import compact
from converters.tflite.flatbuffer import tensor_name
from converters.tflite.lookups import is_lookup
from converters.tflite.narrow import choose_narrow, narrow_weights, weight_slot
from converters.tflite.pool_pads import is_lowest_pad
from converters.tflite.structure import Node, View, views
from edge_deploy.core.errors import BadInput, Refusal, Unsupported
from edge_deploy.core.quant_spec import QuantSpec

__all__ = ["NO_INT16", "choose_hybrid", "choose_tables", "has_tables", "quantize_hybrid"]


NO_INT16 = "graphs with tables compute among floats: INT16 activations are for networks without"


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
            else:
                choices[node.key] = choice
    if problems:
        raise BadInput(*problems.values())
    if refusals:
        raise Unsupported(refusals=tuple(refusals.values()))
    return choices


def _choose_one(view: View, node: Node, spec: QuantSpec) -> Choice | Refusal:
    default = spec.weight_bits if is_lookup(view, node) else spec.mlp_bits
    settings = spec.settings_for(node.layer, default=default)
    if settings.activations == "int16" and (is_lookup(view, node) or weight_slot(view, node) is not None):
        return Refusal(layer=node.layer, op=node.kind, reason=NO_INT16, remedy="take int8-dynamic")
    if settings.activations in ("int8", "int16"):  # of a recommender: what its layers read is quantized on the fly
        settings = replace(settings, activations="dynamic")
    return choose_narrow(view, node, settings, spec)


def quantize_hybrid(model: Any, choices: dict[tuple[int, int], Choice], spec: QuantSpec) -> None:
    """Quantize tables and layers of a float model in place; activations, inputs and outputs stay as they are."""
    by_operator = {
        id(node.operator): choices[node.key] for view in views(model) for node in view.nodes if node.key in choices
    }
    narrow_weights(model, by_operator, spec)
    compact(model)
