"""A modelled sweep as tasks: the cost of every cut under a stretch of the grid, and the sweep put together again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.core.profile import Slowdown
from edge_deploy.core.serde import from_json
from partitioner.cost import cost
from partitioner.cut_table import ARRAYS, CutTable
from partitioner.engine.store import load_results
from partitioner.engine.task import Task, make_task
from partitioner.study.grid import Grid
from partitioner.study.sweep_table import Sweep

__all__ = ["modelled_points", "modelled_tasks", "read_modelled", "table_from_json", "table_to_json"]

# Conditions of one task: some 4 MB of results for 90 cuts, a second or less of work.
STRETCH = 4096
REVISION = 1
_SLOWDOWNS = ("edge_cpu", "edge_memory", "cloud_cpu", "cloud_memory")


def modelled_tasks(table: CutTable, grid: Grid, *, stretch: int = STRETCH) -> tuple[Task, ...]:
    """Tasks that cover the grid for one model on one pair of devices."""
    plain = table_to_json(table)
    # Pairs, not an object: the order of fields is the order of conditions, and a task sorts the keys of objects.
    levels = [[name, list(values)] for name, values in grid.levels.items()]
    return tuple(
        make_task(
            "partitioner.study.modelled:modelled_points",
            {"table": plain, "levels": levels, "start": start, "stop": min(start + stretch, len(grid))},
            revision=REVISION,
        )
        for start in range(0, len(grid), stretch)
    )


def modelled_points(
    table: dict[str, Any], levels: list[tuple[str, list[float]]], start: int, stop: int
) -> dict[str, np.ndarray]:
    """One row a point: number of the condition in the grid, place of the cut, and its seconds.

    Seconds are stored as float32: seven digits, where the model is good for two.
    """
    cuts = table_from_json(table)
    grid = Grid(levels={name: tuple(values) for name, values in levels})
    costs = cost(cuts, grid.rows(start, stop))
    shape = (stop - start, len(cuts.cuts))
    condition, cut = np.indices(shape)
    # Codes run on the devices, so they belong to the halves as they do in a measurement.
    edge_s = np.broadcast_to(costs.edge_s + costs.encode_s, shape)
    return {
        "condition": (condition.ravel() + start).astype(np.int32),
        "cut": cut.ravel().astype(np.int16),
        "total_s": np.broadcast_to(costs.total_s, shape).ravel().astype(np.float32),
        "edge_s": edge_s.ravel().astype(np.float32),
        "cloud_s": np.broadcast_to(costs.cloud_s, shape).ravel().astype(np.float32),
    }


def read_modelled(name: str, folder: Path, tasks: Sequence[Task], table: CutTable, grid: Grid) -> Sweep:
    """The sweep of one model out of its partitions.

    Raises:
        BadInput: A partition is missing or damaged.
    """
    shape = (len(grid), len(table.cuts))
    seconds = {part: np.full(shape, np.nan) for part in ("total_s", "edge_s", "cloud_s")}
    for found in load_results(folder, tasks):
        for part, array in seconds.items():
            array[found["condition"], found["cut"]] = found[part]
    rows = grid.rows(0, len(grid))
    return Sweep(
        name=name,
        factors=grid.factors,
        levels=np.stack([rows[field] for field in grid.factors], axis=1),
        cuts=table.cuts,
        total_s=seconds["total_s"],
        edge_s=seconds["edge_s"],
        cloud_s=seconds["cloud_s"],
        values=int(np.isfinite(seconds["total_s"]).sum()),
    )


def table_to_json(table: CutTable) -> dict[str, Any]:
    """The table as plain values, so that it can be part of a task."""
    plain: dict[str, Any] = {name: getattr(table, name).tolist() for name in ARRAYS}
    slowdowns: Mapping[str, Slowdown] = {name: getattr(table, name) for name in _SLOWDOWNS}
    plain |= {name: {"at": list(curve.at), "factor": list(curve.factor)} for name, curve in slowdowns.items()}
    return {**plain, "cuts": list(table.cuts), "codec": table.codec, "provenance": table.provenance}


def table_from_json(plain: Mapping[str, Any]) -> CutTable:
    """The table that `table_to_json` described; power figures do not travel."""
    fields: dict[str, Any] = {name: np.asarray(plain[name]) for name in ARRAYS}
    fields |= {name: from_json(Slowdown, plain[name], where=f"table.{name}") for name in _SLOWDOWNS}
    return CutTable(cuts=tuple(plain["cuts"]), codec=plain["codec"], provenance=plain["provenance"], **fields)
