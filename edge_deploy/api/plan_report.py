"""Draw a plan: the best cut over a grid of uplink and load, and the model's layers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from edge_deploy.api.plan import PlanRequest, read_problem
from edge_deploy.core.partition_plan import PartitionPlan
from edge_deploy.report.document import write_page
from edge_deploy.report.plan_layers import AlongLayers
from edge_deploy.report.plan_map import CutMap
from edge_deploy.report.plan_page import plan_page
from partitioner.candidates import prefixes
from partitioner.plan_table import Grid, look_up, plan_table
from partitioner.problem import Problem
from runtimes.codecs import load_codec

__all__ = ["write_plan_report"]

_COLUMNS, _ROWS = 61, 21


def write_plan_report(request: PlanRequest, plan: PartitionPlan, out: Path | str) -> Path:
    """Write the page of `plan`, which `plan_partition(request, ...)` made.

    Raises:
        BadInput: The page cannot be written.
    """
    problem = read_problem(request)
    edge, cloud = problem.edge, problem.cloud
    lead = f"{len(problem.graph.layers)} layers between {edge.device} ({edge.kernels}) and {cloud.device} "
    lead += f"({cloud.kernels}); boundary sent {plan.codec}; least {plan.objective}."
    text = plan_page(plan, edge.artifact, lead, _map(problem, plan), _along(problem, plan))
    return write_page(text, Path(out))


def _map(problem: Problem, plan: PartitionPlan) -> CutMap:
    now = plan.conditions
    # Two decades on both sides of the plan's own uplink, or of 10 Mbit/s where the link is down.
    middle = now.uplink_bps or 1e7
    uplinks = tuple(float(rate) for rate in np.geomspace(middle / 100, middle * 100, _COLUMNS))
    loads = tuple(float(load) for load in np.linspace(0, 1, _ROWS))
    same = now.downlink_bps == now.uplink_bps
    base = dataclasses.replace(now, uplink_bps=middle, downlink_bps=0.0 if same else now.downlink_bps)
    grid = Grid(uplink_bps=uplinks, edge_load=loads, rtt_s=(now.rtt_s,))
    table = plan_table(problem, base, grid)
    cuts = tuple(
        tuple(look_up(table, uplink_bps=rate, edge_load=load, rtt_s=now.rtt_s) or "" for rate in uplinks)
        for load in loads
    )
    note = "" if len(problem.edge.cpu.at) > 1 else "No slowdown by load was measured, so it changes nothing."
    return CutMap(uplink_bps=uplinks, edge_load=loads, cuts=cuts, here=(now.uplink_bps, now.edge_load), note=note)


def _along(problem: Problem, plan: PartitionPlan) -> AlongLayers:
    coder = load_codec(problem.codec)
    positions = prefixes(problem.graph)
    ids = [item.cut.id for item in positions]
    names = [layer.name for layer in problem.graph.layers]
    return AlongLayers(
        names=("(input)", *names),
        up_bytes=tuple(coder.encoded_bytes(item.cut.up) for item in positions),
        legal=tuple(not item.refused for item in positions),
        edge_s=(0.0, *(problem.edge.layer_s[name] for name in names)),
        cloud_s=(0.0, *(problem.cloud.layer_s[name] for name in names)),
        chosen=ids.index(plan.cuts[0]) if plan.cuts[0] in ids else None,
    )
