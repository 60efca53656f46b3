"""Per-channel weights and INT32 biases of weighted operators, shared between all operators that read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converters.quantize.uniform import quantize_symmetric, symmetric_scales
from converters.tflite.flatbuffer import set_affine, set_constant, tensor_type
from converters.tflite.operators import OPERATORS
from converters.tflite.plan import Plan
from converters.tflite.structure import Node, View
from edge_deploy.core.digest import sample_sha256

__all__ = ["WeightStore", "weight_axis"]

# Kernels turn input scale * weight scale / output scale into a fixed-point multiplier. XNNPACK refuses multipliers
# below 2^-32 and gemmlowp-style kernels lose their precision; a channel whose multiplier is below 2^-24 cannot move an
# 8-bit output by half a step, so its scale may be widened for free.
SMALLEST_MULTIPLIER = 2.0**-24
# Far inside INT32: room for the sum of products, for XNNPACK's INT4 kernels, which compute sixteen times the sum and
# silently overflow from 2^27 on, and for kernels that carry the bias in float32, exact up to here. A channel whose bias
# is larger has weights that hardly count beside it, so a wider scale loses nothing.
LARGEST_BIAS = 2.0**24


def weight_axis(node: Node) -> int:
    """Axis of the output channels of a weighted operator's weights."""
    return OPERATORS[node.kind].axis


@dataclass(slots=True)
class WeightStore:
    """Quantized constants of one model: the same float constant at the same width is stored once."""

    model: Any
    plan: Plan
    floors: dict[str, np.ndarray] = field(default_factory=dict)
    buffers: dict[tuple[str, str], int] = field(default_factory=dict)

    def survey(self, graphs: tuple[View, ...]) -> None:
        """Find the smallest weight scales that every reader of each constant can bear: see `_floor`."""
        for view in graphs:
            for node in view.nodes:
                if self.plan.is_integer(node) and OPERATORS[node.kind].kind == "weighted":
                    rule = OPERATORS[node.kind]
                    key = self._digest(view.values(node.inputs[rule.weight]), weight_axis(node))
                    floor = self._floor(view, node)
                    self.floors[key] = np.maximum(self.floors.get(key, np.zeros(1)), floor)

    def _floor(self, view: View, node: Node) -> np.ndarray:
        rule = OPERATORS[node.kind]
        input_scale = self.plan.affine[view.index, node.inputs[rule.data]].scale
        output_scale = self.plan.affine[view.index, node.outputs[0]].scale
        floor = np.full(1, SMALLEST_MULTIPLIER * output_scale / input_scale)
        bias = self._bias(view, node)
        return floor if bias is None else np.maximum(floor, np.abs(bias) / LARGEST_BIAS / input_scale)

    def _bias(self, view: View, node: Node) -> np.ndarray | None:
        slot = OPERATORS[node.kind].bias
        if slot >= len(node.inputs) or node.inputs[slot] < 0:
            return None
        values: np.ndarray = view.values(node.inputs[slot]).astype(np.float64).reshape(-1)
        return values

    def quantize(self, view: View, node: Node, bits: int) -> tuple[Any, Any | None]:
        """Tensors (weights, bias) of the operator at this width; bias is None where it has none."""
        rule = OPERATORS[node.kind]
        axis = weight_axis(node)
        source = view.tensor(node.inputs[rule.weight])
        values = view.values(node.inputs[rule.weight])
        digest = self._digest(values, axis)
        scales = symmetric_scales(values, axis=axis, bits=bits, floor=self.floors[digest])
        kind = f"int{bits}"
        weights = self._tensor(source, (digest, kind), quantize_symmetric(values, scales, axis=axis, bits=bits), kind)
        set_affine(weights, scales, np.zeros(scales.size), axis=axis)
        bias = self._bias(view, node)
        if bias is None:
            return weights, None
        input_scale = self.plan.affine[view.index, node.inputs[rule.data]].scale
        bias_scales = (np.float32(input_scale) * scales).astype(np.float32)
        stored = np.rint(bias / bias_scales.astype(np.float64))
        limit = 2**31 - 1
        stored = np.clip(stored, -limit, limit).astype(np.int32)
        bias_source = view.tensor(node.inputs[rule.bias])
        tensor = self._tensor(bias_source, (sample_sha256({"bias": stored}), "int32"), stored, "int32")
        set_affine(tensor, bias_scales, np.zeros(bias_scales.size), axis=0)
        return weights, tensor

    def _tensor(self, source: Any, key: tuple[str, str], stored: np.ndarray, kind: str) -> Any:
        tensor = type(source)()
        tensor.name, tensor.shape, tensor.hasRank = source.name, source.shape, source.hasRank
        if key in self.buffers:
            tensor.buffer = self.buffers[key]
            tensor.type = tensor_type(kind)
        else:
            set_constant(self.model, tensor, stored, kind)
            self.buffers[key] = tensor.buffer
        return tensor

    @staticmethod
    def _digest(values: np.ndarray, axis: int) -> str:
        return f"{sample_sha256({'weights': values})}/{axis}"
