"""Multiply products of sums of looked-up values out, until they are dot products of two look-ups each."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from converters.recommender.interpret import NotUnderstood
from converters.recommender.labels import Affine, Const, Dot, Labels, Row, Sum
from converters.recommender.pooled import id_element

__all__ = ["multiply_out"]

MOST_TERMS = 1 << 21  # beyond it the program is no recommender of ours
NOTHING = 1e-9  # of the largest coefficient: what is left where terms cancel
Vector = tuple[int, int]  # number of a Row's block, which is one looked-up vector, and its component
ONE = (-1, 0)  # stands for the number one


def multiply_out(labels: Labels, products: Iterable[tuple[tuple[np.ndarray, np.ndarray], float]]) -> dict[int, float]:
    """New labels for dot products of two look-ups, and single looked-up values, with their coefficients.

    Args:
        products: ((left, right), factor): factor times the dot product of two rows of labels.

    Raises:
        NotUnderstood: Something else than looked-up values is multiplied, or what is left is no dot product of whole
            vectors.
    """
    sums = _Sums(labels)
    found: dict[tuple[Vector, Vector], float] = {}
    for (left, right), factor in products:
        for one, other in zip(left, right, strict=True):
            terms, others = sums.read(int(one)), sums.read(int(other))
            if len(terms) * len(others) + len(found) > MOST_TERMS:
                raise NotUnderstood("a product of large sums")
            for a, x in terms.items():
                for b, y in others.items():
                    key = (a, b) if a <= b else (b, a)
                    found[key] = found.get(key, 0.0) + factor * x * y
    largest = max((abs(value) for value in found.values()), default=0.0)
    left_over = {key: value for key, value in found.items() if abs(value) > NOTHING * largest}
    return _dot_products(labels, left_over)


def _dot_products(labels: Labels, terms: dict[tuple[Vector, Vector], float]) -> dict[int, float]:
    by_pair: dict[tuple[int, int], dict[tuple[int, int], float]] = {}
    for ((one, at), (other, there)), factor in terms.items():
        by_pair.setdefault((one, other), {})[at, there] = factor
    result: dict[int, float] = {}
    for (one, other), components in by_pair.items():
        if ONE[0] in (one, other):
            raise NotUnderstood("a product with a number besides")
        width = int(labels.block(one).table.shape[1])
        factor = components.get((0, 0), 0.0)
        same = all(np.isclose(components.get((k, k), 0.0), factor, rtol=1e-6) for k in range(width))
        if one == other or len(components) != width or not same:
            raise NotUnderstood("a product of other things than two looked-up vectors")
        rows = [labels.start(number) + np.arange(width) for number in (one, other)]
        (label,) = labels.add(Dot(left=rows[0][None], right=rows[1][None]), 1)
        result[int(label)] = factor
    return result


class _Sums:
    """Reads sums of looked-up values; what was read is remembered."""

    def __init__(self, labels: Labels) -> None:
        self._labels = labels
        self._known: dict[int, dict[Vector, float]] = {}
        self._first: dict[tuple[int, object], int] = {}

    def read(self, label: int) -> dict[Vector, float]:
        """What `label` is a sum of, with coefficients.

        Raises:
            NotUnderstood: Something that is not looked up.
        """
        if label not in self._known:
            self._known[label] = self._read(label)
        return self._known[label]

    def _read(self, label: int) -> dict[Vector, float]:
        result: dict[Vector, float] = {}
        stack = [(label, 1.0)]
        while stack:
            current, factor = stack.pop()
            block, place, number = self._labels.find(current)
            if isinstance(block, Row):
                # The same row may be looked up several times.
                name = (id(block.table), id_element(self._labels, block.id_label) or block.id_label)
                key = (self._first.setdefault(name, number), place)
            elif isinstance(block, Affine):
                stack.append((int(block.args[place]), factor * float(block.scale[place])))
                key, factor = ONE, factor * float(block.shift[place])
            elif isinstance(block, Sum):
                stack.extend((int(arg), factor) for arg in block.args[place])
                continue
            elif isinstance(block, Const):
                key, factor = ONE, factor * float(block.values[place])
            else:
                raise NotUnderstood(f"a product of a {type(block).__name__}")
            if factor:
                result[key] = result.get(key, 0.0) + factor
        return result
