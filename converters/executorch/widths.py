"""Decide what each layer becomes, before anything slow is done: from what is asked and what ExecuTorch can have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from converters.executorch.layers import Weighted
from converters.executorch.quantize import INT4_PACKED, INT4_STORED
from converters.support import lookup
from edge_deploy.core.errors import Refusal, Unsupported
from edge_deploy.core.precision import Activations, form_word, width_word
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


ONE_SCALE = "on ExecuTorch weights have one scale for each output channel here; leave weight_scale out"


def word(bits: int) -> str:
    """How reports call a width: "int4", "int8", "float32"."""
    return width_word(bits)


def choose_widths(
    layers: Sequence[Weighted],
    spec: QuantSpec,
    *,
    is_recommender: bool = False,
    beyond_half: Mapping[str, str] | None = None,
) -> tuple[Choice, ...]:
    """A choice for every layer.

    Args:
        is_recommender: What is no table gets `spec.mlp_bits`.
        beyond_half: Why layers cannot be float16, by name.

    Raises:
        Unsupported: Layers that cannot be had as asked, all by name, where `spec` permits no fallback.
    """
    choices, refusals = [], []
    on_the_fly = (is_recommender and spec.io == "float") or not spec.needs_ranges
    for layer in layers:
        is_mlp = is_recommender and layer.kind != "embedding"
        settings = spec.settings_for(layer.name, default=spec.mlp_bits if is_mlp else None)
        asked = settings.weight_bits
        bits, reason = asked, ""
        while bits != 32:
            obstacle = _activations_obstacle(layer, bits, settings.activations, on_the_fly=on_the_fly)
            obstacle = obstacle or _obstacle(layer, bits, is_plain=spec.plain_pte)
            if bits < 16 and settings.weight_scale == "tensor" and layer.kind != "embedding":
                obstacle = obstacle or ONE_SCALE
            if bits == 16 or spec.weight_bits == 16:
                obstacle = obstacle or (beyond_half or {}).get(layer.name, "") or _mixed(bits, spec)
            if not obstacle:
                break
            reason = reason or obstacle
            following = spec.fallback_bits
            if following is None or following <= bits:
                remedy = f"allow it: --fallback {'int8' if bits == 4 else 'float32'}, or give the layer a rule"
                refusals.append(Refusal(layer=layer.name, op=layer.op, reason=obstacle, remedy=remedy))
                break
            bits = following
        width = _width(layer, bits, is_plain=spec.plain_pte)
        if width == INT4_PACKED and layer.kind == "conv":
            reason = AS_LINEAR
        choices.append(Choice(layer=layer, asked=asked, width=width, reason=reason))
    if refusals:
        raise Unsupported(refusals=tuple(refusals))
    if any(choice.width == "float16" for choice in choices) and any(choice.width != "float16" for choice in choices):
        # One layer stays in float, as permitted: then the others must, too.
        why = "another layer of the program stays in float32, and a program is float16 as a whole"
        return tuple(
            choice if choice.width == "float32" else replace(choice, width="float32", reason=why) for choice in choices
        )
    return tuple(choices)


def _mixed(bits: int, spec: QuantSpec) -> str:
    """A program is float16 from its inputs to its outputs, or nowhere."""
    is_whole = bits == spec.weight_bits == 16 and not spec.needs_ranges
    return "" if is_whole else "a program is float16 as a whole or not at all; leave out rules that mix it with others"


def _width(layer: Weighted, bits: int, *, is_plain: bool) -> str:
    if bits == 4:
        return INT4_STORED if layer.kind in ("conv", "conv_transpose") and not is_plain else INT4_PACKED
    return word(bits)


def _activations_obstacle(layer: Weighted, bits: int, activations: Activations, *, on_the_fly: bool) -> str:
    """Why the layer cannot compute on what is asked, whatever its weights; rows of a table are looked up alike."""
    if activations == "int8" or layer.kind == "embedding":
        return ""
    entry = lookup("executorch", form_word(bits, activations), layer.op)
    if entry.status == "refused":
        return entry.reason
    if activations == "dynamic" and not on_the_fly:
        return "a program has calibrated activations or dynamic ones, not both"
    return ""


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
