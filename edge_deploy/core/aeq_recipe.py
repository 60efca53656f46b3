"""Recipes of ai-edge-quantizer (JSON), read as rules; what they ask for and this tool cannot do is refused by name.

There the last entry that fits a layer decides alone, and layers that none fits stay in float. Entries that an operator
does not support are skipped there; here such a layer is refused by name, or falls back as permitted.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.layer_rule import LayerRule
from edge_deploy.core.precision import PRECISIONS, Activations, form_word
from edge_deploy.core.quant_spec import QuantSpec, spec_for_recipe
from edge_deploy.core.serde import from_json

__all__ = ["read_aeq_recipe"]

# Its operators that have a family of layers in every format; others are known by TFLite's own name.
_FAMILIES = {
    "CONV_2D": "conv",
    "DEPTHWISE_CONV_2D": "depthwise",
    "CONV_2D_TRANSPOSE": "transposed-conv",
    "FULLY_CONNECTED": "linear",
    "EMBEDDING_LOOKUP": "embedding",
}
_UNIFORM, _CASTING, _NONE = "min_max_uniform_quantize", "float_casting", "no_quantize"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tensor:
    num_bits: int
    symmetric: bool = True
    granularity: str = "TENSORWISE"
    dtype: Literal["INT", "UINT", "FLOAT"] = "INT"
    block_size: int = 0
    algorithm_params: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Config:
    activation_tensor_config: _Tensor | None = None
    weight_tensor_config: _Tensor | None = None
    compute_precision: Literal["INTEGER", "FLOAT"] = "FLOAT"
    explicit_dequantize: bool = False
    skip_checks: bool = False
    min_weight_elements: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    regex: str
    operation: str
    algorithm_key: str
    op_config: _Config = _Config()


def read_aeq_recipe(path: Path, **options: object) -> QuantSpec:
    """The rules that a recipe file of ai-edge-quantizer stands for.

    Args:
        options: Further fields of the QuantSpec.

    Raises:
        BadInput: Not such a file; unknown keys (close names are suggested) or wrong values, with their places.
        Unsupported: Entries that ask for what has no form here, each by its place.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: is not JSON ({error}).") from error
    if not isinstance(data, list) or not data:
        raise BadInput(f"{path}: must be a list of entries with regex, operation, algorithm_key and op_config.")
    rules = []
    problems: list[str] = []
    refusals: list[str] = []
    for number, entry in enumerate(data):
        place = f"{path.name}[{number}]"
        try:
            rules.append(_rule(from_json(_Entry, entry, where=place), place))
        except Unsupported as error:
            refusals += error.problems
        except BadInput as error:
            problems += error.problems
    if problems:
        raise BadInput(*problems, *refusals)
    if refusals:
        raise Unsupported(*refusals)
    return _spec(rules, path.stem, options)


def _spec(rules: list[LayerRule], label: str, options: dict[str, object]) -> QuantSpec:
    """A first entry for everything is the precision; without one, everything starts in float."""
    first = rules[0]
    is_universal = first.regex in ("", ".*") and not first.operators and first.min_weights is None
    base = form_word(first.weight_bits or 32, first.activations or "float")
    if is_universal and base in PRECISIONS:
        bits = {"weight_bits": first.weight_bits, "mlp_bits": first.weight_bits}
        scale = {"weight_scale": first.weight_scale} if first.weight_scale else {}
        return spec_for_recipe(base, label=label, rules=tuple(rules[1:]), **{**options, **bits, **scale})
    return spec_for_recipe("float32", label=label, rules=tuple(rules), **options)


def _rule(entry: _Entry, place: str) -> LayerRule:
    try:
        re.compile(entry.regex)
    except re.error as error:
        raise BadInput(f"{place}.regex = {entry.regex!r}: not a regular expression ({error}).") from error
    if entry.operation in ("INPUT", "OUTPUT"):
        raise Unsupported(f"{place}: operation {entry.operation}: inputs and outputs are chosen by --io; leave it out.")
    bits, activations = _width(entry, place)
    weights = entry.op_config.weight_tensor_config
    operators: tuple[str, ...] = ()
    if entry.operation != "*":
        operators = tuple(dict.fromkeys((_FAMILIES.get(entry.operation, entry.operation), entry.operation)))
    scale: Literal["channel", "tensor"] | None = None
    if bits < 16 and weights is not None:
        scale = "tensor" if weights.granularity == "TENSORWISE" else "channel"
    return LayerRule(
        regex=entry.regex,
        operators=operators,
        weight_bits=bits,
        activations=activations,
        min_weights=entry.op_config.min_weight_elements or None,
        weight_scale=scale,
        source=place,
    )


def _width(entry: _Entry, place: str) -> tuple[int, Activations]:
    """Bits of the weights and what the layer computes on."""
    config, key = entry.op_config, entry.algorithm_key
    weights, activation = config.weight_tensor_config, config.activation_tensor_config
    if key == _NONE:
        return 32, "float"
    if key not in (_UNIFORM, _CASTING):
        raise Unsupported(f"{place}: algorithm_key {key} has no form here; take {_UNIFORM} (see --ranges and passes).")
    if weights is None:
        raise Unsupported(f"{place}: quantizes activations without weights, which has no form here.")
    refused = _refused(config, weights, activation)
    if refused:
        raise Unsupported(*(f"{place}: {reason}" for reason in refused))
    if key == _CASTING or weights.dtype == "FLOAT":
        if weights.num_bits != 16:
            raise Unsupported(f"{place}: weights of {weights.num_bits} float bits have no form here; 16 has.")
        return 16, "float"
    if activation is None:
        return weights.num_bits, "dynamic" if config.compute_precision == "INTEGER" else "float"
    return weights.num_bits, "int8" if activation.num_bits == 8 else "int16"


def _refused(config: _Config, weights: _Tensor, activation: _Tensor | None) -> list[str]:
    found = []
    if config.skip_checks:
        found.append("skip_checks = true: layers that cannot be had are never written here; leave it out.")
    for name, tensor in (("weight", weights), ("activation", activation)):
        if tensor is None:
            continue
        if tensor.block_size or tensor.granularity.startswith("BLOCKWISE"):
            found.append(f"{name}_tensor_config: blocks of scales have no form here; take CHANNELWISE.")
        elif tensor.granularity not in ("CHANNELWISE", "TENSORWISE"):
            found.append(f"{name}_tensor_config: granularity {tensor.granularity}: take CHANNELWISE or TENSORWISE.")
        if tensor.algorithm_params:
            found.append(
                f"{name}_tensor_config: algorithm_params {', '.join(tensor.algorithm_params)} have no form here."
            )
    if weights.dtype == "INT" and (weights.num_bits not in (4, 8) or not weights.symmetric):
        kind = "symmetric" if weights.symmetric else "asymmetric"
        found.append(
            f"weight_tensor_config: {kind} weights of {weights.num_bits} bits have no form here; 4 and 8 "
            "bits, symmetric, have."
        )
    if weights.dtype == "UINT":
        found.append("weight_tensor_config: dtype UINT has no form here; take INT.")
    if activation is not None and (activation.dtype, activation.num_bits, activation.symmetric) not in (
        ("INT", 8, False),
        ("INT", 16, True),
    ):
        found.append("activation_tensor_config: activations are 8 bits asymmetric or 16 bits symmetric INT here.")
    return found
