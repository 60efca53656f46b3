"""What the user asks of the numbers: bits, granularity, ranges, and what may be done where that cannot be had."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Literal, TypeAlias

from edge_deploy.core.errors import BadInput

__all__ = ["LayerRule", "QuantSpec", "RangeMethod", "Recipe", "RECIPES", "spec_for_recipe"]

Recipe: TypeAlias = Literal["float32", "int8", "int4"]
RECIPES: tuple[Recipe, ...] = ("float32", "int8", "int4")
RangeMethod: TypeAlias = Literal["min-max", "percentile", "kl", "mse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRule:
    """Another width for some layers.

    Attributes:
        pattern: Shell pattern over layer names.
        weight_bits: 4, 8 or 32 (float).
    """

    pattern: str
    weight_bits: int

    def __post_init__(self) -> None:
        if self.weight_bits not in (4, 8, 32):
            raise BadInput(f"rule {self.pattern}: weight_bits = {self.weight_bits}: must be 4, 8 or 32.")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantSpec:
    """One precision as asked.

    Attributes:
        weight_bits: 32 (float), 8 or 4; of tables and weights.
        mlp_bits: Of the MLPs of a recommender: 32, 8 or 4.
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
    """

    recipe: Recipe
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

    def __post_init__(self) -> None:
        problems = []
        for name, value in (("weight_bits", self.weight_bits), ("mlp_bits", self.mlp_bits)):
            if value not in (4, 8, 32):
                problems.append(f"quantization: {name} = {value}: must be 4, 8 or 32.")
        if self.fallback_bits not in (None, 8, 32):
            problems.append(f"quantization: fallback_bits = {self.fallback_bits}: must be 8, 32 or absent.")
        if not 50 < self.percentile <= 100:
            problems.append(f"quantization: percentile = {self.percentile}: must lie in (50, 100].")
        if problems:
            raise BadInput(*problems)

    @property
    def is_float(self) -> bool:
        """Nothing is quantized."""
        return self.recipe == "float32"

    def bits_for(self, layer: str, *, default: int | None = None) -> int:
        """Weight bits asked of the layer of this name: the last matching rule, else `default`, else `weight_bits`."""
        bits = self.weight_bits if default is None else default
        for rule in self.rules:
            if fnmatch.fnmatchcase(layer, rule.pattern):
                bits = rule.weight_bits
        return bits


def spec_for_recipe(recipe: str, **changes: object) -> QuantSpec:
    """The QuantSpec that a recipe name stands for, with named fields changed.

    Raises:
        BadInput: No such recipe, or a field has a wrong value.
    """
    widths = {"float32": (32, 32), "int8": (8, 8), "int4": (4, 8)}
    if recipe not in widths:
        raise BadInput(f"--precision {recipe}: must be one of {', '.join(RECIPES)}.")
    bits, mlp = widths[recipe]
    values: dict[str, object] = {"recipe": recipe, "weight_bits": bits, "mlp_bits": mlp, **changes}
    return QuantSpec(**values)  # type: ignore[arg-type]  # __post_init__ checks the values
