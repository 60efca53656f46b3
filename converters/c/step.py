"""What an operator becomes: a call in C with its constants, and what the planner must know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from converters.c.graph import Node, Tensor

__all__ = ["Constant", "Overlap", "Step", "Weights", "buffer", "weights_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The weights of a layer, as the comment above their array names them.

    Attributes:
        shape: Of the weights, which padding of packed rows does not change.
    """

    layer: str
    op: str
    dtype: str
    granularity: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """An array for flash.

    Attributes:
        name: Becomes `<name>_<number of the step>` in C; equal arrays are stored once.
        weights: What is said of them where these are the weights of a layer.
    """

    name: str
    values: np.ndarray
    weights: Weights | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """How the output may lie over an input that no later step reads: input - output >= gap bytes.

    Attributes:
        multiple: The distance must also be a multiple of this.
    """

    gap: int
    multiple: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One operator in C.

    Attributes:
        call: Statement with places for what only the whole program knows: <a3> the address of tensor 3, <c:name> a
            constant, <p0> a structure, <s> the scratch memory.
        structures: C type and initializer of the call's parameters, e.g. ("ed_conv", "{...}").
        overlaps: By the index of the input that the output may lie over.
        same_as: Index of the input whose place the output takes without a call, as of RESHAPE.
        can_fail: The call is an expression that is not 0 where an id lies outside its table.
    """

    node: Node
    call: str = ""
    constants: tuple[Constant, ...] = ()
    structures: tuple[tuple[str, str], ...] = ()
    scratch_bytes: int = 0
    overlaps: Mapping[int, Overlap] = field(default_factory=dict)
    same_as: int | None = None
    can_fail: bool = False


def buffer(tensor: Tensor) -> str:
    """The place that stands for a tensor's address in a call; constants are named by the program."""
    return f"<a{tensor.index}>"


def weights_of(node: Node, tensor: Tensor) -> Weights:
    """What is said of a node's weights."""
    many = {"GATHER": "per-row"}.get(node.op, "per-channel")
    channels = {"DEPTHWISE_CONV_2D": tensor.shape[-1:], "GATHER": ()}.get(node.op, tensor.shape[:1])
    one_row = channels == (1,)
    granularity = many if len(tensor.scale) > 1 or (one_row and len(tensor.scale)) else "per-tensor"
    return Weights(
        layer=node.layer,
        op=node.op,
        dtype=tensor.dtype,
        granularity=granularity if len(tensor.scale) else "none",
        shape=tensor.shape,
    )
