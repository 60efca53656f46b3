"""What every layer with weights was asked to become and what it became, read back from the written file."""

from __future__ import annotations

from collections.abc import Mapping

from converters.tflite.choice import FLOAT, Choice
from edge_deploy.core.artifact import LayerFacts, LayerOutcome
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.precision import width_word

__all__ = ["layer_outcomes", "precision_warnings"]

_PASS_ON = ("DEQUANTIZE", "QUANTIZE", "RESHAPE", "SQUEEZE", "TRANSPOSE")


def layer_outcomes(facts: tuple[LayerFacts, ...], choices: Mapping[str, Choice]) -> tuple[LayerOutcome, ...]:
    """One outcome for each layer of the file that has weights.

    Args:
        facts: What the bytes of the file say.
        choices: What was asked of each layer and why it got something else, by layer name; a layer that is missing
            was asked to stay in float.
    """
    outcomes = []
    for fact in facts:
        if not fact.weight_count:
            continue
        choice = choices.get(fact.layer, FLOAT)
        outcomes.append(
            LayerOutcome(
                layer=fact.layer,
                op=fact.op,
                asked=_asked(choice, fact.op),
                got=_got(fact),
                reason=choice.reason,
                weight_bits=fact.weight_bits,
                weight_bytes=fact.weight_bytes,
                runs_on=fact.runs_on,
            )
        )
    return tuple(outcomes)


def _asked(choice: Choice, op: str) -> str:
    word = width_word(choice.asked)
    more = {"dynamic": "dynamic int8 activations", "float": "float activations", "int16": "int16 activations"}
    is_said = choice.asked < 16 and choice.activations in more and op not in ("EMBEDDING_LOOKUP", "GATHER")
    return f"{word}, {more[choice.activations]}" if is_said else word


def _got(fact: LayerFacts) -> str:
    stored = fact.weight_dtype or "float32"
    if fact.granularity != "none":
        stored = f"{stored} {fact.granularity}"
    if stored == "float32":
        return stored
    if fact.weight_compute == "float32":
        return f"{stored} stored, float32 compute"
    if fact.weight_compute == "dynamic":
        return f"{stored}, dynamic int8 activations"
    return f"{stored}, {fact.activation_dtype} activations"


def precision_warnings(facts: tuple[LayerFacts, ...], graph: LayerGraph) -> tuple[str, ...]:
    """What a user of the file should know about its speed and resolution."""
    ends = _ends(graph)
    warnings = []
    convolutions = [f for f in facts if f.op in ("CONV_2D", "DEPTHWISE_CONV_2D")]
    slow = [f.layer for f in convolutions if f.weight_dtype == "int4" and f.weight_compute != "float32"]
    if slow:
        warnings.append(
            f"XNNPACK does not run INT4 convolutions: {len(slow)} layers ({slow[0]}, ...) run on the builtin kernels, "
            "about 2.5x slower than INT8; INT4 saves storage here, not time."
        )
    if any(fact.activation_dtype == "int16" and fact.weight_count for fact in facts):
        warnings.append(
            "INT16 activations are for microcontrollers: XNNPACK does not run them, and the builtin kernels are about "
            "70x slower than INT8 with XNNPACK."
        )
    # A gate inside the network (SiLU, squeeze-and-excitation) is no answer that anybody reads.
    coarse = [
        f.layer for f in facts if f.op in ("SOFTMAX", "LOGISTIC") and f.activation_dtype == "int8" and f.layer in ends
    ]
    if coarse:
        warnings.append(f"an INT8 probability resolves only 1/256: {', '.join(coarse)}; read the logit for more.")
    if any(fact.op == "SUM" and fact.activation_dtype == "int8" for fact in facts):
        warnings.append(
            "the reference kernels (BUILTIN_REF) compute INT8 SUM wrongly; XNNPACK and the builtin ones do not."
        )
    return tuple(warnings)


def _ends(graph: LayerGraph) -> set[str]:
    """Layers whose values are outputs of the file, but for conversions and shapes."""
    producers = {info.name: layer for layer in graph.layers for info in layer.outputs}
    found: set[str] = set()
    waiting = [name for name in graph.outputs if name in producers]
    while waiting:
        layer = producers[waiting.pop()]
        found.add(layer.name)
        if layer.op in _PASS_ON:
            waiting += [name for name in layer.inputs if name in producers]
    return found
