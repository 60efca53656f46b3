"""Per-channel weights and INT32 biases of weighted operators, shared between all operators that read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from converters.quantize.compensated import round_best
from converters.quantize.scale_search import weight_scales
from converters.quantize.uniform import along_axis, dequantize, quantize_symmetric, symmetric_scales
from converters.tflite.bias_correction import Means, mean_key, mean_shift
from converters.tflite.flatbuffer import set_affine, set_constant, tensor_type
from converters.tflite.operators import OPERATORS
from converters.tflite.patches import Covariances, as_rows, as_weights
from converters.tflite.plan import Plan
from converters.tflite.structure import Node, View, twin_of
from edge_deploy.core.digest import sample_sha256
from edge_deploy.core.errors import BadInput

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
    """Quantized constants of one model: the same float constant at the same width is stored once.

    Attributes:
        means: Channel means of the operators' inputs; where one is missing, the bias is not corrected.
        covariances: Of what the weights are multiplied with; where it is missing, weights are rounded to the nearest.
        learned: Scales learned in training, one for each output channel, by layer name.
        for_device: TFLite Micro takes packed INT4 weights of a fully connected layer with one scale only.
    """

    model: Any
    plan: Plan
    for_device: Literal["phone", "mcu"] = "phone"
    means: Means = field(default_factory=dict)
    covariances: Covariances = field(default_factory=dict)
    learned: Mapping[str, np.ndarray] = field(default_factory=dict)
    floors: dict[str, np.ndarray] = field(default_factory=dict)
    node_means: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)
    patches: dict[str, dict[tuple[int, int], tuple[np.ndarray, ...]]] = field(default_factory=dict)
    rounded: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    buffers: dict[tuple[str, str], int] = field(default_factory=dict)

    def survey(self, graphs: tuple[View, ...]) -> None:
        """Look at all readers of each constant before any is quantized: the smallest scale they bear, their means."""
        for view in graphs:
            twin = graphs[twin_of(self.model, view.index)]
            for node in view.nodes:
                key = mean_key(twin, twin.nodes[node.position])
                if key in self.means:
                    self.node_means[node.key] = self.means[key]
                if self.plan.is_integer(node) and OPERATORS[node.kind].kind == "weighted":
                    rule = OPERATORS[node.kind]
                    digest = self._digest(view.values(node.inputs[rule.weight]), weight_axis(node))
                    self.floors[digest] = np.maximum(self.floors.get(digest, np.zeros(1)), self._floor(view, node))
                    twin_key = twin.nodes[node.position].key
                    if twin_key in self.covariances:
                        self.patches.setdefault(digest, {})[twin_key] = self.covariances[twin_key]

    def _floor(self, view: View, node: Node) -> np.ndarray:
        input_scale = self._input_scale(view, node)
        output_scale = self.plan.affine[view.index, node.outputs[0]].scale
        floor = np.full(1, SMALLEST_MULTIPLIER * output_scale / input_scale)
        bias = self._bias(view, node)
        if self.plan.activation_bits == 16:
            return floor  # INT64 biases
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
        scales, stored = self._round(node, values, bits, digest)
        is_uniform = self._has_one_scale(node, bits)
        kind = f"int{bits}"
        key = (f"{digest}/{sample_sha256({'scales': scales})}", kind)
        weights = self._tensor(source, key, stored, kind)
        written = scales[:1] if is_uniform else scales
        set_affine(weights, written, np.zeros(written.size), axis=axis)
        bias = self._corrected(view, node, values, stored, scales)
        if bias is None:
            return weights, None
        input_scale = self._input_scale(view, node)
        bias_scales = (np.float32(input_scale) * scales).astype(np.float32)
        bias_kind = "int32" if self.plan.activation_bits == 8 else "int64"  # sums of INT16 products need the room
        limit = 2**31 - 1 if bias_kind == "int32" else 2**47
        whole = np.clip(np.rint(bias / bias_scales.astype(np.float64)), -limit, limit).astype(bias_kind)
        tensor = self._tensor(
            self._bias_like(view, node, whole.size), (sample_sha256({"b": whole}), bias_kind), whole, bias_kind
        )
        tensor.shape = [whole.size]  # converters also write [1, 1, n], whose first axis is not that of the scales
        written = bias_scales[:1] if is_uniform else bias_scales
        set_affine(tensor, written, np.zeros(written.size), axis=0)
        return weights, tensor

    def _round(self, node: Node, values: np.ndarray, bits: int, digest: str) -> tuple[np.ndarray, np.ndarray]:
        """Scale of each output channel and the stored weights."""
        patches = None if node.layer in self.learned else self._pooled_patches(digest)
        if patches is None:
            scales = self._scales(node, values, bits, digest)
            return scales, quantize_symmetric(values, scales, axis=weight_axis(node), bits=bits)
        if (digest, bits) not in self.rounded:
            is_uniform = self._has_one_scale(node, bits)
            axis, floor = weight_axis(node), self.floors[digest]
            widest = symmetric_scales(values, axis=None if is_uniform else axis, bits=bits)
            scales, chosen = round_best(
                as_rows(node.kind, values, len(patches[0])),
                np.broadcast_to(widest, values.shape[axis]),
                floor.max() if is_uniform else floor,
                patches,
                bits=bits,
                is_uniform=is_uniform,
            )
            self.rounded[digest, bits] = (scales, as_weights(node.kind, chosen, values.shape))
        return self.rounded[digest, bits]

    def _pooled_patches(self, digest: str) -> tuple[np.ndarray, ...] | None:
        """What all operators that share these weights multiply them with; None where that was not seen."""
        found = list(self.patches.get(digest, {}).values())
        if not found or len({tuple(part.shape for part in parts) for parts in found}) != 1:
            return None
        return tuple(sum(parts[1:], parts[0]) for parts in zip(*found, strict=True))

    def _scales(self, node: Node, values: np.ndarray, bits: int, digest: str) -> np.ndarray:
        axis = weight_axis(node)
        if self._has_one_scale(node, bits):
            one = weight_scales(values, axis=None, bits=bits, floor=float(self.floors[digest].max()))
            return np.repeat(one, values.shape[axis])
        if node.layer not in self.learned:
            return weight_scales(values, axis=axis, bits=bits, floor=self.floors[digest])
        scales = np.asarray(self.learned[node.layer], np.float32).reshape(-1)
        if scales.size != values.shape[axis] or not np.all(np.isfinite(scales) & (scales > 0)):
            raise BadInput(
                f"layer {node.layer}: {scales.size} learned weight scales: must be {values.shape[axis]} positive "
                "numbers, one for each output channel."
            )
        return scales

    def _has_one_scale(self, node: Node, bits: int) -> bool:
        is_asked = node.key in self.plan.choices and self.plan.choices[node.key].one_scale
        return is_asked or (self.for_device == "mcu" and bits == 4 and node.kind == "FULLY_CONNECTED")

    def _input_scale(self, view: View, node: Node) -> float:
        slot = OPERATORS[node.kind].data
        key = (view.index, node.inputs[slot])
        return (self.plan.affine[key] if key in self.plan.affine else self.plan.constants[(*node.key, slot)]).scale

    def _corrected(
        self, view: View, node: Node, values: np.ndarray, stored: np.ndarray, scales: np.ndarray
    ) -> np.ndarray | None:
        """The bias without the mean error of the rounded weights; None where there is neither bias nor mean."""
        bias = self._bias(view, node)
        mean = self.node_means.get(node.key)
        if mean is None or node.layer in self.learned:
            return bias
        steps = along_axis(scales, weight_axis(node), values.ndim)
        shift = mean_shift(node.kind, dequantize(stored, steps).astype(np.float64) - values, mean)
        return (0.0 if bias is None else bias) - shift

    def _bias_like(self, view: View, node: Node, size: int) -> Any:
        """A tensor to take name and shape from: the operator's bias, or a new one where it has none."""
        slot = OPERATORS[node.kind].bias
        if slot < len(node.inputs) and node.inputs[slot] >= 0:
            return view.tensor(node.inputs[slot])
        made = type(view.tensor(node.outputs[0]))()
        made.name, made.shape, made.hasRank = f"{node.layer}/bias_correction".encode(), [size], True
        return made

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
