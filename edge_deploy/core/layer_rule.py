"""Rules that give some layers other settings than the rest, and how they meet the layers of a model."""

from __future__ import annotations

import difflib
import fnmatch
import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from edge_deploy.core.errors import BadInput
from edge_deploy.core.precision import Activations

__all__ = ["WIDTHS", "WeightScale", "LayerRule", "LayerTraits", "RangeMethod", "bind_rules"]

RangeMethod: TypeAlias = Literal["min-max", "percentile", "kl", "mse"]
WeightScale: TypeAlias = Literal["channel", "tensor"]
WIDTHS = (4, 8, 16, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTraits:
    """What a rule can know of a layer.

    Attributes:
        op: As the target's format names it, e.g. CONV_2D or aten.conv2d.
        family: What it is in every format: "conv", "depthwise", "transposed-conv", "linear", "embedding", "other" (it
            has weights), or "" for one without weights.
        weights: How many it has.
    """

    name: str
    op: str = ""
    family: str = ""
    weights: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRule:
    """Other settings for the layers that fit all of its conditions; what is None stays as it was.

    Attributes:
        pattern: Shell pattern over layer names.
        regex: Regular expression that is found in layer names; empty means all.
        weight_bits: 4, 8, 16 (float16) or 32 (float); with 16 and 32 the layer computes in float.
        activations: What the layer computes on; a layer of 4 or 8 bits without it keeps the precision's.
        operators: Names of operators, or of families (see `LayerTraits`); empty means all.
        position: The first or last layer with weights that is no embedding table.
        min_weights: Only layers with at least that many weights, and `max_weights` with at most that many.
        weight_scale: One scale for each output channel of its weights, or one for all.
        source: Where the rule was written, for messages.
    """

    pattern: str = "*"
    weight_bits: int | None = None
    activations: Activations | None = None
    operators: tuple[str, ...] = ()
    position: Literal["first", "last"] | None = None
    min_weights: int | None = None
    max_weights: int | None = None
    weight_scale: WeightScale | None = None
    source: str = ""
    regex: str = ""

    def __post_init__(self) -> None:
        where = self.source or f"rule {self.pattern}"
        problems = []
        if self.weight_bits is not None and self.weight_bits not in WIDTHS:
            problems.append(f"{where}: weight_bits = {self.weight_bits}: must be 4, 8, 16 or 32.")
        if self.weight_bits in (16, 32) and self.activations not in (None, "float"):
            problems.append(
                f"{where}: activations = {self.activations!r} with weight_bits = {self.weight_bits}: float weights are "
                'computed on floats; leave activations out, or take "float".'
            )
        if all(value is None for value in (self.weight_bits, self.activations, self.weight_scale)):
            problems.append(f"{where}: sets nothing; give weight_bits, activations or weight_scale.")
        if problems:
            raise BadInput(*problems)

    @property
    def is_bound(self) -> bool:
        """Whether a layer's name alone decides if the rule applies."""
        return (
            not self.operators
            and not self.regex
            and (self.position, self.min_weights, self.max_weights) == (None, None, None)
        )

    def fits(self, layer: LayerTraits, *, first: str, last: str) -> bool:
        """Whether it applies to the layer.

        Args:
            first: Name of the model's first layer that `position` means, and `last` of its last one.
        """
        place = {"first": first, "last": last, None: layer.name}[self.position]
        words = {layer.op.lower(), layer.op.lower().removeprefix("aten."), layer.family}
        return (
            fnmatch.fnmatchcase(layer.name, self.pattern)
            and re.search(self.regex, layer.name) is not None
            and layer.name == place
            and (not self.operators or bool(words & {operator.lower() for operator in self.operators}))
            and (self.min_weights is None or layer.weights >= self.min_weights)
            and (self.max_weights is None or 0 < layer.weights <= self.max_weights)
        )


def bind_rules(
    rules: Sequence[LayerRule], layers: Sequence[LayerTraits]
) -> tuple[tuple[LayerRule, ...], tuple[str, ...]]:
    """The rules as they meet a model: those with other conditions than a name become one rule for each layer they fit.

    Args:
        layers: In order of execution.

    Returns:
        Rules that names alone decide, in the same order, and a sentence for each rule that fits no layer.
    """
    placed = [layer.name for layer in layers if layer.weights and layer.family != "embedding"]
    first, last = (placed[0], placed[-1]) if placed else ("", "")
    bound: list[LayerRule] = []
    idle = []
    for number, rule in enumerate(rules, 1):
        found = [layer.name for layer in layers if rule.fits(layer, first=first, last=last)]
        if not found:
            idle.append(_idle(rule, number, layers))
        if rule.is_bound:
            bound.append(rule)
            continue
        free = replace(rule, operators=(), regex="", position=None, min_weights=None, max_weights=None)
        bound += [replace(free, pattern=glob.escape(name)) for name in dict.fromkeys(found)]
    return tuple(bound), tuple(idle)


def _idle(rule: LayerRule, number: int, layers: Sequence[LayerTraits]) -> str:
    conditions = [f"layer {rule.pattern!r}"] if rule.pattern != "*" else []
    conditions += [f"regex {rule.regex!r}"] if rule.regex else []
    conditions += [f"operator {', '.join(rule.operators)}"] if rule.operators else []
    conditions += [f"position {rule.position}"] if rule.position else []
    conditions += [f"min_weights {rule.min_weights}"] if rule.min_weights is not None else []
    conditions += [f"max_weights {rule.max_weights}"] if rule.max_weights is not None else []
    text = f"{rule.source or f'rule {number}'} ({', '.join(conditions) or 'every layer'}): matches no layer"
    names = [layer.name for layer in layers if layer.weights]
    words = sorted({word for layer in layers for word in (layer.op, layer.family) if word})
    close = [] if rule.pattern == "*" else difflib.get_close_matches(rule.pattern, names, n=1, cutoff=0.5)
    for operator in rule.operators:
        close += [] if operator in words else difflib.get_close_matches(operator, words, n=1)
    return text + (f"; did you mean {' or '.join(close)}?" if close else ".")
