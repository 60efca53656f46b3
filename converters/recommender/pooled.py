"""Read one component of a looked-up vector off its label: which table, which ids, how they are pooled.

What is read of masks, divisors and weights is a hypothesis; `recognise` proves the whole structure on numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converters.recommender.labels import Affine, Const, Dot, Input, Labels, Opaque, Row, Sum

__all__ = ["Pooled", "id_element", "read_pooled"]

Element = tuple[int, int]  # input number, place in the input's memory order


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """A look-up in terms of input elements.

    Attributes:
        table: id() of the table's `tensor`.
        ids: The elements that are looked up, in order.
        offset: What is added to them first (several fields in one table).
        weights: Elements of the per-sample weights, in the order of `ids`; empty when there are none.
    """

    table: int
    tensor: Any = field(compare=False, repr=False)
    name: str
    rows: int
    dim: int
    ids: tuple[Element, ...]
    offset: int
    pooling: str
    padding_index: int | None
    weights: tuple[Element, ...] = ()


@dataclass(slots=True)
class _Found:
    """What stands below one label."""

    rows: list[tuple[Row, int]]
    inputs: list[Element]
    compared: set[int]
    divided: bool = False
    needs_raw_ids: bool = False
    deep: bool = False


def read_pooled(labels: Labels, label: int) -> tuple[Pooled, int] | None:
    """The look-up that `label` is a component of, and which; None when it is something else."""
    block, place, _ = labels.find(label)
    if isinstance(block, Row):
        own_id = id_element(labels, block.id_label)
        return None if own_id is None else (_pooled(block, [own_id], "none", None), place)
    if not isinstance(block, (Sum, Dot, Opaque, Affine)) or (isinstance(block, Affine) and not _is_mean(labels, label)):
        return None
    if _is_product_of_rows(labels, label):
        return None
    found = _Found(rows=[], inputs=[], compared=set())
    _collect(labels, label, found)
    if found.deep or not found.rows:
        return None
    first, component = found.rows[0]
    if any(at != component or row.table is not first.table for row, at in found.rows):
        return None
    ids = [id_element(labels, row.id_label) for row, _ in found.rows]
    if found.needs_raw_ids and not all(_is_raw_id(labels, row.id_label) for row, _ in found.rows):
        return None
    known = [element for element in ids if element is not None]
    if len(known) != len(ids) or len({offset for _, offset in known}) != 1 or len(set(known)) != len(known):
        return None
    looked_up = {element for element, _ in known}
    weights = [element for element in dict.fromkeys(found.inputs) if element not in looked_up]
    if weights and len(weights) != len(known):
        return None
    padding = None
    if found.compared:
        if len(found.compared) != 1:
            return None
        padding = found.compared.pop()
    pooling = "mean" if found.divided else "sum"
    return _pooled(first, known, pooling, padding, tuple(weights)), component


def _pooled(
    row: Row,
    ids: list[tuple[Element, int]],
    pooling: str,
    padding: int | None,
    weights: tuple[Element, ...] = (),
) -> Pooled:
    return Pooled(
        table=id(row.table),
        tensor=row.table,
        name=row.name,
        rows=int(row.table.shape[0]),
        dim=int(row.table.shape[1]),
        ids=tuple(element for element, _ in ids),
        offset=ids[0][1],
        pooling=pooling,
        padding_index=padding,
        weights=weights,
    )


def _is_product_of_rows(labels: Labels, label: int) -> bool:
    """Whether looked-up values are multiplied with each other below `label`: an interaction, not a pool."""
    block, place, _ = labels.find(label)
    if isinstance(block, Dot):
        terms = zip(block.left[place], block.right[place], strict=True)
        one, two = next(((a, b) for a, b in terms if a != 0 and b != 0), (0, 0))
        return _has_row(labels, int(one)) and _has_row(labels, int(two))
    if isinstance(block, Sum):
        return block.args.shape[1] > 0 and _is_product_of_rows(labels, int(block.args[place][0]))
    return False


def _has_row(labels: Labels, label: int) -> bool:
    found = _Found(rows=[], inputs=[], compared=set())
    _collect(labels, label, found)
    return bool(found.rows)


def _collect(labels: Labels, label: int, found: _Found) -> None:
    """Everything below `label` down to rows, inputs and constants.

    Masks and weights are the same for every component of a vector, so what stands below them is remembered.
    """
    if found.deep:
        return
    known = labels.remembered.get(label)
    if known is None:
        block, _, _ = labels.find(label)
        if isinstance(block, (Row, Input, Const)):
            _collect_below(labels, label, found)
            return
        known = _Found(rows=[], inputs=[], compared=set())
        _collect_below(labels, label, known)
        if not known.rows:
            labels.remembered[label] = known
    found.rows += known.rows
    found.inputs += known.inputs
    found.compared |= known.compared
    found.divided |= known.divided
    found.needs_raw_ids |= known.needs_raw_ids
    found.deep |= known.deep


def _collect_below(labels: Labels, label: int, found: _Found) -> None:
    block, place, _ = labels.find(label)
    if isinstance(block, Row):
        found.rows.append((block, place))
    elif isinstance(block, Input):
        found.inputs.append((block.index, place))
    elif isinstance(block, Affine):
        found.divided |= _is_mean(labels, label)
        _collect(labels, int(block.args[place]), found)
    elif isinstance(block, Sum):
        for arg in block.args[place]:
            _collect(labels, int(arg), found)
    elif isinstance(block, Dot):
        for one, two in zip(block.left[place], block.right[place], strict=True):
            if one != 0 and two != 0:
                _collect(labels, int(one), found)
                _collect(labels, int(two), found)
    elif isinstance(block, Opaque):
        if block.op in ("div", "reciprocal"):
            found.divided = True
        if block.op in ("ne", "eq"):
            number = _number(labels, block.args[place])
            found.compared |= set() if number is None else {number}
            # A count of ids that is compared with zero keeps an empty bag from being divided by it.
            found.deep |= number is None and not any(_is_zero(labels, int(label)) for label in block.args[place])
        elif block.op in ("gt", "ge", "lt", "le"):
            # A mask by order (ids below zero as padding, lengths, offsets) depends on values that the proof's random
            # inputs cannot be trusted to visit; only "above zero" is the same as "not zero" for ids of a table.
            number = _number(labels, block.args[place])
            above_zero = (block.op, number) in (("gt", 0), ("ge", 1)) and _is_raw_id(labels, int(block.args[place][0]))
            found.compared |= {0} if above_zero else set()
            found.needs_raw_ids |= above_zero
            found.deep |= not above_zero
        for arg in block.args[place]:
            _collect(labels, int(arg), found)
    elif not isinstance(block, Const):
        found.deep = True


def _is_mean(labels: Labels, label: int) -> bool:
    """Whether `label` is a sum divided by the number of its terms."""
    block, place, _ = labels.find(label)
    if not isinstance(block, Affine) or block.shift[place] != 0:
        return False
    inner, at, _ = labels.find(int(block.args[place]))
    if isinstance(inner, Sum):
        terms = inner.args.shape[1]
    elif isinstance(inner, Dot):
        # Terms whose factor is zero are of other bags.
        terms = int(((inner.left[at] != 0) & (inner.right[at] != 0)).sum())
    else:
        return False
    return terms > 1 and bool(abs(float(block.scale[place]) * terms - 1) < 1e-6)


def _number(labels: Labels, operands: np.ndarray) -> int | None:
    """The constant that an input element is compared with, counted before any offset."""
    for label, other in (operands, operands[::-1]):
        block, place, _ = labels.find(int(label))
        if isinstance(block, Const):
            element = id_element(labels, int(other))
            return None if element is None else int(block.values[place]) - element[1]
    return None


def _is_raw_id(labels: Labels, label: int) -> bool:
    """Whether an id is looked up as it comes in, so that a negative one is an error in the source."""
    return isinstance(labels.find(label)[0], Input)


def _wraps(labels: Labels, operands: np.ndarray) -> bool:
    """Whether a choice is between an id counted from the table's end, where it is negative, and the id itself."""
    condition, place, _ = labels.find(int(operands[0]))
    if not isinstance(condition, Opaque) or condition.op != "lt":
        return False
    ends = [id_element(labels, int(label)) for label in (condition.args[place][0], operands[1], operands[2])]
    return ends[0] is not None and all(end is not None and end[0] == ends[0][0] for end in ends)


def _without_wrap(labels: Labels, terms: np.ndarray) -> int | None:
    """The id of id + rows * (id < 0), which counts a negative one from the table's end; None for another sum."""
    if len(terms) != 2:
        return None
    for kept, other in (terms, terms[::-1]):
        block, place, _ = labels.find(int(other))
        if not isinstance(block, Affine) or block.shift[place] != 0:
            continue
        below, at, _ = labels.find(int(block.args[place]))
        if not isinstance(below, Opaque) or below.op != "lt":
            continue
        zero = int(below.args[at][1])
        compared = id_element(labels, int(below.args[at][0]))
        if _is_zero(labels, zero) and compared is not None and compared == id_element(labels, int(kept)):
            return int(kept)
    return None


def _is_zero(labels: Labels, label: int) -> bool:
    block, place, _ = labels.find(label)
    return isinstance(block, Const) and float(block.values[place]) == 0


def id_element(labels: Labels, label: int) -> tuple[Element, int] | None:
    """The input element that an id is, and the offset added to it; clamps to a table's rows change nothing."""
    offset = 0
    block, place, _ = labels.find(label)
    while not isinstance(block, Input):
        if isinstance(block, Affine) and block.scale[place] == 1 and block.shift[place] == int(block.shift[place]):
            offset += int(block.shift[place])
            label = int(block.args[place])
        elif isinstance(block, Opaque) and block.op.startswith(("clamp", "maximum", "minimum")):
            label = int(block.args[place][0])
        elif isinstance(block, Opaque) and block.op == "where" and _wraps(labels, block.args[place]):
            label = int(block.args[place][2])
        elif isinstance(block, Sum) and (kept := _without_wrap(labels, block.args[place])) is not None:
            label = kept
        else:
            return None
        block, place, _ = labels.find(label)
    return (block.index, place), offset
