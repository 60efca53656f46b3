"""Hot rows in a checkpoint: `NAME.hot_rows` (int64) and `NAME.hot_bits` beside `NAME.weight` say which stay wide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from converters.recommender.model import HotRows, Recommender, load
from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import write_json

__all__ = ["HOT_BITS", "HOT_ROWS", "mark_hot_rows"]

HOT_ROWS, HOT_BITS = ".hot_rows", ".hot_bits"


def mark_hot_rows(entries: Mapping[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    """Mark the tables of a captured recommender, and return the entries that speak of something else.

    Raises:
        BadInput: An entry belongs to no table, lacks its other half, or names rows that the table does not have.
    """
    mine = {name: value for name, value in entries.items() if name.endswith((HOT_ROWS, HOT_BITS))}
    rest = {name: value for name, value in entries.items() if name not in mine}
    if not mine:
        return rest
    model, _ = load(folder)
    rows = {table.name: table.rows for table in model.tables}
    problems = []
    marked: dict[str, HotRows] = {}
    for name, ids in mine.items():
        layer = name.rpartition(".")[0]
        if layer not in rows:
            problems.append(f"hot rows: {name}: the model has no table {layer}.")
        elif name.endswith(HOT_BITS):
            if layer + HOT_ROWS not in mine:
                problems.append(f"hot rows: {name}: {layer}{HOT_ROWS} is missing.")
        elif layer + HOT_BITS not in mine or int(mine[layer + HOT_BITS]) not in (16, 32):
            problems.append(f"hot rows: {layer}{HOT_BITS}: must be 16 or 32.")
        elif ids.ndim != 1 or (np.diff(ids) <= 0).any() or (len(ids) and not 0 <= ids[0] <= ids[-1] < rows[layer]):
            problems.append(f"hot rows: {name}: must be ascending numbers of the table's {rows[layer]} rows.")
        elif len(ids):
            marked[layer] = HotRows(ids=f"{layer}.hot", count=len(ids), bits=int(mine[layer + HOT_BITS]))
            np.save(folder / f"{layer}.hot.npy", ids.astype(np.int64), allow_pickle=False)
    if problems:
        raise BadInput(*problems[:20])
    write_json(_marked(model, marked), folder / "structure.json")
    return rest


def _marked(model: Recommender, hot: Mapping[str, HotRows]) -> Recommender:
    return replace(model, tables=tuple(replace(table, hot=hot.get(table.name)) for table in model.tables))
