"""In which order an emitted recommender looks up and concatenates, and what that does to the first top layer.

A fused table gives its vectors together, so columns that a source model interleaves come in another order here; the
first top layer's weight is permuted to fit, which costs nothing at run time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from converters.recommender.model import Recommender
from converters.tflite.recommender_tables import Fused

__all__ = ["Band", "Dot", "Part", "TopColumns", "order_columns", "permuted"]

# Products emitted in a block over those wanted: beyond it, their weights cost more than picking the wanted ones.
LARGEST_EXCESS = 4 / 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Neighbouring columns of the first top layer.

    Attributes:
        input: For "dense": which input.
        group: For "vectors": which fused table.
        rows: For "vectors": which of its look-ups.
    """

    kind: Literal["bottom", "pairs", "dense", "vectors"]
    input: str = ""
    group: int = 0
    rows: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """All pairs of n factors as one block of their product matrix, which XNNPACK can cut out and not only pick.

    The matrix [n, n] without its last value, read as [n - 1, n + 1], has its diagonals as columns: column k holds the
    products of factors that are k places apart, and below them those k - 1 apart. Half of the columns hold each pair.

    Attributes:
        width: Columns of the block, which begins at column 1: column 0 holds the products of factors with themselves.
        order: Number of the pair for each product of the block; -1 for one that stands there twice.
    """

    width: int
    order: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """The factors of the dot products: the bottom MLP's output first, then rows of each fused table.

    Attributes:
        pairs: Places of the factors of each product.
        band: Where the products stand together; None where they are picked one by one.
    """

    with_bottom: bool
    rows: tuple[tuple[int, tuple[int, ...]], ...]
    pairs: tuple[tuple[int, int], ...]
    band: Band | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TopColumns:
    """The emitted order.

    Attributes:
        groups: For each fused table, the numbers of its look-ups in order.
        permutation: Column of the source's first top layer for each emitted column; -1 for one that it does not read.
    """

    groups: tuple[tuple[int, ...], ...]
    parts: tuple[Part, ...]
    dot: Dot | None
    permutation: np.ndarray


def order_columns(model: Recommender, fused: tuple[Fused, ...], *, banded: bool = True) -> TopColumns:
    """The order for these fused tables.

    Args:
        banded: Take dot products as a band where there is one; without it there are as many columns as in the source.
    """
    groups = tuple(
        tuple(number for number, lookup in enumerate(model.lookups) if lookup.table in entry.tables) for entry in fused
    )
    place = {number: (group, row) for group, numbers in enumerate(groups) for row, number in enumerate(numbers)}
    starts, widths = _source_columns(model)
    parts: list[Part] = []
    permutation: list[int] = []
    dot = _dot(model, groups, place)
    if dot is not None and not banded:
        dot = replace(dot, band=None)
    for group, numbers in enumerate(groups):
        wanted = [number for number in numbers if f"lookup:{number}" in starts]
        if wanted:
            parts.append(Part(kind="vectors", group=group, rows=tuple(place[number][1] for number in wanted)))
    for name in model.interaction.top_inputs:
        kind, _, which = name.partition(":")
        if kind == "dense":
            parts.append(Part(kind="dense", input=which))
        elif kind in ("bottom", "pairs"):
            parts.append(Part(kind=kind))  # type: ignore[arg-type]  # just checked
    for part in parts:
        if part.kind == "vectors":
            names = [f"lookup:{groups[part.group][row]}" for row in part.rows]
        else:
            names = [f"dense:{part.input}" if part.kind == "dense" else part.kind]
        for name in names:
            if name == "pairs" and dot is not None and dot.band is not None:
                permutation.extend(-1 if pair < 0 else starts[name] + pair for pair in dot.band.order)
            else:
                permutation.extend(range(starts[name], starts[name] + widths[name]))
    return TopColumns(groups=groups, parts=tuple(parts), dot=dot, permutation=np.array(permutation))


def permuted(weight: np.ndarray, columns: TopColumns) -> np.ndarray:
    """The first top layer's weight [out, in] in the emitted order."""
    taken: np.ndarray = np.where(columns.permutation < 0, np.float32(0), weight[:, columns.permutation])
    return taken


def _source_columns(model: Recommender) -> tuple[dict[str, int], dict[str, int]]:
    """First column and width of each of the source's top inputs."""
    starts, widths = {}, {}
    start = 0
    for name in model.interaction.top_inputs:
        kind, _, which = name.partition(":")
        if kind == "lookup":
            width = model.tables[model.lookups[int(which)].table].dim
        elif kind == "dense":
            shape = next(info.shape for info in model.inputs if info.name == which)
            width = int(np.prod(shape[1:], dtype=np.int64))
        else:
            width = len(model.interaction.pairs) if kind == "pairs" else model.bottom[-1].out_features
        starts[name], widths[name] = start, width
        start += width
    return starts, widths


def _dot(model: Recommender, groups: tuple[tuple[int, ...], ...], place: dict[int, tuple[int, int]]) -> Dot | None:
    inter = model.interaction
    if inter.kind != "dot":
        return None
    with_bottom = -1 in inter.vectors
    rows = []
    at: dict[int, int] = {-1: 0}
    count = int(with_bottom)
    for group, numbers in enumerate(groups):
        wanted = [number for number in numbers if number in inter.vectors]
        if wanted:
            rows.append((group, tuple(place[number][1] for number in wanted)))
        for number in wanted:
            at[number] = count
            count += 1
    pairs = tuple((at[inter.vectors[a]], at[inter.vectors[b]]) for a, b in inter.pairs)
    return Dot(with_bottom=with_bottom, rows=tuple(rows), pairs=pairs, band=_band(count, pairs))


def _band(count: int, pairs: tuple[tuple[int, int], ...]) -> Band | None:
    """The block that holds these pairs of `count` factors; None where it would be much more than they are."""
    numbers = {frozenset(pair): number for number, pair in enumerate(pairs)}
    if len(numbers) < len(pairs) or count < 3 or any(len(pair) == 1 for pair in numbers):
        return None
    taken = np.full((count - 1, count + 1), -1)
    found: set[int] = set()
    for column in range(1, count):
        for row in range(count - 1):
            number = numbers.get(frozenset(divmod(row * (count + 1) + column, count)))
            if number is not None and number not in found:
                taken[row, column] = number
                found.add(number)
        if column * (count - 1) > LARGEST_EXCESS * len(pairs):
            return None
        if len(found) == len(pairs):
            return Band(width=column, order=tuple(taken[:, 1 : column + 1].reshape(-1).tolist()))
    return None
