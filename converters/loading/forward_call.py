"""Bind the inputs a user declared to the parameters of a module's forward: by name, as list items, or by position."""

from __future__ import annotations

import copy
import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Binding", "bind", "flat_module"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """How flat tensors become the arguments of forward.

    Attributes:
        inputs: The declared inputs in call order.
        slots: For each argument its parameter (None: by position) and the positions of its tensors; several for a list.
    """

    inputs: tuple[TensorInfo, ...]
    slots: tuple[tuple[str | None, tuple[int, ...], bool], ...]

    @property
    def is_plain(self) -> bool:
        """Whether forward takes the tensors one by one, by position."""
        return all(name is None for name, _, _ in self.slots)

    def arguments(self, tensors: tuple[Any, ...]) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments of forward."""
        positional: list[Any] = []
        keyword: dict[str, Any] = {}
        for name, indices, is_list in self.slots:
            value = [tensors[index] for index in indices] if is_list else tensors[indices[0]]
            if name is None:
                positional.append(value)
            else:
                keyword[name] = value
        return positional, keyword


def bind(source: str, module: nn.Module, inputs: tuple[TensorInfo, ...]) -> Binding:
    """Match names to parameters: `x` is the parameter x, `x_0`, `x_1`, ... a list for it; other names go by position.

    Raises:
        BadInput: No input is declared, two have one name, or some names fit forward and others do not.
    """
    if not inputs:
        raise BadInput(
            f"--source {source}: needs its inputs: pass --input NAME:SHAPE[:DTYPE], e.g. --input x:1x3x32x32."
        )
    names = [info.name for info in inputs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"--input {', '.join(twice)}: named twice.")
    parameters = _parameters(module)
    grouped: dict[str, dict[int | None, int]] = {}
    unknown = []
    for position, name in enumerate(names):
        item = re.fullmatch(r"(.+)_(\d+)", name)
        if name in parameters:
            grouped.setdefault(name, {})[None] = position
        elif item and item.group(1) in parameters:
            grouped.setdefault(item.group(1), {})[int(item.group(2))] = position
        else:
            unknown.append(name)
    if len(unknown) == len(names):
        return Binding(inputs=inputs, slots=tuple((None, (index,), False) for index in range(len(inputs))))
    required = [name for name, has_default in parameters.items() if not has_default and name not in grouped]
    problems = [
        f"--input {name}: forward({', '.join(parameters)}) of {source} has no such parameter." for name in unknown
    ] + [
        f"--source {source}: forward needs {name}: declare it with --input {name}:SHAPE[:DTYPE], or "
        f"its items with --input {name}_0:SHAPE[:DTYPE], {name}_1, ... where it is a list."
        for name in required
    ]
    for name, items in grouped.items():
        if None not in items and sorted(items) != list(range(len(items))):  # type: ignore[type-var]  # no None among them
            problems.append(f"--input {name}_N: the items of the list must be numbered from 0 without gaps.")
    if problems:
        raise BadInput(*problems)
    return _in_call_order(inputs, parameters, grouped)


def _in_call_order(
    inputs: tuple[TensorInfo, ...], parameters: dict[str, bool], grouped: dict[str, dict[int | None, int]]
) -> Binding:
    ordered: list[TensorInfo] = []
    slots: list[tuple[str | None, tuple[int, ...], bool]] = []
    leading = True  # as long as no parameter was left out and none is a list, the arguments go by position
    for name in parameters:
        if name not in grouped:
            leading = False
            continue
        items = grouped[name]
        is_list = None not in items
        leading = leading and not is_list
        positions = [items[key] for key in sorted(items, key=lambda key: -1 if key is None else key)]
        slots.append((None if leading else name, tuple(range(len(ordered), len(ordered) + len(positions))), is_list))
        ordered += [inputs[position] for position in positions]
    return Binding(inputs=tuple(ordered), slots=tuple(slots))


def _parameters(module: nn.Module) -> dict[str, bool]:
    """Parameters of forward that can be named, and whether each has a default."""
    return {
        name: parameter.default is not parameter.empty
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


def flat_module(module: nn.Module, binding: Binding) -> nn.Module:
    """The module itself where it takes tensors by position, else one of the same parameters and names that does."""
    if binding.is_plain:
        return module
    torch = require("torch", extra="export-tflite")
    kind = type(module)
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    if "forward" in vars(module) or any(hooks) or isinstance(module, torch.jit.ScriptModule):
        return _around(torch, module, binding)

    class FlatInputs(kind):  # type: ignore[misc,valid-type]  # a class of the user's
        def forward(self, *tensors: Any) -> Any:
            positional, keyword = binding.arguments(tensors)
            return kind.forward(self, *positional, **keyword)

    # A module around it would put its own name before those of all layers.
    flat = copy.copy(module)
    flat.__class__ = FlatInputs
    return flat.eval()


def _around(torch: Any, module: nn.Module, binding: Binding) -> nn.Module:
    class FlatInputs(torch.nn.Module):  # type: ignore[misc]  # torch ships no types here
        def __init__(self) -> None:
            super().__init__()
            self.model = module

        def forward(self, *tensors: Any) -> Any:
            positional, keyword = binding.arguments(tensors)
            return self.model(*positional, **keyword)

    return FlatInputs().eval()
