"""A recipe in TOML: a precision for the whole model and rules that give some of its layers other settings.

    precision = "int8"          # what counts where no rule says otherwise
    ranges = "mse"              # as --ranges; also: percentile, weight_scale = "channel" or "tensor"

    [[rule]]                    # later rules win over earlier ones, setting by setting
    operator = "conv"           # conv, depthwise, transposed-conv, linear, embedding, or a format's own name
    min_weights = 10000
    weight_bits = 4             # 4, 8, 16 (float16) or 32 (float)

    [[rule]]
    position = "first"          # or "last": of the layers with weights that are no tables
    precision = "float32"       # weight_bits and activations of a precision at once

    [[rule]]
    layer = "block1/*"          # shell pattern over layer names, as `edge-deploy inspect` lists them
    activations = "float"       # float, dynamic, int8 or int16

A rule applies where all of its conditions (layer, operator, position, min_weights, max_weights) hold.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge_deploy.core.aeq_recipe import read_aeq_recipe
from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_rule import LayerRule, RangeMethod, WeightScale
from edge_deploy.core.precision import Activations, find_precision
from edge_deploy.core.quant_spec import QuantSpec, spec_for_recipe
from edge_deploy.core.serde import from_json

__all__ = ["read_recipe", "recipe_from_data"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """A rule as the file has it."""

    layer: str = "*"
    operator: str | tuple[str, ...] = ()
    position: Literal["first", "last"] | None = None
    min_weights: int | None = None
    max_weights: int | None = None
    precision: str | None = None
    weight_bits: int | None = None
    activations: Activations | None = None
    weight_scale: WeightScale | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recipe:
    """A whole file."""

    precision: str = "int8"
    weight_scale: WeightScale | None = None
    ranges: RangeMethod | None = None
    percentile: float | None = None
    table_scale: Literal["row", "table"] | None = None
    rule: tuple[_Rule, ...] = ()


def read_recipe(path: Path, **options: object) -> QuantSpec:
    """The precision and rules that a recipe file asks for; a .json is a recipe of ai-edge-quantizer.

    Args:
        options: Further fields of the QuantSpec; what the file itself sets wins.

    Raises:
        BadInput: Not TOML, unknown keys (close names are suggested), or values that are wrong or contradict each other.
        Unsupported: A recipe of ai-edge-quantizer asks for what has no form here.
    """
    if not re.fullmatch(r"[\w.-]+", path.stem):
        raise BadInput(f"{path}: the name goes into the artifact's folder; use letters, digits, '.', '_' and '-' only.")
    if path.suffix == ".json":
        return read_aeq_recipe(path, **options)
    try:
        with path.open("rb") as file:
            data = tomllib.load(file)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: is not TOML ({error}).") from error
    return recipe_from_data(data, label=path.stem, where=path.name, **options)


def recipe_from_data(data: dict[str, Any], *, label: str, where: str, **options: object) -> QuantSpec:
    """The same from what a TOML file holds.

    Args:
        label: What reports and folders call it.
        where: Where the data comes from, for messages.
    """
    file = from_json(_Recipe, data, where=where)
    problems: list[str] = []
    default = _collect(problems, lambda: find_precision(file.precision, where=f"{where}: precision ="))
    rules = []
    for number, entry in enumerate(file.rule):
        place = f"{where}.rule[{number}]"
        rule = _collect(problems, lambda entry=entry, place=place: _rule(entry, place))
        if rule is None or default is None:
            continue
        rules.append(rule)
        if rule.weight_bits is None and rule.activations not in (None, "float") and default.weight_bits >= 16:
            problems.append(
                f"{place}: activations = {rule.activations!r} without weight_bits, where the precision "
                f"{default.name} leaves weights in float; give weight_bits = 8 or 4."
            )
    if problems:
        raise BadInput(*problems)
    told = {
        "weight_scale": file.weight_scale,
        "range_method": file.ranges,
        "percentile": file.percentile,
        "table_scale": file.table_scale,
    }
    settings = {**options, **{name: value for name, value in told.items() if value is not None}}
    try:
        return spec_for_recipe(file.precision, label=label, rules=tuple(rules), **settings)
    except BadInput as error:
        raise BadInput(*(f"{where}: {problem}" for problem in error.problems)) from error


def _collect(problems: list[str], make: Any) -> Any:
    try:
        return make()
    except BadInput as error:
        problems += error.problems
        return None


def _rule(entry: _Rule, place: str) -> LayerRule:
    bits, activations = entry.weight_bits, entry.activations
    if entry.precision is not None:
        if bits is not None or activations is not None:
            raise BadInput(
                f"{place}: precision = {entry.precision!r} sets weight_bits and activations; leave them out."
            )
        found = find_precision(entry.precision, where=f"{place}: precision =")
        bits, activations = found.weight_bits, found.activations
    for name, value in (("min_weights", entry.min_weights), ("max_weights", entry.max_weights)):
        if value is not None and value < 0:
            raise BadInput(f"{place}: {name} = {value}: must not be negative.")
    return LayerRule(
        pattern=entry.layer,
        weight_bits=bits,
        activations=activations,
        operators=(entry.operator,) if isinstance(entry.operator, str) else entry.operator,
        position=entry.position,
        min_weights=entry.min_weights,
        max_weights=entry.max_weights,
        weight_scale=entry.weight_scale,
        source=place,
    )
