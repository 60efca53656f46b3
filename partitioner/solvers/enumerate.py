"""Weigh every prefix of the topological order: exact among them for any objective and constraint, and vectorised."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.conditions import Conditions
from edge_deploy.core.cut import Cut
from partitioner.candidates import legal_cuts
from partitioner.cut_table import CutTable
from partitioner.linear_cost import LinearCost, condition_features, linear_cost
from partitioner.objectives import Objective
from partitioner.problem import Problem

__all__ = ["BestCuts", "best_cuts", "propose"]

# Points weighed at once by one thread: 2 MB of scores stay in its cache.
_CHUNK_POINTS = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BestCuts:
    """The best cut under each of n conditions.

    Attributes:
        index: Column of the table, shape (n,); -1 where no cut is feasible.
        value: What was minimised, shape (n,); inf where no cut is feasible.
    """

    index: np.ndarray
    value: np.ndarray


def propose(problem: Problem, now: Conditions) -> tuple[Cut, ...]:
    """All legal prefixes; see `partitioner.problem.Solver`."""
    return legal_cuts(problem.graph)


def best_cuts(
    table: CutTable,
    conditions: Mapping[str, np.ndarray],
    *,
    objective: Objective | None = None,
    max_latency_s: float | None = None,
    allowed: np.ndarray | None = None,
    threads: int | None = None,
) -> BestCuts:
    """The best cut of the table under each condition; the first of equals.

    Costs are computed in pieces that fit a core's cache and are never all held at once.

    Args:
        conditions: By field, as `partitioner.cost.cost` takes them; n of each.
        objective: None for latency.
        allowed: Shape (C,), bool: cuts that may be chosen; None for all.
        threads: None for every core this process may use.

    Raises:
        BadInput: Energy is asked for and the edge's power is not known.
    """
    objective = objective or Objective()
    linear = linear_cost(table, objective)
    latency = linear_cost(table, Objective()) if max_latency_s is not None and objective != Objective() else None
    features, no_uplink, no_downlink = condition_features(table, conditions)
    count, columns = len(features), len(table.cuts)
    forbidden = None if allowed is None or allowed.all() else np.where(allowed, 0.0, np.inf)
    rows = max(1, _CHUNK_POINTS // columns)
    index, value = np.empty(count, dtype=np.int64), np.empty(count)

    def weigh(start: int) -> None:
        part = slice(start, min(start + rows, count))
        scores = _scores(linear, features[part], no_uplink[part], no_downlink[part])
        if forbidden is not None:
            scores += forbidden
        if max_latency_s is not None:
            total = scores if latency is None else latency.score(features[part])
            scores = np.where(total <= max_latency_s, scores, np.inf)
        chosen = scores.argmin(axis=1)
        value[part] = scores[np.arange(len(chosen)), chosen]
        index[part] = chosen

    # Only Linux tells which processors this process may use.
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = threads or own
    if workers == 1 or count <= rows:
        for start in range(0, count, rows):
            weigh(start)
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(weigh, range(0, count, rows)))
    index[~np.isfinite(value)] = -1
    return BestCuts(index=index, value=value)


def _scores(linear: LinearCost, features: np.ndarray, no_uplink: np.ndarray, no_downlink: np.ndarray) -> np.ndarray:
    scores = linear.score(features)
    for down, needs in ((no_uplink, linear.needs_uplink), (no_downlink, linear.needs_downlink)):
        if down.any():
            scores[np.ix_(down, needs)] = np.inf
    return scores
