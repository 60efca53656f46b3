"""Decide what each layer becomes, before anything slow is done: from what is asked and what ExecuTorch can have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from converters.executorch.layers import Weighted
from converters.executorch.quantize import INT4_PACKED, INT4_STORED
from converters.support import lookup
from edge_deploy.core.errors import Refusal, Unsupported
from edge_deploy.core.quant_spec import QuantSpec

__all__ = ["AS_LINEAR", "Choice", "choose_widths", "word"]


AS_LINEAR = "a 1x1 convolution, computed as a linear over channels-last pixels"
"""What became of a convolution in a plain `.pte`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What one layer with weights was asked to be and what it will be.

    Attributes:
        width: "float32", "int8", INT4_PACKED or INT4_STORED.
        reason: Why the two differ, or what else became of the layer; empty where there is nothing to say.
    """

    layer: Weighted
    asked: int
    width: str
    reason: str = ""


def word(bits: int) -> str:
    """How reports call a width: "int4", "int8", "float32"."""
    return "float32" if bits == 32 else f"int{bits}"


def choose_widths(layers: Sequence[Weighted], spec: QuantSpec, *, is_recommender: bool = False) -> tuple[Choice, ...]:
    """A choice for every layer.

    Args:
        is_recommender: What is no table gets `spec.mlp_bits`.

    Raises:
        Unsupported: Layers that cannot be had as asked, all by name, where `spec` permits no fallback.
    """
    choices, refusals = [], []
    for layer in layers:
        is_mlp = is_recommender and layer.kind != "embedding"
        asked = spec.bits_for(layer.name, default=spec.mlp_bits if is_mlp else None)
        bits, reason = asked, ""
        while bits != 32:
            obstacle = _obstacle(layer, bits, is_plain=spec.plain_pte)
            if not obstacle:
                break
            reason = reason or obstacle
            following = spec.fallback_bits
            if following is None or following <= bits:
                remedy = f"allow it: --fallback {'float32' if bits == 8 else 'int8'}, or give the layer a rule"
                refusals.append(Refusal(layer=layer.name, op=layer.op, reason=obstacle, remedy=remedy))
                break
            bits = following
        width = _width(layer, bits, is_plain=spec.plain_pte)
        if width == INT4_PACKED and layer.kind == "conv":
            reason = AS_LINEAR
        choices.append(Choice(layer=layer, asked=asked, width=width, reason=reason))
    if refusals:
        raise Unsupported(refusals=tuple(refusals))
    return tuple(choices)


def _width(layer: Weighted, bits: int, *, is_plain: bool) -> str:
    if bits == 4:
        return INT4_STORED if layer.kind in ("conv", "conv_transpose") and not is_plain else INT4_PACKED
    return word(bits)


def _obstacle(layer: Weighted, bits: int, *, is_plain: bool) -> str:
    """Why ExecuTorch cannot have this layer at this width; empty when it can."""
    entry = lookup("executorch", "int4-plain" if is_plain and bits == 4 else word(bits), layer.op)
    if entry.status == "refused":
        return entry.reason
    if is_plain and bits == 4 and layer.kind == "conv" and not layer.is_pointwise:
        return "no packed 4-bit convolution exists, and only 1x1 ones without groups and padding become linears"
    if layer.kind == "conv_transpose" and layer.groups > 1:
        return "XNNPACK has no quantized grouped transposed convolution"
    if layer.kind == "other":
        return f"neither XNNPACK nor the quantized kernels have {layer.op} with {word(bits)} weights"
    return ""
