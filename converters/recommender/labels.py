"""Every element of every tensor of a program as a label that says how it was computed.

Operators that only move data are run on the labels themselves, so any way of slicing, stacking or gathering is
understood without knowing it; operators that compute make new labels. Label 0 is the number zero.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Affine", "Block", "Const", "Dot", "Input", "Labels", "Linear", "Opaque", "Row", "Sum", "Unary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """Elements of a model input, in memory order."""

    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Const:
    """Known numbers."""

    values: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """`row` (labels [in]) times `weight` [in, out] plus `bias` [out]; both are tensors of the framework."""

    row: np.ndarray
    weight: Any
    bias: Any
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The row of `table` (a tensor [rows, dim]) that the element `id_label` names."""

    table: Any
    name: str
    id_label: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unary:
    """An activation function of `args`."""

    op: str
    args: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """`args` * `scale` + `shift`, with known numbers."""

    args: np.ndarray
    scale: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """Sums over the last axis of `args` [n, terms]."""

    args: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """Dot products over the last axis of `left` and `right` [n, terms]."""

    left: np.ndarray
    right: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Opaque:
    """Another element-wise operator of `args` [n, operands]."""

    op: str
    args: np.ndarray


Block = Input | Const | Linear | Row | Unary | Affine | Sum | Dot | Opaque


class Labels:
    """Gives out labels in blocks and finds the block of a label again.

    Attributes:
        remembered: What readers of labels found below one, by label.
    """

    def __init__(self) -> None:
        self._starts: list[int] = [0]
        self._blocks: list[Block] = [Const(values=np.zeros(1))]
        self._next = 1
        self.remembered: dict[int, Any] = {}

    def add(self, block: Block, size: int) -> np.ndarray:
        """New labels for the `size` elements of `block`."""
        start = self._next
        self._starts.append(start)
        self._blocks.append(block)
        self._next += size
        return np.arange(start, self._next, dtype=np.int64)

    def find(self, label: int) -> tuple[Block, int, int]:
        """The block of `label`, the element's place in it, and the block's number."""
        number = bisect_right(self._starts, label) - 1
        # An empty block shares its start with the next one, which is the one found.
        return self._blocks[number], label - self._starts[number], number

    def block(self, number: int) -> Any:
        """The block of this number, as `find` tells it."""
        return self._blocks[number]

    def start(self, number: int) -> int:
        """The label of a block's first element."""
        return self._starts[number]
