"""A torch graph in the making: TFLite values with the layout they are held in, modules named after layers.

Images are held as [batch, channels, height, width] from the first convolution on, whatever TFLite's axes say, so that a
permutation is needed only where a graph enters and leaves the part that works on images. What depends on constants
alone is computed while building.
"""

from __future__ import annotations

import functools
import keyword
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from converters.importers.tflite_read import Operator, Subgraph
from edge_deploy.core.errors import BadInput

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["IMAGE_AXES", "TO_IMAGE", "TO_PLAIN", "Builder", "Value"]

TO_IMAGE = (0, 3, 1, 2)
"""The permutation from TFLite's axes to those in which images are held."""
TO_PLAIN = (0, 2, 3, 1)
IMAGE_AXES = {0: 0, 1: 2, 2: 3, 3: 1}
"""Where an axis of TFLite stands in a held image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """What stands for one TFLite tensor: a node of the graph, or a tensor where it is known already.

    Attributes:
        shape: In TFLite's axes, whatever the layout.
        layout: "image" when held as NCHW; only for four dimensions.
        is_nonnegative: Known to be, because a ReLU made it.
    """

    node: torch.fx.Node | None = None
    tensor: torch.Tensor | None = None
    shape: tuple[int, ...]
    layout: Literal["plain", "image"] = "plain"
    is_nonnegative: bool = False

    @property
    def is_image(self) -> bool:
        """Held as NCHW."""
        return self.layout == "image"


class Builder:
    """Collects modules and their wiring, operator by operator."""

    def __init__(self, source: Subgraph, *, channels_first: bool = False) -> None:
        import torch

        self._source = source
        self._channels_first = channels_first
        self._root = torch.nn.Module()
        self._graph = torch.fx.Graph()
        self._values: dict[int, Value] = {}
        self._images: dict[int, Value] = {}
        self._parameters: dict[tuple[int, str], Any] = {}
        self._names: set[str] = set()
        for index in source.inputs:
            entry = source.tensors[index]
            node = self._graph.placeholder(self._unique(entry.name))
            is_image = channels_first and len(entry.shape) == len(TO_IMAGE)
            self._values[index] = Value(node=node, shape=entry.shape, layout="image" if is_image else "plain")

    def shape(self, index: int) -> tuple[int, ...]:
        """The shape that the file gives for a tensor, in TFLite's axes."""
        return self._source.tensors[index].shape

    def dtype(self, index: int) -> str:
        """The type that the file gives for a tensor."""
        return self._source.tensors[index].dtype

    def constant(self, index: int) -> np.ndarray | None:
        """The values of a tensor in TFLite's axes where they are known while building."""
        if index in self._values:
            tensor = self._values[index].tensor
            return None if tensor is None else np.asarray(self._plain(self._values[index]).tensor)
        return self._source.tensors[index].constant

    def needed(self, op: Operator, place: int, what: str) -> np.ndarray:
        """The constant at input `place`.

        Raises:
            Unsupported: It is not a constant.
        """
        found = self.constant(op.inputs[place]) if self.has(op, place) else None
        if found is None:
            raise op.refuse(f"its {what} must be constant")
        return found

    def has(self, op: Operator, place: int) -> bool:
        """Whether the optional input `place` is given."""
        return place < len(op.inputs) and op.inputs[place] >= 0

    def value(self, index: int) -> Value:
        """A tensor in whatever layout it is held.

        Raises:
            BadInput: No operator made it.
        """
        import torch

        if index not in self._values:
            entry = self._source.tensors[index]
            if entry.constant is None:
                raise BadInput(f"tensor {entry.name}: is read before any operator makes it.")
            tensor = torch.from_numpy(entry.constant.copy())
            self._values[index] = Value(tensor=tensor, shape=entry.shape)
        return self._values[index]

    def plain(self, index: int) -> Value:
        """A tensor in TFLite's axes."""
        return self._plain(self.value(index))

    def image(self, index: int) -> Value:
        """A four-dimensional tensor held as NCHW."""
        value = self.value(index)
        if value.is_image:
            return value
        if index not in self._images:
            self._images[index] = self.to_image(value, self._source.tensors[index].name)
        return self._images[index]

    def to_image(self, value: Value, name: str) -> Value:
        """`value` held as NCHW, with leading dimensions of 1 where it has fewer than four."""
        if value.is_image:
            return value
        shape = (1,) * (4 - len(value.shape)) + value.shape
        if len(value.shape) < 4:
            value = self.emit(f"{name}_expand", lambda x: x.reshape(shape), [value], shape=shape)
        # Contiguous, or torch takes the view for a channels-last image, whose pooling ends in a portable as_strided.
        moved = self.emit(f"{name}_nchw", lambda x: x.permute(TO_IMAGE).contiguous(), [value], shape=shape)
        return replace(moved, layout="image", is_nonnegative=value.is_nonnegative)

    def _plain(self, value: Value) -> Value:
        if not value.is_image:
            return value
        name = "constant" if value.node is None else value.node.name
        moved = self.emit(f"{name}_nhwc", lambda x: x.permute(TO_PLAIN), [value], shape=value.shape)
        return replace(moved, layout="plain", is_nonnegative=value.is_nonnegative)

    def rows(self, index: int) -> Value:
        """A tensor as [batch, rest] in TFLite's order of elements."""
        value = self.value(index)
        name = self._source.tensors[index].name
        shape = (value.shape[0], int(np.prod(value.shape[1:])))
        if value.is_image and not (value.shape[1] == value.shape[2] == 1 or value.shape[3] == 1):
            value = self._plain(value)
        if len(value.shape) == 2:
            return value
        return self.emit(f"{name}_flatten", lambda x: x.flatten(1), [value], shape=shape)

    def emit(
        self,
        name: str,
        module: nn.Module | Callable[..., Any],
        values: Sequence[Value],
        *,
        shape: tuple[int, ...],
        layout: Literal["plain", "image"] = "plain",
        is_nonnegative: bool = False,
    ) -> Value:
        """Apply a module, or a function that becomes one, to values; returns the result.

        Args:
            name: Of the layer; made a valid and unique module name.
            shape: Of the result, in TFLite's axes.
        """
        import torch

        if not isinstance(module, torch.nn.Module):
            module = _apply_class()(module)
        known = [value.tensor for value in values]
        made = Value(shape=shape, layout=layout, is_nonnegative=is_nonnegative)
        if all(tensor is not None for tensor in known):
            with torch.no_grad():
                return replace(made, tensor=module(*known))
        target = self._unique(name)
        self._root.add_module(target, module)
        nodes = tuple(self._node(value, target) for value in values)
        return replace(made, node=self._graph.call_module(target, nodes))

    def _node(self, value: Value, reader: str) -> torch.fx.Node:
        if value.node is not None:
            return value.node
        name = self._unique(f"{reader}_constant")
        self._root.register_buffer(name, value.tensor)
        return self._graph.get_attr(name)

    def set(self, index: int, value: Value) -> None:
        """Let `value` stand for the tensor `index`."""
        self._values[index] = value

    def parameter(self, index: int, use: str, arrange: Callable[[np.ndarray], np.ndarray]) -> Any:
        """The constant tensor `index` as a parameter, arranged for torch; one parameter for all layers that share it.

        Args:
            use: Names the arrangement, so that two arrangements of one tensor stay apart.
        """
        import torch

        key = (index, use)
        if key not in self._parameters:
            values = self.constant(index)
            assert values is not None
            # copied: the file's bytes must not change when the module is trained
            array = np.array(arrange(values), order="C")
            self._parameters[key] = torch.nn.Parameter(torch.from_numpy(array), requires_grad=False)
        return self._parameters[key]

    def finish(self) -> nn.Module:
        """The module, in evaluation mode."""
        import torch

        results = []
        for index in self._source.outputs:
            is_image = self._channels_first and len(self.shape(index)) == len(TO_IMAGE)
            value = self.image(index) if is_image else self.plain(index)
            results.append(self._node(value, "output"))
        self._graph.output(results[0] if len(results) == 1 else tuple(results))
        module = torch.fx.GraphModule(self._root, self._graph, class_name="ImportedTflite")
        module.graph.eliminate_dead_code()
        module.delete_all_unused_submodules()
        module.recompile()
        return module.eval()

    def _unique(self, name: str) -> str:
        base = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "layer"
        if base[0].isdigit() or keyword.iskeyword(base) or hasattr(self._root, base):
            base = f"layer_{base}"
        unique, number = base, 1
        while unique in self._names:
            number += 1
            unique = f"{base}_{number}"
        self._names.add(unique)
        return unique


@functools.cache
def _apply_class() -> Any:
    """A module that applies a function; made on first use because its base class is torch's."""
    from torch import nn

    class Apply(nn.Module):  # type: ignore[misc]  # torch ships no types here
        """A step without parameters; a module, so that the graph knows it by its layer's name."""

        def __init__(self, function: Callable[..., Any]) -> None:
            super().__init__()
            self.function = function

        def forward(self, *values: Any) -> Any:
            """The function's result."""
            return self.function(*values)

    return Apply
