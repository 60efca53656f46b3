"""Seconds and memory of the cost of millions of (condition x cut) points, against a plain loop."""

from __future__ import annotations

import os
import resource
import time

import numpy as np

from edge_deploy.bench.partition_cases import branched, conditions, problem
from partitioner.candidates import legal_cuts
from partitioner.cut_table import CutTable, build_cut_table
from partitioner.objectives import parse_objective
from partitioner.solvers.enumerate import best_cuts

__all__ = ["measure_cost"]

CUTS = 233
POINTS = 8_000_000
SAMPLE = 200
ROUNDS = 7


def measure_cost() -> dict[str, object]:
    """Cost and best cut of 8 million points: seconds, peak memory, and the ratio to the loop by point."""
    graph = branched(CUTS - 1, back=4, reads=(1, 2), seed=0)
    net = problem(graph, seed=1)
    table = build_cut_table(graph, legal_cuts(graph), edge=net.edge, cloud=net.cloud)
    many = conditions(-(-POINTS // CUTS), seed=2)
    points = len(many["uplink_bps"]) * len(table.cuts)
    found: dict[str, object] = {"points": points, "threads": len(os.sched_getaffinity(0))}
    for name in ("latency", "throughput", "latency=1,energy=0.5"):
        objective, seconds, loops = parse_objective(name), [], []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            best = best_cuts(table, many, objective=objective)
            seconds.append(time.perf_counter() - start)
            if name == "latency":
                start = time.perf_counter()
                slow = [_loop(table, many, row) for row in range(SAMPLE)]
                loops.append((time.perf_counter() - start) / SAMPLE * len(many["uplink_bps"]))
                _check(best.value[:SAMPLE], slow)
        found[f"{name}_s"] = float(np.median(seconds))
        if loops:
            found["plain_loop_s"] = float(np.median(loops))
            found["times_faster"] = float(np.median(np.array(loops) / np.array(seconds)))
    found["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return found


def _loop(table: CutTable, many: dict[str, np.ndarray], row: int) -> float:
    """The lowest latency under one condition, cut by cut in plain Python."""
    now = {name: float(values[row]) for name, values in many.items()}
    edge = float(np.interp(now["edge_load"], table.edge_cpu.at, table.edge_cpu.factor))
    cloud = float(np.interp(now["cloud_load"], table.cloud_cpu.at, table.cloud_cpu.factor))
    best = float("inf")
    for column in range(len(table.cuts)):
        total = edge * table.edge_s[column]
        if table.crosses[column]:
            total += edge * table.encode_s[column] + cloud * (table.cloud_s[column] + table.decode_s[column])
            total += 8 * table.up_bytes[column] / now["uplink_bps"] + now["rtt_s"]
            total += 8 * table.down_bytes[column] / now["downlink_bps"]
        best = min(best, float(total))
    return best


def _check(fast: np.ndarray, slow: list[float]) -> None:
    if not np.allclose(fast, slow, rtol=1e-9):
        raise AssertionError("the vectorised cost and the plain loop disagree")
