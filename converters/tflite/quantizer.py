"""Our quantizer over the float flatbuffer: static full-integer INT8 and packed INT4, from ranges or learned scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.quantize.uniform import Affine
from converters.tflite.bias_correction import Means
from converters.tflite.calibrate import Ranges
from converters.tflite.compact import compact
from converters.tflite.flatbuffer import read_model
from converters.tflite.narrow import narrow_weights
from converters.tflite.patches import Covariances
from converters.tflite.plan import Plan, choose, plan_scales
from converters.tflite.rewrite import rewrite_graph
from converters.tflite.signatures import ensure_signatures
from converters.tflite.simplify import simplify
from converters.tflite.structure import make_names_unique, views
from converters.tflite.weights import WeightStore
from edge_deploy.core.errors import BadInput
from edge_deploy.core.quant_spec import QuantSpec
from runtimes.formats.tflite_lint import lint

__all__ = ["Quantized", "prepare", "quantize_static"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A quantized model and the decisions behind it.

    Attributes:
        layers: (subgraph, position) in the float file to layer name.
        kinds: (subgraph, position) in the float file to operator.
    """

    model: Any
    plan: Plan
    layers: dict[tuple[int, int], str]
    kinds: dict[tuple[int, int], str]


def prepare(path: Path) -> Any:
    """The float file as the quantizer wants it: signatures present, tensor names unique, simplified.

    Raises:
        BadInput: It cannot be read, or its parts contradict each other.
    """
    problems = lint(path)
    if problems:
        raise BadInput(*(f"{path}: {problem}" for problem in problems))
    model = read_model(path)
    ensure_signatures(model)
    make_names_unique(model)
    simplify(model)
    return model


def quantize_static(
    model: Any,
    spec: QuantSpec,
    ranges: Ranges,
    *,
    means: Means | None = None,
    covariances: Covariances | None = None,
    learned: Mapping[str, Affine] | None = None,
    learned_weights: Mapping[str, np.ndarray] | None = None,
) -> Quantized:
    """Full-integer form of a float model; the model is edited in place.

    Args:
        model: As `prepare` gives it.
        ranges: Of the activations, as `converters.tflite.calibrate` measures them; may lack tensors that `learned` has.
        means: Channel means from the same calibration; with them biases take back the mean error of rounded weights.
        covariances: From the same calibration; with them weights are rounded for the least error behind their layer.
        learned: Scale and zero point of activations learned in training, by tensor name; they win over ranges.
        learned_weights: Scale of each output channel learned in training, by layer name (the name of the operator's
            first output); such layers keep bias and rounding, because training has seen them.

    Raises:
        Unsupported: Layers that cannot become what was asked and may not fall back, each by name.
        BadInput: Weights hold NaN or infinity; ranges are missing; learned scales contradict each other.
    """
    graphs = views(model)
    plan = plan_scales(graphs, choose(graphs, spec), ranges, learned)
    store = WeightStore(
        model=model,
        plan=plan,
        for_device=spec.for_device,
        means=means or {},
        covariances=covariances or {},
        learned=learned_weights or {},
    )
    store.survey(graphs)
    layers = {node.key: node.layer for view in graphs for node in view.nodes}
    kinds = {node.key: node.kind for view in graphs for node in view.nodes}
    among_floats = {
        id(node.operator): plan.choices[node.key]
        for view in graphs
        for node in view.nodes
        if node.key in plan.choices and plan.choices[node.key].is_narrow
    }
    for view in graphs:
        rewrite_graph(view, plan, store, spec.io)
    narrow_weights(model, among_floats, spec)
    compact(model)
    return Quantized(model=model, plan=plan, layers=layers, kinds=kinds)
