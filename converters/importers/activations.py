"""Activations: those fused into TFLite's operators, and operators of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from converters.importers.build import Builder, Value
from converters.importers.tflite_read import Operator

__all__ = ["OPERATORS", "fused"]

_FUSED = {1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH"}
_NONNEGATIVE = ("RELU", "RELU6", "LOGISTIC", "RELU_0_TO_1", "ABS", "SQUARE", "EXP")


def fused(op: Operator, build: Builder, value: Value) -> Value:
    """`value` after the activation that the operator's options ask for.

    Raises:
        Unsupported: An activation that torch does not have (SIGN_BIT).
    """
    number = op.option("fusedActivationFunction", 0)
    if number == 0:
        return value
    if number not in _FUSED:
        raise op.refuse(f"fused activation {number} is not known")
    return _activated(_FUSED[number], f"{op.layer}_activation", op, build, value)


def _activated(kind: str, name: str, op: Operator, build: Builder, value: Value) -> Value:
    made = build.emit(name, _module(kind, op), [value], shape=value.shape, layout=value.layout)
    return replace(made, is_nonnegative=kind in _NONNEGATIVE)


def _module(kind: str, op: Operator) -> Any:
    import torch
    from torch import nn

    modules: dict[str, Callable[[], Any]] = {
        "RELU": nn.ReLU,
        "RELU6": nn.ReLU6,
        "RELU_N1_TO_1": lambda: nn.Hardtanh(-1.0, 1.0),
        "RELU_0_TO_1": lambda: nn.Hardtanh(0.0, 1.0),
        "TANH": nn.Tanh,
        "LOGISTIC": nn.Sigmoid,
        "HARD_SWISH": nn.Hardswish,
        "ELU": nn.ELU,
        "LEAKY_RELU": lambda: nn.LeakyReLU(op.option("alpha", 0.0)),
        "GELU": lambda: nn.GELU(approximate="tanh" if op.option("approximate", False) else "none"),
    }
    if kind in modules:
        return modules[kind]()
    functions = {
        "EXP": torch.exp,
        "LOG": torch.log,
        "ABS": torch.abs,
        "NEG": torch.neg,
        "SQRT": torch.sqrt,
        "RSQRT": torch.rsqrt,
        "SQUARE": torch.square,
        "SIN": torch.sin,
        "COS": torch.cos,
        "FLOOR": torch.floor,
        "CEIL": torch.ceil,
        "ROUND": torch.round,
        "LOGICAL_NOT": torch.logical_not,
    }
    return functions[kind]


def _unary(op: Operator, build: Builder) -> None:
    build.set(op.outputs[0], _activated(op.kind, op.layer, op, build, build.value(op.inputs[0])))


def _prelu(op: Operator, build: Builder) -> None:
    import torch
    from torch import nn

    slopes = build.needed(op, 1, "slopes")
    shape = build.shape(op.outputs[0])
    if len(shape) == 4 and slopes.size == shape[3] == slopes.shape[-1]:
        module = nn.PReLU(slopes.size)
        module.weight = build.parameter(op.inputs[1], "prelu", lambda array: array.reshape(-1))
        value = build.image(op.inputs[0])
        made = build.emit(op.layer, module, [value], shape=shape, layout="image")
    else:
        values = [build.plain(op.inputs[0]), build.plain(op.inputs[1])]
        made = build.emit(op.layer, lambda x, slope: torch.where(x >= 0, x, x * slope), values, shape=shape)
    build.set(op.outputs[0], made)


def _softmax(op: Operator, build: Builder) -> None:
    from torch import nn

    value, beta = build.value(op.inputs[0]), op.option("beta", 1.0)
    if not np.isclose(beta, 1.0):
        value = build.emit(f"{op.layer}_beta", lambda x: x * beta, [value], shape=value.shape, layout=value.layout)
    module: Any = nn.LogSoftmax if op.kind == "LOG_SOFTMAX" else nn.Softmax
    axis = 1 if value.is_image else -1
    build.set(op.outputs[0], build.emit(op.layer, module(dim=axis), [value], shape=value.shape, layout=value.layout))


_UNARY = (
    *("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "TANH", "LOGISTIC", "HARD_SWISH", "ELU", "LEAKY_RELU", "GELU"),
    *("EXP", "LOG", "ABS", "NEG", "SQRT", "RSQRT", "SQUARE", "SIN", "COS", "FLOOR", "CEIL", "ROUND", "LOGICAL_NOT"),
)

OPERATORS = {**dict.fromkeys(_UNARY, _unary), "PRELU": _prelu, "SOFTMAX": _softmax, "LOG_SOFTMAX": _softmax}
"""How each operator is built."""
