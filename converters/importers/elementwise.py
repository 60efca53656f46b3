"""Operators on pairs of values, broadcast; they keep images as they are held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from converters.importers.activations import fused
from converters.importers.build import Builder, Value
from converters.importers.tflite_read import Operator

__all__ = ["OPERATORS", "together"]


def together(op: Operator, build: Builder) -> list[Value]:
    """The inputs of `op` in one layout: as images when any of them is held as one."""
    values = [build.value(index) for index in op.inputs]
    if not any(value.is_image for value in values):
        return values
    return [
        build.image(index) if len(value.shape) == 4 else build.to_image(value, f"{op.layer}_{place}")
        for place, (index, value) in enumerate(zip(op.inputs, values, strict=True))
    ]


def _function(kind: str) -> Callable[..., Any]:
    import torch

    functions: dict[str, Callable[..., Any]] = {
        "ADD": torch.add,
        "SUB": torch.sub,
        "MUL": torch.mul,
        "DIV": torch.div,
        "MAXIMUM": torch.maximum,
        "MINIMUM": torch.minimum,
        "POW": torch.pow,
        "SQUARED_DIFFERENCE": lambda a, b: torch.square(a - b),
        "FLOOR_DIV": lambda a, b: torch.div(a, b, rounding_mode="floor"),
        "FLOOR_MOD": torch.remainder,
        "LESS": torch.lt,
        "LESS_EQUAL": torch.le,
        "GREATER": torch.gt,
        "GREATER_EQUAL": torch.ge,
        "EQUAL": torch.eq,
        "NOT_EQUAL": torch.ne,
        "LOGICAL_AND": torch.logical_and,
        "LOGICAL_OR": torch.logical_or,
        "SELECT": torch.where,
        "SELECT_V2": torch.where,
    }
    return functions[kind]


def _elementwise(op: Operator, build: Builder) -> None:
    import torch

    function = _function(op.kind)
    if op.kind == "DIV" and build.dtype(op.inputs[0]).startswith("int"):

        def function(a: Any, b: Any) -> Any:
            return torch.div(a, b, rounding_mode="trunc")

    values = together(op, build)
    if op.kind == "SELECT" and len(values[0].shape) not in (0, len(values[1].shape)):
        raise op.refuse("its condition chooses whole rows", "use SELECT_V2")
    layout = values[0].layout if not any(value.is_image for value in values) else "image"
    made = build.emit(op.layer, function, values, shape=build.shape(op.outputs[0]), layout=layout)
    build.set(op.outputs[0], fused(op, build, made))


def _sum_of_many(op: Operator, build: Builder) -> None:
    values = together(op, build)
    made = build.emit(
        op.layer, lambda *all_of_them: sum(all_of_them), values, shape=values[0].shape, layout=values[0].layout
    )
    build.set(op.outputs[0], made)


_PAIRS = (
    *("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "POW", "SQUARED_DIFFERENCE", "FLOOR_DIV", "FLOOR_MOD"),
    *("LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL", "EQUAL", "NOT_EQUAL", "LOGICAL_AND", "LOGICAL_OR"),
    *("SELECT", "SELECT_V2"),
)

OPERATORS = {**dict.fromkeys(_PAIRS, _elementwise), "ADD_N": _sum_of_many}
"""How each operator is built."""
