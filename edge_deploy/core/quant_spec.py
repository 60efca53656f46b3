"""What the user asks of the numbers: bits, granularity, ranges, and what may be done where that cannot be had."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_rule import WIDTHS, LayerRule, LayerTraits, RangeMethod, WeightScale, bind_rules
from edge_deploy.core.passes import DEFAULT, PASSES
from edge_deploy.core.precision import PRECISIONS, Activations, find_precision

__all__ = [
    "RECIPES",
    "LayerRule",
    "LayerSettings",
    "LayerTraits",
    "QuantSpec",
    "RangeMethod",
    "Recipe",
    "spec_for_recipe",
]

# A type checker needs the names spelled out; a test holds them against PRECISIONS.
Recipe: TypeAlias = Literal[
    "float32", "float16", "int8", "int4", "int8-dynamic", "int8-weight", "int4-weight", "int16x8"
]
RECIPES: tuple[Recipe, ...] = get_args(Recipe)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSettings:
    """What is asked of one layer: a precision's settings as the rules leave them."""

    weight_bits: int
    activations: Activations
    weight_scale: WeightScale


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantSpec:
    """One precision as asked.

    Attributes:
        recipe: Name of the precision that counts where no rule says otherwise.
        label: Name of the recipe file that it comes from; empty for a plain precision.
        weight_bits: 32 (float), 16 (float16), 8 or 4; of tables and weights.
        mlp_bits: Of the MLPs of a recommender: 32, 16, 8 or 4.
        fallback_bits: What a layer that cannot have `weight_bits` may get instead; None refuses.
        io: Type of the artifact's inputs and outputs.
        table_scale: One scale per embedding row, or one per table.
        plain_pte: INT4 of a CNN on ExecuTorch as one `.pte` without a `.ptd`: 1x1 convolutions become linears with
            packed weights, other convolutions cannot have 4 bits. False: all are stored packed in a `.ptd`.
        for_device: A phone's hybrid recommender or a microcontroller's full-integer one.
        range_method: How calibration sets the range of an activation: its extremes, a central percentile, the least
            relative entropy ("kl") or the least squared error ("mse").
        percentile: With range method "percentile": values outside the central `percentile` % are clipped.
        rules: Later rules win over earlier ones and over `weight_bits`.
        passes: Which of `core.passes.PASSES` are tried; one that does not lower the error on held calibration samples
            is not applied.
        weight_scale: Of weights that are no tables: one scale for each output channel, or one for the whole tensor
            (for comparisons, TFLite only).
    """

    recipe: Recipe
    label: str = ""
    weight_bits: int = 8
    mlp_bits: int = 8
    fallback_bits: int | None = None
    io: Literal["float", "int8"] = "float"
    table_scale: Literal["row", "table"] = "row"
    plain_pte: bool = False
    for_device: Literal["phone", "mcu"] = "phone"
    range_method: RangeMethod = "percentile"
    percentile: float = 99.999
    rules: tuple[LayerRule, ...] = ()
    passes: tuple[str, ...] = DEFAULT
    weight_scale: WeightScale = "channel"

    def __post_init__(self) -> None:
        problems = []
        for name, value in (("weight_bits", self.weight_bits), ("mlp_bits", self.mlp_bits)):
            if value not in WIDTHS:
                problems.append(f"quantization: {name} = {value}: must be 4, 8, 16 or 32.")
        if self.fallback_bits not in (None, 8, 32):
            problems.append(f"quantization: fallback_bits = {self.fallback_bits}: must be 8, 32 or absent.")
        if not 50 < self.percentile <= 100:
            problems.append(f"quantization: percentile = {self.percentile}: must lie in (50, 100].")
        problems += [
            f"quantization: pass {name}: must be one of {', '.join(PASSES)}."
            for name in self.passes
            if name not in PASSES
        ]
        if problems:
            raise BadInput(*problems)

    @property
    def is_float(self) -> bool:
        """Nothing is quantized: float32, and no rule asks for anything else."""
        return self.recipe == "float32" and all(rule.weight_bits in (None, 32) for rule in self.rules)

    @property
    def name(self) -> str:
        """What reports and folders call it: the recipe file's name, or the precision's."""
        return self.label or self.recipe

    @property
    def activations(self) -> Activations:
        """What layers compute on where no rule says otherwise."""
        return PRECISIONS[self.recipe].activations

    @property
    def needs_ranges(self) -> bool:
        """Whether any layer may get activations whose scale calibration finds."""
        wanted = (self.activations, *(rule.activations for rule in self.rules))
        return any(each in ("int8", "int16") for each in wanted)

    def settings_for(self, layer: str, *, default: int | None = None) -> LayerSettings:
        """What is asked of the layer of this name; rules that look at more than names must be bound before.

        Args:
            default: Bits where no rule says otherwise; None takes `weight_bits`.
        """
        bits = self.weight_bits if default is None else default
        found = LayerSettings(
            weight_bits=bits,
            activations=self.activations,
            weight_scale=self.weight_scale,
        )
        for rule in self.rules:
            if not fnmatch.fnmatchcase(layer, rule.pattern):
                continue
            assert rule.is_bound, "the target binds the rules to the model's layers first"
            found = LayerSettings(
                weight_bits=found.weight_bits if rule.weight_bits is None else rule.weight_bits,
                activations=rule.activations or found.activations,
                weight_scale=rule.weight_scale or found.weight_scale,
            )
        return replace(found, activations="float") if found.weight_bits >= 16 else found

    def bits_for(self, layer: str, *, default: int | None = None) -> int:
        """Weight bits asked of the layer of this name: the last matching rule, else `default`, else `weight_bits`."""
        return self.settings_for(layer, default=default).weight_bits

    def bound(self, layers: Sequence[LayerTraits]) -> tuple[QuantSpec, tuple[str, ...]]:
        """The same spec with rules that layer names alone decide, and a sentence for each rule that fits no layer.

        Args:
            layers: Of the model, in order of execution.
        """
        rules, idle = bind_rules(self.rules, layers)
        return replace(self, rules=rules), idle


def spec_for_recipe(recipe: str, **changes: object) -> QuantSpec:
    """The QuantSpec that a precision's name stands for, with named fields changed.

    Raises:
        BadInput: No such precision, or a field has a wrong value.
    """
    found = find_precision(recipe)
    values: dict[str, object] = {
        "recipe": recipe,
        "weight_bits": found.weight_bits,
        "mlp_bits": found.mlp_bits,
        **changes,
    }
    return QuantSpec(**values)  # type: ignore[arg-type]  # __post_init__ checks the values
