"""Hold the written file against what was asked of each layer."""

from __future__ import annotations

from collections.abc import Sequence

from converters.executorch.quantize import INT4_PACKED, INT4_STORED
from converters.executorch.widths import Choice, word
from edge_deploy.core.artifact import LayerFacts, LayerOutcome
from edge_deploy.core.errors import Refusal, Unsupported

__all__ = ["outcomes_of"]

_STORED_TEXT = "int4 stored, int8 compute"
_BITS = {"float32": 32.0, "float16": 16.0, "int8": 8.0, INT4_PACKED: 4.0, INT4_STORED: 4.0}
_DTYPE = {"float32": "float32", "float16": "float16", "int8": "int8", INT4_PACKED: "int4", INT4_STORED: "int4"}
# An odd number of 4-bit weights in a row or region costs half a byte more.
_PACKING_SLACK_BITS = 0.5


def outcomes_of(
    choices: Sequence[Choice], facts: Sequence[LayerFacts], *, float_allowed: bool
) -> tuple[LayerOutcome, ...]:
    """An outcome for each layer, from the bytes of the file.

    Args:
        float_allowed: Record a layer that the toolchain left in float instead of refusing it.

    Raises:
        Unsupported: The file has a layer in float, or in another width, that was to be quantized.
    """
    by_name = {fact.layer: fact for fact in facts if fact.weight_count}
    outcomes, refusals = [], []
    for choice in choices:
        layer = choice.layer
        fact = by_name.get(layer.name)
        if fact is None:
            missing = "the written file has no operator with weights of this name"
            if choice.width == "float32":
                outcomes.append(_outcome(choice, None, word(32), choice.reason or missing))
            else:
                refusals.append(Refusal(layer=layer.name, op=layer.op, reason=missing, remedy=_REMEDY))
            continue
        if _is_as_chosen(choice, fact):
            got = _STORED_TEXT if choice.width == INT4_STORED else _DTYPE[choice.width]
            outcomes.append(_outcome(choice, fact, got, choice.reason))
        elif fact.weight_dtype == "float32" and float_allowed:
            reason = choice.reason or f"the toolchain left {layer.op} in float"
            outcomes.append(_outcome(choice, fact, "float32", reason))
        else:
            found = f"the written file has {fact.weight_dtype} weights of {fact.weight_bits:g} bits"
            refusals.append(Refusal(layer=layer.name, op=layer.op, reason=found, remedy=_REMEDY))
    if refusals:
        raise Unsupported("ExecuTorch did not quantize what was asked.", refusals=tuple(refusals))
    return tuple(outcomes)


_REMEDY = "allow it: --fallback float32, or give the layer a rule"


def _is_as_chosen(choice: Choice, fact: LayerFacts) -> bool:
    wanted = _BITS[choice.width]
    slack = _PACKING_SLACK_BITS if wanted == 4 else 0.01
    return fact.weight_dtype == _DTYPE[choice.width] and wanted - 0.01 <= fact.weight_bits <= wanted + slack


def _outcome(choice: Choice, fact: LayerFacts | None, got: str, reason: str) -> LayerOutcome:
    return LayerOutcome(
        layer=choice.layer.name,
        op=choice.layer.op,
        asked=word(choice.asked),
        got=got,
        reason=reason,
        weight_bits=fact.weight_bits if fact is not None else 0.0,
        weight_bytes=fact.weight_bytes if fact is not None else 0,
        runs_on=fact.runs_on if fact is not None else "unknown",
    )
