"""Hot and cold rows on ExecuTorch: a directory finds each row among the wide ones or among those of few bits.

Hot rows and directory are read with `index_select`, so that the one operator called embedding is that of the cold rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.recommender.hot_rows import PLACES, ColdRows, Directory, build_directory, cold_of, hot_values
from converters.recommender.model import Recommender, Table
from converters.recommender.trained import TrainedScale, usable

__all__ = [
    "StackedHot",
    "cold_scales",
    "cold_tables",
    "find",
    "gather_hot",
    "hot_buffers",
    "wide_rows",
    "with_hot_rows",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StackedHot:
    """The hot rows of tables below one another.

    Attributes:
        rows: float16 or float32 [hot, dim].
        starts: First row of each table, hot and cold ones counted.
    """

    rows: np.ndarray
    directory: Directory
    starts: tuple[int, ...]


def with_hot_rows(table: Table, bits: int) -> tuple[int, int]:
    """Bits of the cold rows and of the hot ones; 0 where all are alike. Tables have no float16 form of their own."""
    hot = table.hot
    if hot is None or bits == 32:
        return bits, 0
    return (32, 0) if hot.count == table.rows else (bits, hot.bits)


def _ids(model: Recommender, arrays: Mapping[str, np.ndarray], table: int) -> np.ndarray:
    hot = model.tables[table].hot
    return np.zeros(0, np.int64) if hot is None else np.asarray(arrays[hot.ids], np.int64)


def cold_tables(model: Recommender, arrays: Mapping[str, np.ndarray], group: Any) -> list[Any]:
    """What is stored with few bits of each table of a group: all of it, where it has no hot rows."""
    weights = [arrays[model.tables[index].weight] for index in group.tables]
    if not group.hot_bits:
        return list(weights)
    return [ColdRows(weight, _ids(model, arrays, index)) for weight, index in zip(weights, group.tables, strict=True)]


def cold_scales(
    model: Recommender, arrays: Mapping[str, np.ndarray], group: Any, trained: Mapping[str, TrainedScale]
) -> list[np.ndarray | None]:
    """The scales that training learned for `cold_tables`."""
    scales = [usable(trained, model.tables[index].name, group.bits) for index in group.tables]
    if not group.hot_bits:
        return scales
    return [cold_of(own, _ids(model, arrays, index)) for own, index in zip(scales, group.tables, strict=True)]


def gather_hot(model: Recommender, arrays: Mapping[str, np.ndarray], tables: Sequence[int], bits: int) -> StackedHot:
    """The hot rows of these tables and where they stand."""
    ids = [_ids(model, arrays, index) for index in tables]
    sizes = [model.tables[index].rows for index in tables]
    starts = [int(start) for start in np.cumsum([0, *sizes[:-1]])]
    moved = np.concatenate([own + start for own, start in zip(ids, starts, strict=True)])
    weights = [arrays[model.tables[index].weight] for index in tables]
    return StackedHot(
        rows=hot_values(weights, ids, np.float16 if bits == 16 else np.float32),
        directory=build_directory(moved, sum(sizes)),
        starts=tuple(starts),
    )


def hot_buffers(torch: Any, hot: StackedHot) -> dict[str, Any]:
    """What `find` and `wide_rows` read, by attribute name; numbers are tensors, as the quantizer asks for."""
    directory = hot.directory
    cold = max(directory.rows - directory.hot - 1, 0)
    return {
        "hot_rows": torch.from_numpy(hot.rows),
        "groups": torch.from_numpy(directory.groups.astype(np.uint8)),
        "blocks": torch.from_numpy(directory.blocks.reshape(-1).astype(np.int32)),
        "byte_places": torch.from_numpy(PLACES.copy()),
        "last_hot": torch.tensor([directory.hot - 1]),
        "last_cold": torch.tensor([cold]),
        "eight": torch.tensor([8]),
    }


def find(torch: Any, rows: Any, held: Any) -> tuple[Any, Any, Any]:
    """Whether rows [batch, ids] are hot, as bool [batch, ids, 1], and their places among hot and among cold rows."""
    flat = rows.flatten()
    group = torch.index_select(held.groups, 0, torch.bitwise_right_shift(flat, 3)).to(torch.int64)
    entry = group[:, 0] * held.eight + torch.bitwise_and(flat, 7)
    place = torch.index_select(held.byte_places, 0, entry).to(torch.int64)
    before = torch.index_select(held.blocks, 0, torch.bitwise_right_shift(flat, 8)).to(torch.int64)
    rank = before + group[:, 1] + place[:, 1]
    hot = torch.minimum(rank, held.last_hot).reshape(rows.shape)
    cold = torch.minimum(flat - rank, held.last_cold).reshape(rows.shape)
    return (place[:, 0] == 1).reshape((*rows.shape, 1)), hot, cold


def wide_rows(torch: Any, places: Any, held: Any) -> Any:
    """float32 [batch, ids, dim]."""
    found = torch.index_select(held.hot_rows, 0, places.flatten()).to(torch.float32)
    return found.reshape((*places.shape, found.shape[-1]))
