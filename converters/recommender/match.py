"""Read tables, look-ups, MLPs and their interaction off the labels of a program's output, walking backwards."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from converters.recommender.interpret import NotUnderstood
from converters.recommender.labels import Affine, Const, Dot, Input, Labels, Linear, Sum, Unary
from converters.recommender.model import Activation
from converters.recommender.pooled import Pooled, read_pooled
from converters.recommender.products import multiply_out

__all__ = ["Layer", "Matched", "Vector", "match"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A fully connected layer: weight [out, in], bias [out]."""

    name: str
    weight: np.ndarray
    bias: np.ndarray
    activation: Activation


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """What a column of the top MLP's input, or of a factor of a dot product, is part of.

    Attributes:
        source: "bottom", a `Pooled` look-up, or the number of a dense input.
    """

    source: str | int | Pooled
    component: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """The structure in terms of labels.

    Attributes:
        top: Its first layer's columns belong to `columns`.
        columns: For each input column of `top`: a Vector, or a pair of vector sources for a dot product.
        bottom_columns: (input number, element of the sample) for each input column of the first bottom layer.
    """

    top: tuple[Layer, ...]
    columns: tuple[Vector | tuple[str | Pooled, str | Pooled], ...]
    bottom: tuple[Layer, ...]
    bottom_columns: tuple[tuple[int, int], ...]
    output_activation: Activation


def match(labels: Labels, output: np.ndarray) -> Matched:
    """The structure behind the output elements of one sample.

    Raises:
        NotUnderstood: It is not one of ours.
    """
    return _Matcher(labels).match(output)


@dataclass(slots=True)
class _Matcher:
    labels: Labels
    bottom_row: np.ndarray | None = None
    pools: dict[int, tuple[Pooled, int] | None] = field(default_factory=dict)

    def match(self, output: np.ndarray) -> Matched:
        activation, row = self._activation(output)
        top, row = self._chain(row)
        if not top:
            top, row = self._combination(row)
        first = top[0]
        row, weight, bias = self._absorb(row, first.weight, first.bias)
        columns = self._columns(row)
        bottom: list[Layer] = []
        bottom_columns: tuple[tuple[int, int], ...] = ()
        if self.bottom_row is not None:
            bottom, last = self._chain(self.bottom_row)
            last, below, shift = self._absorb(last, bottom[0].weight, bottom[0].bias)
            bottom[0] = replace(bottom[0], weight=below, bias=shift)
            bottom_columns = tuple(self._dense_element(int(label)) for label in last)
        top[0] = replace(first, weight=weight, bias=bias)
        return Matched(
            top=tuple(top),
            columns=columns,
            bottom=tuple(bottom),
            bottom_columns=bottom_columns,
            output_activation=activation,
        )

    def _blocks(self, row: np.ndarray) -> list[tuple[Any, int, int]]:
        return [self.labels.find(int(label)) for label in row]

    def _activation(self, row: np.ndarray) -> tuple[Activation, np.ndarray]:
        """The activation function that made all of `row`, and what it was applied to."""
        blocks = self._blocks(row)
        ops = {block.op if isinstance(block, Unary) else "none" for block, _, _ in blocks}
        if len(ops) > 1:
            return "none", row
        op = ops.pop()
        if op == "none":
            return "none", row
        return cast(Activation, op), np.array([block.args[place] for block, place, _ in blocks])

    def _affine(self, row: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`row` = inner * scale + shift with known numbers; inner is no Affine."""
        inner = row.copy()
        scale, shift = np.ones(len(row)), np.zeros(len(row))
        for position in range(len(row)):
            block, place, _ = self.labels.find(int(inner[position]))
            # The factor of a mean belongs to its look-up.
            while isinstance(block, Affine) and self._pool(int(inner[position])) is None:
                shift[position] += scale[position] * block.shift[place]
                scale[position] *= block.scale[place]
                inner[position] = block.args[place]
                block, place, _ = self.labels.find(int(inner[position]))
        return inner, scale, shift

    def _absorb(
        self, row: np.ndarray, weight: np.ndarray, bias: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Known factors, shifts and constants of a layer's input row moved into its weight and bias."""
        inner, scale, shift = self._affine(row)
        bias = bias + weight @ shift
        weight = weight * scale
        varying = np.ones(len(inner), bool)
        for position, (block, place, _) in enumerate(self._blocks(inner)):
            if isinstance(block, Const):
                bias = bias + weight[:, position] * block.values[place]
                varying[position] = False
        return inner[varying], weight[:, varying], bias

    def _layer(self, row: np.ndarray) -> tuple[Layer, np.ndarray] | None:
        """The fully connected layer that made `row`, and its input."""
        activation, inner = self._activation(row)
        inner, scale, shift = self._affine(inner)
        blocks = self._blocks(inner)
        linear = blocks[0][0]
        if not isinstance(linear, Linear) or any(number != blocks[0][2] for _, _, number in blocks):
            return None
        places = [place for _, place, _ in blocks]
        weight = linear.weight.detach().double().numpy().T[places] * scale[:, None]
        bias = shift if linear.bias is None else linear.bias.detach().double().numpy()[places] * scale + shift
        return Layer(name=_layer_name(linear.name), weight=weight, bias=bias, activation=activation), linear.row

    def _chain(self, row: np.ndarray) -> tuple[list[Layer], np.ndarray]:
        """All layers down from `row`, first layer first, and the row that enters the first."""
        layers: list[Layer] = []
        while len(row):
            # Factors between two layers belong to the upper one; the lowest row's are absorbed by the caller.
            inner, weight, bias = row, np.empty(0), np.empty(0)
            if layers:
                inner, weight, bias = self._absorb(row, layers[0].weight, layers[0].bias)
            found = self._layer(inner) if len(inner) else None
            if found is None:
                break
            if layers:
                layers[0] = replace(layers[0], weight=weight, bias=bias)
            layer, row = found
            layers.insert(0, layer)
        return layers, row

    def _combination(self, row: np.ndarray) -> tuple[list[Layer], np.ndarray]:
        """An output that is a sum of products and biases, as one layer: matrix factorisation and the like."""
        bias = np.zeros(len(row))
        found: list[dict[int, float]] = []
        for out, label in enumerate(row):
            terms: dict[int, float] = {}
            stack = [(int(label), 1.0)]
            while stack:
                current, factor = stack.pop()
                block, place, _ = self.labels.find(current)
                if isinstance(block, Const):
                    bias[out] += factor * block.values[place]
                elif isinstance(block, Affine):
                    bias[out] += factor * block.shift[place]
                    stack.append((int(block.args[place]), factor * block.scale[place]))
                elif isinstance(block, Sum) and self._pool(current) is None and self._pair(current) is None:
                    stack.extend((int(arg), factor) for arg in reversed(block.args[place]))
                elif isinstance(block, Linear):
                    weights = block.weight.detach().double().numpy()[:, place]
                    bias[out] += 0.0 if block.bias is None else factor * float(block.bias[place])
                    pairs = zip(block.row, weights, strict=True)
                    stack.extend((int(arg), factor * float(w)) for arg, w in reversed(list(pairs)))
                else:
                    terms[current] = terms.get(current, 0.0) + factor
            found.append(self._multiplied_out(terms))
        order = {label: place for place, label in enumerate(dict.fromkeys(label for terms in found for label in terms))}
        weight = np.zeros((len(row), len(order)))
        for out, terms in enumerate(found):
            for label, factor in terms.items():
                weight[out, order[label]] += factor
        if not order:
            raise NotUnderstood("an output without inputs")
        return [Layer(name="top.0", weight=weight, bias=bias, activation="none")], np.array(list(order))

    def _multiplied_out(self, terms: dict[int, float]) -> dict[int, float]:
        """The terms with products of sums as sums of products of two look-ups, where they are nothing else.

        Factorization machines come as half the difference of a squared sum and a sum of squares (Rendle, 2010).
        """
        products = {label: pair for label in terms if (pair := self._pair(label)) is not None}
        if not any(self._needs_multiplying(pair) for pair in products.values()):
            return terms
        expanded = multiply_out(self.labels, ((pair, terms[label]) for label, pair in products.items()))
        return {label: factor for label, factor in terms.items() if label not in products} | expanded

    def _needs_multiplying(self, pair: tuple[np.ndarray, np.ndarray]) -> bool:
        one, other = (self._lookup_row(side) for side in pair)
        return one is None or other is None or one == other

    def _columns(self, row: np.ndarray) -> tuple[Vector | tuple[str | Pooled, str | Pooled], ...]:
        pairs = {int(label): self._pair(int(label)) for label in row}
        rows = [side for pair in pairs.values() if pair is not None for side in pair]
        # The widest row of a product that is no look-up is the bottom MLP's output, in its order.
        for side in rows:
            if self._lookup_row(side) is None:
                self._claim_bottom(side)
        loose = [int(label) for label in row if pairs[int(label)] is None and self._is_hidden(int(label))]
        if self.bottom_row is None and loose:
            self._claim_bottom(np.array(list(dict.fromkeys(loose))))
        columns: list[Vector | tuple[str | Pooled, str | Pooled]] = []
        for label in row:
            pair = pairs[int(label)]
            if pair is not None:
                columns.append((self._source(pair[0]), self._source(pair[1])))
            else:
                columns.append(self._vector(int(label)))
        return tuple(columns)

    def _claim_bottom(self, row: np.ndarray) -> None:
        if self.bottom_row is not None:
            if not np.array_equal(self.bottom_row, row):
                raise NotUnderstood("two bottom MLPs")
            return
        if self._layer(row) is None:
            raise NotUnderstood("a factor of the interaction that is neither a look-up nor an MLP's output")
        self.bottom_row = row

    def _is_hidden(self, label: int) -> bool:
        block, _, _ = self.labels.find(label)
        return isinstance(block, (Unary, Linear))

    def _vector(self, label: int) -> Vector:
        if self.bottom_row is not None:
            place = np.flatnonzero(self.bottom_row == label)
            if len(place):
                return Vector(source="bottom", component=int(place[0]))
        pool = self._pool(label)
        if pool is not None:
            return Vector(source=pool[0], component=pool[1])
        number, element = self._dense_element(label)
        return Vector(source=number, component=element)

    def _dense_element(self, label: int) -> tuple[int, int]:
        block, place, _ = self.labels.find(label)
        if not isinstance(block, Input):
            raise NotUnderstood(f"a {type(block).__name__} where an input of the MLP should be")
        return block.index, place

    def _pool(self, label: int) -> tuple[Pooled, int] | None:
        if label not in self.pools:
            self.pools[label] = read_pooled(self.labels, label)
        return self.pools[label]

    def _pair(self, label: int) -> tuple[np.ndarray, np.ndarray] | None:
        """The two rows whose dot product `label` is; None for anything else."""
        block, place, _ = self.labels.find(label)
        if isinstance(block, Dot):
            left, right = block.left[place], block.right[place]
        elif isinstance(block, Sum):
            parts = self._blocks(block.args[place])
            if not all(isinstance(part, Dot) and part.left.shape[1] == 1 for part, _, _ in parts):
                return None
            left = np.array([part.left[at, 0] for part, at, _ in parts])
            right = np.array([part.right[at, 0] for part, at, _ in parts])
        else:
            return None
        if self._pool(label) is not None:
            return None
        return left, right

    def _lookup_row(self, row: np.ndarray) -> Pooled | None:
        """The look-up whose components 0, 1, ... `row` is."""
        pools = [self._pool(int(label)) for label in row]
        first = pools[0]
        if first is None or any(pool is None or pool[0] != first[0] for pool in pools):
            return None
        components = [pool[1] for pool in pools if pool is not None]
        return first[0] if components == list(range(first[0].dim)) else None

    def _source(self, row: np.ndarray) -> str | Pooled:
        lookup = self._lookup_row(row)
        if lookup is not None:
            return lookup
        if self.bottom_row is not None and np.array_equal(row, self.bottom_row):
            return "bottom"
        raise NotUnderstood("a dot product of parts of vectors")


def _layer_name(parameter: str) -> str:
    name = parameter.rpartition(".")[0] if parameter.endswith(("weight", "bias")) and "." in parameter else parameter
    return name or parameter
