"""Take back, in the biases, the shift of each output channel's mean that rounding the weights causes.

Rounding shifts the mean of an output channel by the mean of (W_q - W) * x. In narrow nets and with 4-bit weights that
is a large part of the error, and subtracting it from the bias costs nothing at run time. After arXiv:1906.04721 (Nagel
et al., 2019), section 4.2, with the mean taken over calibration samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from converters.executorch.layer_inputs import apply, observed_weights, visit_inputs
from converters.executorch.program import attribute, set_attribute

__all__ = ["MOST_SAMPLES", "correct_biases"]

MOST_SAMPLES = 128


def correct_biases(
    prepared: Any, batches: Iterable[tuple[Any, ...]], float_weights: Mapping[Any, Any] | None = None
) -> int:
    """Change the biases of a calibrated PT2E graph, in place; returns how many layers were corrected.

    Args:
        float_weights: Of layers whose weight in the graph is a rounded one already, by their node.
        batches: Calibration batches; of more than `MOST_SAMPLES` samples the means hardly differ.
    """
    errors = _weight_errors(prepared, float_weights or {})
    sums: dict[Any, Any] = {}
    counts: dict[Any, int] = {}

    def add(node: Any, x: Any) -> None:
        values = apply(node, x, errors[node])
        sums[node] = sums.get(node, 0) + values.sum(0)
        counts[node] = counts.get(node, 0) + len(values)

    visit_inputs(prepared, errors, batches, add)
    for node, total in sums.items():
        _subtract(prepared, node, total / counts[node])
    prepared.recompile()
    return len(sums)


def _weight_errors(prepared: Any, float_weights: Mapping[Any, Any]) -> dict[Any, Any]:
    """Dequantized minus float weights, by the node of the layer."""
    import torch

    found = {}
    for node, (observer, weight) in observed_weights(prepared).items():
        has_plain_bias = len(node.args) < 3 or node.args[2] is None or node.args[2].op == "get_attr"
        if not has_plain_bias:
            continue
        scale, zero_point = observer.calculate_qparams()
        rounded = torch.fake_quantize_per_channel_affine(
            weight, scale, zero_point.int(), observer.ch_axis, observer.quant_min, observer.quant_max
        )
        found[node] = rounded - float_weights.get(node, weight)
    return found


def _subtract(prepared: Any, node: Any, shift: Any) -> None:
    bias = node.args[2] if len(node.args) > 2 else None
    near = str(bias.target if bias is not None else node.args[1].args[0].target)
    value = -shift if bias is None else attribute(prepared, near).detach() - shift
    with prepared.graph.inserting_before(node):
        corrected = prepared.graph.get_attr(set_attribute(prepared, near, "corrected", value))
    node.args = (*node.args[:2], corrected, *node.args[3:])
